from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.pricing.usage_shapes import READERS, Shape, read_usage
from bursar.budget.usage import Usage

SHAPES: tuple[Shape, ...] = get_args(Shape)

# Every key that some reader looks at, so that hostile values meet every one of them.
KEYS = (
    *("usage", "usageMetadata", "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"),
    *("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"),
    *("cached_tokens", "cached_tokens_details", "audio_tokens", "image_tokens", "reasoning_tokens", "service_tier"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "ephemeral_1h_input_tokens"),
    *("iterations", "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount"),
    *("promptTokensDetails", "cacheTokensDetails", "modality", "tokenCount", "trafficType", "inputTokens"),
    *("outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "cacheDetails", "ttl", "serviceTier", "type"),
    *("prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "totalTokenCount", "cache_creation_token_details"),
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-5, 10**4)
    | st.sampled_from([10**13, 10**400, -1])
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["AUDIO", "IMAGE", "1h", "flex"])
)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=15,
)


@given(st.sampled_from(SHAPES), anything, anything)
def test_whatever_a_provider_sends_gives_a_usage_or_none_or_a_clear_error(
    shape: Shape, usage: object, more: object
) -> None:
    key = "usageMetadata" if shape == "gemini" else "usage"
    extra = more if isinstance(more, dict) else {}
    said = "usage"
    try:
        read = read_usage(shape, {**extra, key: usage})
    except ValueError as refused:
        read, said = None, str(refused)
    assert "usage" in said
    assert read is None or read.total_tokens > 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("answer", [{}, {"usage": None, "usageMetadata": None}, {"usage": {}, "usageMetadata": {}}])
def test_a_provider_that_does_not_say_is_unknown_and_not_zero(shape: Shape, answer: dict[str, Any]) -> None:
    assert read_usage(shape, answer) is None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("answer", [None, [], "usage", 7])
def test_an_answer_that_is_none_is_refused(shape: Shape, answer: object) -> None:
    if answer is None:
        assert read_usage(shape, answer) is None
        return
    with pytest.raises(ValueError, match="answer: expected a mapping of usage, not"):
        read_usage(shape, answer)


def test_every_shape_has_a_reader() -> None:
    assert set(READERS) == set(SHAPES)


def test_whoever_sent_a_batch_knows_its_tier_better_than_the_answer() -> None:
    answer = {"service_tier": "default", "usage": {"prompt_tokens": 10, "completion_tokens": 2}}
    assert read_usage("openai_chat", answer, service_tier="batch") == Usage(
        input_tokens=10, output_tokens=2, service_tier="batch"
    )


@pytest.mark.parametrize(
    ("name", "tier"),
    [("default", "standard"), ("scale", "standard"), ("priority", "priority"), ("FLEX", "flex"), (7, "standard")],
)
def test_a_tier_that_nobody_prices_is_the_standard_one(name: object, tier: str) -> None:
    read = read_usage("openai_chat", {"service_tier": name, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    assert read is not None
    assert read.service_tier == tier


def test_where_nobody_says_what_was_cached_as_much_audio_as_can_be_was_not() -> None:
    details = {"cached_tokens": 60, "audio_tokens": 70}
    answer = {"usage": {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": details}}
    assert read_usage("openai_chat", answer) == Usage(
        input_tokens=100, output_tokens=1, cache_read_tokens=60, cache_read_audio_tokens=30, input_audio_tokens=40
    )
