from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from bursar.budget.usage import TOKENS_MAX, Usage


def test_total_counts_cached_and_reasoning_tokens_once() -> None:
    usage = Usage(input_tokens=100, output_tokens=40, cache_read_tokens=60, cache_write_tokens=40, reasoning_tokens=40)
    assert usage.total_tokens == 140


@pytest.mark.parametrize(
    "field", [field.name for field in fields(Usage) if field.name not in ("service_tier", "parts")]
)
@pytest.mark.parametrize("count", [-1, 1.5, 2.0, float("nan"), "3", None, True])
def test_a_count_that_is_no_whole_number_of_tokens_is_refused_by_name(field: str, count: Any) -> None:
    counts: dict[str, Any] = {"input_tokens": 10, "output_tokens": 10, field: count}
    with pytest.raises(ValueError, match=rf"usage\.{field} must be a whole number") as caught:
        Usage(**counts)
    assert repr(count) in str(caught.value)


def test_cached_tokens_are_part_of_the_input_and_cannot_exceed_it() -> None:
    with pytest.raises(ValueError, match=r"6 read, 5 written.*input_tokens \(10\)"):
        Usage(input_tokens=10, output_tokens=0, cache_read_tokens=6, cache_write_tokens=5)


def test_reasoning_tokens_are_part_of_the_output_and_cannot_exceed_it() -> None:
    with pytest.raises(ValueError, match=r"reasoning_tokens \(11\).*output_tokens \(10\)"):
        Usage(input_tokens=0, output_tokens=10, reasoning_tokens=11)


def test_a_count_that_no_ledger_could_hold_is_no_count() -> None:
    with pytest.raises(ValueError, match=r"usage\.output_tokens must be a whole number of tokens"):
        Usage(input_tokens=1, output_tokens=10**19)
    assert Usage(input_tokens=TOKENS_MAX, output_tokens=0).total_tokens == TOKENS_MAX


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"cache_write_tokens": 2, "cache_write_1h_tokens": 3},
            r"cache_write_1h_tokens \(3\) exceed cache_write_tokens",
        ),
        (
            {"cache_read_tokens": 2, "cache_read_audio_tokens": 3},
            r"cache_read_audio_tokens \(3\) exceed cache_read_tok",
        ),
        ({"cache_read_tokens": 8, "input_image_tokens": 1, "input_audio_tokens": 2}, r"\(1 and 2\) exceed .* \(10\)"),
        ({"reasoning_tokens": 8, "output_image_tokens": 1, "output_audio_tokens": 2}, r"\(1 and 2\) exceed .* \(10\)"),
        ({"service_tier": "first-class"}, "service_tier must be one of standard, batch, flex, priority: 'first-class'"),
    ],
)
def test_a_part_is_never_larger_than_its_whole(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Usage(input_tokens=10, output_tokens=10, **more)


def test_the_parts_of_a_usage_hold_each_token_once() -> None:
    usage = Usage(
        input_tokens=100,
        output_tokens=50,
        cache_read_tokens=30,
        cache_read_audio_tokens=10,
        cache_write_tokens=20,
        cache_write_1h_tokens=5,
        input_image_tokens=4,
        input_audio_tokens=6,
        reasoning_tokens=12,
        output_image_tokens=3,
        output_audio_tokens=2,
    )
    assert usage.parts._asdict() == {
        "input": 40,
        "cache_read": 20,
        "cache_read_audio": 10,
        "cache_write": 15,
        "cache_write_1h": 5,
        "input_image": 4,
        "input_audio": 6,
        "output": 33,
        "reasoning": 12,
        "output_image": 3,
        "output_audio": 2,
    }
    assert sum(usage.parts) == usage.total_tokens


def test_a_record_names_rare_counts_only_where_there_are_any_and_is_read_back() -> None:
    plain = Usage(input_tokens=3, output_tokens=2)
    assert list(plain.to_record()) == [
        *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
    ]
    rare = Usage(input_tokens=3, output_tokens=2, input_audio_tokens=1, service_tier="flex")
    for usage in (plain, rare):
        assert Usage(**usage.to_record()) == usage
    assert (rare.to_record()["input_audio_tokens"], rare.to_record()["service_tier"]) == (1, "flex")
