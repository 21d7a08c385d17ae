"""What a provider's refusal means: by its status, and by the codes and set phrases that providers put into bodies.

The shapes are those of OpenAI, Azure, Anthropic, Gemini, Bedrock, Mistral, DeepSeek, OpenRouter, vLLM and llama.cpp;
tests/golden/provider_errors.jsonl and tests/golden/vllm_errors.jsonl show them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from bursar.runtime.models.provider import (
    AuthFailed,
    BadReply,
    CallTimeout,
    ContentFiltered,
    ContextTooLong,
    ModelMissing,
    NotSent,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    Unavailable,
)

__all__ = ["Refused", "read_refusal"]

DEPTH_MAX = 6
ITEMS_MAX = 50

_MEANT: Mapping[type[ProviderError], tuple[frozenset[str], tuple[str, ...]]] = {
    QuotaExhausted: (
        frozenset(
            {
                "insufficient_quota",
                "billing_not_active",
                "billing_hard_limit_reached",
                "billing_error",
                "exceeded_current_quota_error",
                "token_quota_reached",
                "servicequotaexceededexception",
            }
        ),
        (
            "your credit balance is too low",
            "insufficient balance",
            "you have reached your specified api usage limits",
            "key limit exceeded",
        ),
    ),
    ContextTooLong: (
        frozenset({"context_length_exceeded", "exceed_context_size_error"}),
        (
            "maximum context length",
            "exceed context limit",
            "prompt is too long",
            "input is too long",
            "input token count",
            "too large for model with",
            "max_model_len",
        ),
    ),
    ContentFiltered: (
        frozenset(
            {
                "content_filter",
                "content_policy_violation",
                "responsibleaipolicyviolation",
                "moderation_blocked",
                "data_inspection_failed",
            }
        ),
        ("content exists risk", "violating our usage policy", "content filtering policy", "input was flagged"),
    ),
    NotSent: (frozenset(), ("no endpoints found that support", "request too large for")),
    ModelMissing: (
        frozenset({"model_not_found", "deploymentnotfound", "invalid_model", "resourcenotfoundexception"}),
        ("model not exist",),
    ),
    AuthFailed: (
        frozenset({"invalid_api_key", "api_key_invalid", "authentication_error", "unrecognizedclientexception"}),
        (),
    ),
    Overloaded: (
        frozenset(
            {
                "overloaded_error",
                "server_is_overloaded",
                "engine_overloaded_error",
                "slow_down",
                "service_tier_capacity_exceeded",
                "modelnotreadyexception",
            }
        ),
        (),
    ),
}
"""Codes, and phrases where a provider has no code of its own for it; all in lower case."""

_COOLS = frozenset({QuotaExhausted, ModelMissing})
"""What keeps others from a model begins its text with the phrase: servers quote what a request held."""

_BY_STATUS: Mapping[int, type[ProviderError]] = {
    401: AuthFailed,
    402: QuotaExhausted,
    403: AuthFailed,
    404: ModelMissing,
    408: CallTimeout,  # Azure's, which bills it
    424: BadReply,  # Bedrock: the model began, and failed
    429: RateLimited,
    503: Overloaded,
    504: CallTimeout,
    524: CallTimeout,
    529: Overloaded,
}

_MAY_BE_BILLED = frozenset({408, 424, 504, 524})
"""Somebody gave up on a model that may well be writing: whatever the body says, the call may be billed."""

_CODE_KEYS = frozenset({"code", "type", "status", "reason", "__type"})
_DAILY = re.compile(r"per_?day", re.IGNORECASE)
_DELAY = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
_REGAINED = re.compile(r"regain access on (\d{4}-\d{2}-\d{2})(?: at (\d{2}:\d{2}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What was read out of a refusal."""

    kind: type[ProviderError]
    detail: str
    """What the provider says is wrong, in its own words."""

    retry_after_s: float | None


def read_refusal(status: int, headers: Mapping[str, str], text: str, now: datetime) -> Refused:
    """What an answer with this status, other than 2xx, means."""
    body = _parsed(text)
    fields = [*_fields(body)]
    codes = {str(value).lower() for key, value in fields if key in _CODE_KEYS}
    codes.add(headers.get("x-amzn-errortype", "").partition(":")[0].lower())
    detail = _detail(body, text)
    kind = _kind(status, codes, detail.lower() if body is not None else "")
    if kind is RateLimited and any(key == "quotaId" and _DAILY.search(str(value)) for key, value in fields):
        return Refused(kind=QuotaExhausted, detail=detail, retry_after_s=None)  # its delay is that of another limit
    delays = [float(found[1]) for key, value in fields if key == "retryDelay" and (found := _DELAY.match(str(value)))]
    asked = _retry_after_s(headers, now)
    if asked is None:
        asked = delays[0] if delays else _regained_s(detail, now)
    return Refused(kind=kind, detail=detail, retry_after_s=asked)


def _kind(status: int, codes: set[str], said: str) -> type[ProviderError]:
    if status >= 400 and status not in _MAY_BE_BILLED:
        for kind, (known, phrases) in _MEANT.items():
            if codes & known or (status < 500 and _says(said, kind, phrases)):
                return kind
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status < 400:
        return ModelMissing  # a redirect: the model is not at this address
    return Unavailable if status >= 500 else RequestRefused


def _says(said: str, kind: type[ProviderError], phrases: tuple[str, ...]) -> bool:
    return said.startswith(phrases) if kind in _COOLS else any(phrase in said for phrase in phrases)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _fields(node: Any, depth: int = 0) -> Iterator[tuple[str, str | int]]:
    """Every key with a plain value, anywhere in the body, but for what it quotes of the request."""
    if depth > DEPTH_MAX:
        return
    pairs = [*node.items()] if isinstance(node, dict) else [("", one) for one in node] if isinstance(node, list) else []
    for key, value in pairs[:ITEMS_MAX]:
        if isinstance(value, str | int):
            yield key, value
        elif key != "input":
            yield from _fields(value, depth + 1)


def _detail(body: Any, text: str) -> str:
    """`error.message` of most, `error` of Ollama, `message` of Bedrock and Mistral, `detail` of FastAPI; else all."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return text
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else error
    said = said or body.get("message") or body.get("Message") or body.get("detail")
    return said if isinstance(said, str) else text


def _retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` as seconds or as a date; None where there is neither."""
    if milliseconds := _seconds(headers.get("retry-after-ms")):
        return milliseconds / 1000
    asked = headers.get("retry-after")
    if (seconds := _seconds(asked)) is not None:
        return seconds
    if (then := _date(asked)) is None:
        return None
    return max(0.0, (then - (_date(headers.get("date")) or now)).total_seconds())


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(value: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _regained_s(detail: str, now: datetime) -> float | None:
    """Anthropic says in words when a spent budget is renewed."""
    if (found := _REGAINED.search(detail)) is None:
        return None
    try:
        then = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}").replace(tzinfo=UTC)
    except ValueError:
        return None
    return max(0.0, (then - now).total_seconds())
