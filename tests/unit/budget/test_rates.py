"""Any schedule of rates, against a plain model of each."""

from __future__ import annotations

import itertools
from fractions import Fraction

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bursar.budget import Store
from bursar.budget.rates import Rates, RateWant
from bursar.budget.testing import Clock

PER_MINUTE = {"requests": 60, "tokens": 1_000, "slow": 7}

schedules = itertools.count()
"""A store serves them all, so each has names of its own."""

steps = st.lists(
    st.tuples(
        st.floats(0, 40).map(lambda seconds: round(seconds, 3)),
        st.dictionaries(st.sampled_from(sorted(PER_MINUTE)), st.integers(0, 7), min_size=1),
    ),
    max_size=40,
)


@given(steps=steps)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_any_span_of_time_no_more_is_had_than_a_minutes_worth_and_what_the_rate_gives(
    store: Store, steps: list[tuple[float, dict[str, int]]]
) -> None:
    """And what is refused would have broken that: to within the microsecond to which the times are kept."""
    clock = Clock()
    rates, salt = Rates(store, clock), f"{next(schedules)} "
    had: dict[str, list[tuple[Fraction, int]]] = {name: [] for name in PER_MINUTE}
    now = Fraction(0)
    for pause_s, wanted in steps:
        now += Fraction(round(pause_s * 1_000), 1_000)
        clock.advance(seconds=pause_s)
        wants = {name: count * PER_MINUTE[name] // 7 for name, count in wanted.items()}
        wait = rates.take([RateWant(salt + name, PER_MINUTE[name], amount) for name, amount in wants.items()])
        over = {name: worst(had[name], now, amount, PER_MINUTE[name]) for name, amount in wants.items()}
        if wait is None:
            assert max(over.values()) <= 0
            for name, amount in wants.items():
                had[name].append((now, amount))
        else:
            assert abs(float(max(over.values())) - wait) < 1e-4


def worst(had: list[tuple[Fraction, int]], now: Fraction, amount: int, per_minute: int) -> Fraction:
    """By how many seconds' worth the amount exceeds the rate, over the spans that end now."""
    taken, most = Fraction(amount), Fraction(amount) - per_minute
    for at, earlier in reversed(had):
        taken += earlier
        most = max(most, taken - per_minute - (now - at) * per_minute / 60)
    return most * 60 / per_minute
