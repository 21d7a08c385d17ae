from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.errors import UsageError
from bursar.budget.whatif.interval import GROUP_SIZE, alike, needed, prediction


@pytest.mark.parametrize(("percent", "runs"), [(50, 3), (80, 9), (90, 19), (95, 39), (99, 199)])
def test_an_interval_needs_so_many_values(percent: int, runs: int) -> None:
    assert needed(percent) == runs
    assert prediction([*range(runs - 1)], percent) is None
    assert prediction([*range(runs)], percent) == (0, runs - 1)


@pytest.mark.parametrize("percent", [0, 100, -5, 80.0, True])
def test_a_percent_that_cannot_be_is_an_error(percent: int) -> None:
    with pytest.raises(UsageError, match="from 1 to 99"):
        needed(percent)


@given(st.integers(9, 400), st.integers(1, 99))
def test_the_promise_is_kept_and_by_no_more_than_one_value_too_many(seen: int, percent: int) -> None:
    if (found := prediction([*range(seen)], percent)) is None:
        assert seen < needed(percent)
        return
    low, high = found
    covered = (high - low) / (seen + 1)  # of the n + 1 gaps, each as likely as any other
    assert percent / 100 <= covered < percent / 100 + 1 / (seen + 1)
    assert abs(low - (seen - 1 - high)) <= 1


@given(st.lists(st.integers(0, 50), max_size=300), st.integers(0, 50))
def test_those_alike_are_a_group_by_rank_that_holds_every_equal_mark(marks: list[int], mark: int) -> None:
    places = alike(mark, marks)
    assert len(places) + 1 >= min(GROUP_SIZE, len(marks) + 1)
    group = {marks[place] for place in places}
    assert {place for place, one in enumerate(marks) if one in group} == set(places)


def test_what_was_spent_so_far_tells_those_alike_apart() -> None:
    marks = [*range(199)]
    assert [len(alike(mark, marks)) + 1 for mark in (0, 70, 130, 198)] == [50, 50, 50, 50]
    assert max(alike(0, marks)) < 50


SPREADS: dict[str, Callable[[Random], float]] = {
    "normal": lambda random: random.gauss(10**6, 10**5),
    "lognormal": lambda random: random.lognormvariate(12, 1.5),
    "pareto": lambda random: 10**4 * random.paretovariate(1.1),  # without a variance, hardly with a mean
    "two kinds": lambda random: random.gauss(10**5, 10**3) * random.choice([1, 1, 1, 40]),
}


@pytest.mark.parametrize("spread", SPREADS)
def test_the_next_value_is_covered_as_often_as_promised_whatever_the_distribution(spread: str) -> None:
    random = Random(f"a seed for {spread}")
    values = [round(SPREADS[spread](random)) for _ in range(2_050)]
    intervals = (prediction(values[place - 50 : place], 80) or (0, -1) for place in range(50, len(values)))
    hits = sum(low <= value <= high for (low, high), value in zip(intervals, values[50:], strict=True))
    assert 0.78 <= hits / 2_000 <= 0.84
