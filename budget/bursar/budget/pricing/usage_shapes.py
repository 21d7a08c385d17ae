"""Readers of what each provider says it used: one function for each shape, all of them give a `Usage`.

The providers do not agree on what a count includes. `Usage` counts every input token in `input_tokens` and every output
token in `output_tokens`; what a provider leaves out of its own totals is added here, and nothing is counted twice.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from bursar.budget.usage import TOKENS_MAX, ServiceTier, Usage

__all__ = [
    "READERS",
    "Shape",
    "anthropic",
    "bedrock",
    "deepseek",
    "embedding",
    "gemini",
    "openai_chat",
    "openai_responses",
    "read_usage",
    "rerank",
    "vllm",
]

Shape = Literal[
    "openai_chat", "openai_responses", "anthropic", "gemini", "bedrock", "deepseek", "vllm", "embedding", "rerank"
]

_TIERS: Mapping[str, ServiceTier] = {
    "batch": "batch",
    "flex": "flex",
    "on_demand_flex": "flex",
    "priority": "priority",
    "fast": "priority",
    "on_demand_priority": "priority",
}
"""The service tiers by the providers' names of them; any other name means the standard prices."""

Json = Mapping[str, Any]


def read_usage(shape: Shape, answer: object, *, service_tier: ServiceTier | None = None) -> Usage | None:
    """What an answer says it used; None where it does not say, which is never the same as nothing.

    `answer` is the whole answer as parsed JSON. `service_tier` is for callers who know it better than the answer, which
    does not say in all shapes that it was part of a batch. Raises ValueError for numbers that cannot be.
    """
    whole = _mapping("answer", answer)
    usage = READERS[shape](whole)
    if usage is None or service_tier is None:
        return usage
    return Usage(**{**usage.to_record(), "service_tier": service_tier})


def openai_chat(answer: Json) -> Usage | None:
    """OpenAI's chat completions: `prompt_tokens` includes what was cached, `completion_tokens` the reasoning.

    Gemini and Grok, in this shape, leave their thinking out of `completion_tokens`, but not out of total and bill.
    """
    usage = _mapping("usage", answer.get("usage"))
    if usage.get("prompt_tokens") is None or usage.get("completion_tokens") is None:
        return None
    read, total = _count(usage, "prompt_tokens"), _count(usage, "total_tokens")
    written = _count(usage, "completion_tokens")
    return _openai(
        read,
        max(written, total - read) if read or written else 0,
        _mapping("prompt_tokens_details", usage.get("prompt_tokens_details")),
        _mapping("completion_tokens_details", usage.get("completion_tokens_details")),
        tier=answer.get("service_tier") or usage.get("service_tier"),
        cache_write=_count(usage, "cache_creation_input_tokens"),
    )


def openai_responses(answer: Json) -> Usage | None:
    """OpenAI's responses: `input_tokens` includes what was cached, `output_tokens` the reasoning."""
    usage = _mapping("usage", answer.get("usage"))
    if usage.get("input_tokens") is None or usage.get("output_tokens") is None:
        return None
    return _openai(
        _count(usage, "input_tokens"),
        _count(usage, "output_tokens"),
        _mapping("input_tokens_details", usage.get("input_tokens_details")),
        _mapping("output_tokens_details", usage.get("output_tokens_details")),
        tier=answer.get("service_tier"),
    )


def anthropic(answer: Json) -> Usage | None:
    """Anthropic's messages: `input_tokens` excludes what was read from and written to the cache.

    Where the server went several rounds by itself, `iterations` lists them, and the sum of them is billed.
    """
    usage = _mapping("usage", answer.get("usage"))
    if usage.get("input_tokens") is None or usage.get("output_tokens") is None:
        return None
    rounds = [_mapping("iterations", one) for one in _list("iterations", usage.get("iterations"))] or [usage]
    kept = [_mapping("cache_creation", one.get("cache_creation")) for one in rounds]
    thought = [_mapping("output_tokens_details", one.get("output_tokens_details")) for one in rounds]
    hour = sum(_count(one, "ephemeral_1h_input_tokens") for one in kept)
    minutes = sum(_count(one, "ephemeral_5m_input_tokens") for one in kept)
    read = sum(_count(one, "cache_read_input_tokens") for one in rounds)
    written = max(sum(_count(one, "cache_creation_input_tokens") for one in rounds), hour + minutes)
    return _usage(
        input_tokens=sum(_count(one, "input_tokens") for one in rounds) + read + written,
        output_tokens=sum(_count(one, "output_tokens") for one in rounds),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
        reasoning_tokens=sum(_count(one, "thinking_tokens") for one in thought),
        service_tier=_tier(usage.get("service_tier")),
    )


def gemini(answer: Json) -> Usage | None:
    """Gemini's generateContent: `promptTokenCount` includes what was cached; thoughts and tool prompts stand beside.

    The lists by modality include what was cached, whose own modalities are in `cacheTokensDetails`. Some models count
    their thoughts as candidates too: the total tells.
    """
    usage = _mapping("usageMetadata", answer.get("usageMetadata"))
    if usage.get("promptTokenCount") is None:
        return None
    thoughts, candidates = _count(usage, "thoughtsTokenCount"), _count(usage, "candidatesTokenCount")
    read = _count(usage, "promptTokenCount") + _count(usage, "toolUsePromptTokenCount")
    thoughts_apart = _count(usage, "totalTokenCount") != read + candidates
    cached = _count(usage, "cachedContentTokenCount")
    of_cache = usage.get("cacheTokensDetails")
    return _usage(
        output_tokens=candidates + (thoughts if thoughts_apart else 0),
        reasoning_tokens=thoughts,
        output_image_tokens=_of_modality(usage, "candidatesTokensDetails", "IMAGE"),
        output_audio_tokens=_of_modality(usage, "candidatesTokensDetails", "AUDIO"),
        service_tier=_tier(usage.get("serviceTier") or usage.get("trafficType")),
        **_input(
            read,
            cached,
            image=_of_modality(usage, "promptTokensDetails", "IMAGE"),
            audio=_of_modality(usage, "promptTokensDetails", "AUDIO"),
            cached_image=None if of_cache is None else _of_modality(usage, "cacheTokensDetails", "IMAGE"),
            cached_audio=None if of_cache is None else _of_modality(usage, "cacheTokensDetails", "AUDIO"),
        ),
    )


def bedrock(answer: Json) -> Usage | None:
    """Bedrock's converse: `inputTokens` excludes what was read from and written to the cache."""
    usage = _mapping("usage", answer.get("usage"))
    if usage.get("inputTokens") is None or usage.get("outputTokens") is None:
        return None
    kept = [_mapping("cacheDetails", one) for one in _list("cacheDetails", usage.get("cacheDetails"))]
    written = max(_count(usage, "cacheWriteInputTokens"), sum(_count(one, "inputTokens") for one in kept))
    read = _count(usage, "cacheReadInputTokens")
    return _usage(
        input_tokens=_count(usage, "inputTokens") + read + written,
        output_tokens=_count(usage, "outputTokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=sum(_count(one, "inputTokens") for one in kept if one.get("ttl") == "1h"),
        service_tier=_tier(_mapping("serviceTier", answer.get("serviceTier")).get("type")),
    )


def deepseek(answer: Json) -> Usage | None:
    """DeepSeek's chat completions: `prompt_tokens` is cache hits and misses together."""
    usage = _mapping("usage", answer.get("usage"))
    if usage.get("prompt_cache_hit_tokens") is None:
        return openai_chat(answer)
    if usage.get("prompt_tokens") is None or usage.get("completion_tokens") is None:
        return None
    hit, miss = _count(usage, "prompt_cache_hit_tokens"), _count(usage, "prompt_cache_miss_tokens")
    thought = _mapping("completion_tokens_details", usage.get("completion_tokens_details"))
    return _usage(
        input_tokens=max(_count(usage, "prompt_tokens"), hit + miss),
        output_tokens=_count(usage, "completion_tokens"),
        cache_read_tokens=hit,
        reasoning_tokens=_count(thought, "reasoning_tokens"),
    )


def vllm(answer: Json) -> Usage | None:
    """vLLM's chat completions, in OpenAI's shape: cached tokens are told only with `--enable-prompt-tokens-details`."""
    return openai_chat(answer)


def embedding(answer: Json) -> Usage | None:
    """OpenAI's embeddings: all that was read; nothing is written. Some servers give the total alone."""
    usage = _mapping("usage", answer.get("usage"))
    return _usage(input_tokens=_count(usage, "prompt_tokens") or _count(usage, "total_tokens"), output_tokens=0)


def rerank(answer: Json) -> Usage | None:
    """Rerank: tokens, as vLLM and Jina tell them in `usage`, or searches, as Cohere tells them in `billed_units`."""
    usage, meta = _mapping("usage", answer.get("usage")), _mapping("meta", answer.get("meta"))
    billed = _mapping("billed_units", meta.get("billed_units"))
    read = _count(usage, "prompt_tokens") or _count(usage, "total_tokens") or _count(billed, "total_tokens")
    searches = _count(billed, "search_units")
    return Usage(input_tokens=read, output_tokens=0, searches=searches) if read or searches else None


READERS: Mapping[Shape, Callable[[Json], Usage | None]] = {
    "openai_chat": openai_chat,
    "openai_responses": openai_responses,
    "anthropic": anthropic,
    "gemini": gemini,
    "bedrock": bedrock,
    "deepseek": deepseek,
    "vllm": vllm,
    "embedding": embedding,
    "rerank": rerank,
}


def _openai(
    read: int, written: int, inputs: Json, outputs: Json, *, tier: object, cache_write: int = 0
) -> Usage | None:
    of_cache = inputs.get("cached_tokens_details")
    kept = _mapping("cached_tokens_details", of_cache)
    by_time = _mapping("cache_creation_token_details", inputs.get("cache_creation_token_details"))
    return _usage(
        output_tokens=written,
        reasoning_tokens=_count(outputs, "reasoning_tokens"),
        output_image_tokens=_count(outputs, "image_tokens"),
        output_audio_tokens=_count(outputs, "audio_tokens"),
        service_tier=_tier(tier),
        **_input(
            read,
            _count(inputs, "cached_tokens"),
            written=_count(inputs, "cache_write_tokens") or _count(inputs, "cache_creation_tokens") or cache_write,
            hour=_count(by_time, "ephemeral_1h_input_tokens"),
            image=_count(inputs, "image_tokens"),
            audio=_count(inputs, "audio_tokens"),
            cached_image=None if of_cache is None else _count(kept, "image_tokens"),
            cached_audio=None if of_cache is None else _count(kept, "audio_tokens"),
        ),
    )


def _input(
    read: int,
    cached: int,
    *,
    written: int = 0,
    hour: int = 0,
    image: int = 0,
    audio: int = 0,
    cached_image: int | None = None,
    cached_audio: int | None = None,
) -> dict[str, int]:
    """The counts of an input whose images and audio include those that were cached.

    Where nobody says how many of them were cached, as few as can be: cached tokens are the cheaper ones.
    """
    fresh = max(read - cached - written, 0)
    fresh_audio = min(audio, fresh) if cached_audio is None else max(audio - cached_audio, 0)
    heard = min(audio - fresh_audio, cached)
    fresh_image = min(image, fresh - fresh_audio) if cached_image is None else max(image - cached_image, 0)
    return {
        "input_tokens": read,
        "cache_read_tokens": cached,
        "cache_write_tokens": written,
        "cache_write_1h_tokens": hour,
        "cache_read_audio_tokens": heard,
        "input_audio_tokens": fresh_audio,
        "input_image_tokens": fresh_image,
    }


def _usage(**counts: Any) -> Usage | None:
    """None for no tokens at all: whoever answered has read something, and so servers write that they do not know."""
    usage = Usage(**counts)
    return usage if usage.total_tokens else None


def _tier(name: object) -> ServiceTier:
    return _TIERS.get(name.lower(), "standard") if isinstance(name, str) else "standard"


def _of_modality(usage: Json, name: str, modality: str) -> int:
    listed = [_mapping(name, one) for one in _list(name, usage.get(name))]
    return sum(_count(one, "tokenCount") for one in listed if one.get("modality") == modality)


def _count(numbers: Json, name: str) -> int:
    count = numbers.get(name)
    if count is None:
        return 0
    if type(count) is not int or not 0 <= count <= TOKENS_MAX:
        raise ValueError(f"usage.{name}: expected a whole number from 0 to {TOKENS_MAX}, not {reprlib.repr(count)}")
    return count


def _mapping(name: str, value: object) -> Json:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected a mapping of usage, not {reprlib.repr(value)}")
    return value


def _list(name: str, value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"usage.{name}: expected a list, not {reprlib.repr(value)}")
    return value
