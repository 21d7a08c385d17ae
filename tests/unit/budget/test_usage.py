from __future__ import annotations

from typing import Any

import pytest

from bursar.budget.usage import TOKENS_MAX, Usage


def test_total_counts_cached_and_reasoning_tokens_once() -> None:
    usage = Usage(input_tokens=100, output_tokens=40, cache_read_tokens=60, cache_write_tokens=40, reasoning_tokens=40)
    assert usage.total_tokens == 140


@pytest.mark.parametrize(
    "field", ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"]
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
