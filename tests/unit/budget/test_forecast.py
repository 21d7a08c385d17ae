from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.whatif.forecast import Forecast, forecast

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def hourly(*amounts: int) -> list[tuple[datetime, int]]:
    """The last hours before noon, each with what was spent in it."""
    start = NOON - len(amounts) * HOUR
    return [(start + place * HOUR, amount) for place, amount in enumerate(amounts)]


def in_hours(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


# --- A pace that is known exactly -------------------------------------------------------------------------------------


def test_a_steady_pace_is_forecast_exactly_and_without_doubt() -> None:
    found = forecast(hourly(*[10] * 8), limit=200, spent=80, now=NOON, window_end=in_hours(24))
    assert found == Forecast(
        expected=320,
        low=320,
        high=320,
        runs_out_at=in_hours(12),
        runs_out_earliest=in_hours(12),
        runs_out_latest=in_hours(12),
        stretches=8,
    )


def test_a_budget_that_lasts_until_its_window_ends_does_not_run_out() -> None:
    found = forecast(hourly(*[10] * 8), limit=200, spent=80, now=NOON, window_end=in_hours(11.9))
    assert (found.expected, found.runs_out_at, found.runs_out_earliest) == (199, None, None)


def test_what_is_used_up_has_run_out_now() -> None:
    found = forecast(hourly(*[10] * 8), limit=80, spent=90, now=NOON, window_end=in_hours(11))
    assert found.runs_out_at == found.runs_out_earliest == found.runs_out_latest == NOON


def test_a_window_without_an_end_runs_out_at_a_time_and_has_no_sum() -> None:
    found = forecast(hourly(*[10] * 8), limit=200, spent=80, now=NOON, window_end=None)
    assert (found.expected, found.low, found.high, found.runs_out_at) == (None, None, None, in_hours(12))
    assert forecast(hourly(1), limit=10**9, spent=0, now=NOON, window_end=None).runs_out_at is None


def test_the_unfinished_stretch_is_counted_with_the_one_before_it() -> None:
    buckets = [*hourly(*[10] * 8), (NOON, 5)]
    found = forecast(buckets, limit=10**6, spent=0, now=in_hours(0.5), window_end=in_hours(10.5))
    assert (found.low, found.expected, found.high, found.stretches) == (100, 100, 100, 8)


def test_what_leaves_a_rolling_window_is_room_again() -> None:
    steady = hourly(*[10] * 8)
    leaving = [(in_hours(hour + 1), 10) for hour in range(8)]
    found = forecast(steady, limit=91, spent=80, now=NOON, window_end=in_hours(8), leaving=leaving)
    assert (found.expected, found.runs_out_at) == (80, None)
    found = forecast(steady, limit=85, spent=80, now=NOON, window_end=in_hours(8), leaving=leaving)
    assert found.runs_out_at == in_hours(0.5)


# --- Little data ------------------------------------------------------------------------------------------------------


def test_nothing_spent_is_no_pace() -> None:
    for buckets in ([], hourly(0, 0, 0, 0), [(NOON, 5)]):
        found = forecast(buckets, limit=100, spent=40, now=NOON, window_end=in_hours(8))
        assert (found.expected, found.low, found.high, found.runs_out_at, found.stretches) == (40, None, None, None, 0)


@pytest.mark.parametrize("amounts", [(60,), (0, 0, 60), (20, 20, 20)])
def test_a_few_stretches_are_a_pace_without_an_interval(amounts: tuple[int, ...]) -> None:
    found = forecast(hourly(*amounts), limit=100, spent=60, now=NOON, window_end=in_hours(100))
    assert found.runs_out_at == in_hours(40 * len(amounts) / 60)
    assert (found.low, found.high, found.runs_out_earliest, found.runs_out_latest) == (None,) * 4


# --- Series whose truth is known --------------------------------------------------------------------------------------


def spending(rng: random.Random, per_hour: float, hours: int) -> Iterator[tuple[float, int]]:
    """Calls at random times, whose costs differ by a factor of about 2.7: the hour, and the cost."""
    at = rng.expovariate(per_hour)
    while at < hours:
        yield at, round(1000 * math.exp(rng.gauss(0, 1)))
        at += rng.expovariate(per_hour)


@pytest.mark.parametrize(("per_hour", "horizon_h"), [(1, 24), (20, 6), (20, 240)])
def test_the_interval_holds_the_truth_in_four_of_five_cases(per_hour: float, horizon_h: int) -> None:
    rng = random.Random(per_hour * horizon_h)  # the same series in every run
    held = in_time = 0
    for _ in range(500):
        past = [0] * 24
        for at, cost in spending(rng, per_hour, 24):
            past[int(at)] += cost
        limit = round(1600 * per_hour * horizon_h / 2)
        found = forecast(hourly(*past), limit=limit, spent=0, now=NOON, window_end=in_hours(horizon_h))
        total, crossed = 0, horizon_h * 1.0
        for at, cost in spending(rng, per_hour, horizon_h):
            crossed = at if total < limit <= total + cost else crossed
            total += cost
        assert found.low is not None
        assert found.high is not None
        held += found.low <= total <= found.high
        earliest, latest = found.runs_out_earliest, found.runs_out_latest
        in_time += (earliest or in_hours(horizon_h)) <= in_hours(crossed) <= (latest or in_hours(horizon_h))
    assert 0.75 <= held / 500 <= 0.86
    assert 0.72 <= in_time / 500 <= 0.92


@given(
    amounts=st.lists(st.integers(0, 10**12), max_size=30),
    limit=st.integers(0, 10**15),
    spent=st.integers(0, 10**15),
    hours=st.none() | st.integers(0, 1000),
)
def test_the_expected_lies_within_its_interval(amounts: list[int], limit: int, spent: int, hours: int | None) -> None:
    end = None if hours is None else in_hours(hours)
    found = forecast(hourly(*amounts), limit=limit, spent=spent, now=NOON, window_end=end)
    if found.low is not None:
        assert found.expected is not None
        assert found.high is not None
        assert spent <= found.low <= found.expected <= found.high
    times = [found.runs_out_earliest, found.runs_out_at, found.runs_out_latest]
    known = [at for at in times if at is not None]
    assert known == sorted(known)
    if found.runs_out_latest is not None:
        assert None not in times
    if end is not None:
        assert all(NOON <= at <= end for at in known)
