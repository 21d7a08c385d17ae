"""A rolling limit holds for every stretch of its length, wherever the stretch begins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bursar.budget import Amounts, Ledger, Refusal, Scope, Store, Wait
from bursar.budget.audit.verify import verify
from bursar.budget.errors import UsageError
from bursar.budget.testing import Clock, a_call, a_quote, audit, reserved, tokens
from bursar.budget.windows import BUCKETS, from_us, rolling_us
from tests.support.spender import Spender

TENANTS = (f"tenant_{number}" for number in itertools.count())
SCOPE = Scope(tenant="acme", agents=("support",), run_id="run_1")


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        yield ledger
        audit(ledger.store)
        assert not verify(ledger.store).findings


@pytest.fixture
def spend(ledger: Ledger) -> Spender:
    return Spender(ledger, SCOPE)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    per=st.sampled_from(["rolling-1m", "rolling-30m", "rolling-24h", "rolling-7d"]),
    limit=st.integers(0, 12),
    calls=st.lists(st.tuples(st.floats(-0.02, 0.4), st.integers(1, 6)), min_size=1, max_size=30),
    begin=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - made aware
)
def test_no_stretch_of_its_length_anywhere_ever_holds_more_than_the_limit(
    ledger: Ledger, clock: Clock, per: str, limit: int, calls: list[tuple[float, int]], begin: datetime
) -> None:
    """Also where the clock goes back a little: times are fractions of the window's length."""
    length = timedelta(microseconds=rolling_us(per) or 0)
    clock.now = begin
    tenant = next(TENANTS)
    ledger.budgets.set(tenant, per=per, limit={"tool_calls": limit}, author="dana")
    spend = Spender(ledger, Scope(tenant=tenant, agents=("support",), run_id=f"run of {tenant}"))
    spent: list[tuple[datetime, int]] = []
    for fraction, amount in calls:
        clock.now += length * fraction
        if spend(amount):
            spent.append((clock.now, amount))
    for first, _ in spent:
        assert sum(amount for at, amount in spent if first <= at < first + length) <= limit


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 4)), min_size=1, max_size=20))
def test_what_left_the_window_is_free_again_a_sixtieth_of_its_length_later_at_most(
    ledger: Ledger, clock: Clock, calls: list[tuple[float, int]]
) -> None:
    length = timedelta(hours=24)
    tenant = next(TENANTS)
    ledger.budgets.set(tenant, per="rolling-24h", limit={"tool_calls": 6}, author="dana")
    spend = Spender(ledger, Scope(tenant=tenant, agents=("support",), run_id=f"run of {tenant}"))
    spent: list[tuple[datetime, int]] = []
    for fraction, amount in calls:
        clock.now += length * fraction
        at_most = sum(n for at, n in spent if at > clock.now - length * (BUCKETS + 1) / BUCKETS)
        admitted = spend(amount)
        assert admitted or at_most + amount > 6
        spent += [(clock.now, amount)] * admitted


def test_a_call_in_flight_is_waited_for_and_counts_where_it_was_reserved(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", per="rolling-24h", limit={"tokens": 100}, author="dana")
    Spender(ledger, SCOPE)
    first = reserved(ledger, a_call("first", scope=SCOPE), a_quote(50, 50))
    clock.advance(hours=23)
    assert isinstance(ledger.reserve(a_call("second", scope=SCOPE), a_quote(50, 50)), Wait)
    ledger.settle(first, usage=tokens(50, 50), outcome="exact", reply="")
    refusal = ledger.reserve(a_call("second", scope=SCOPE), a_quote(50, 50))
    assert isinstance(refusal, Refusal)
    assert refusal.window == "rolling-24h"
    clock.now = from_us(refusal.resets_us or 0)
    clock.advance(minutes=24)  # a sixtieth of a day
    reserved(ledger, a_call("second", scope=SCOPE), a_quote(50, 50))


def test_a_refusal_says_from_when_on_the_oldest_of_it_is_freed(ledger: Ledger, spend: Spender, clock: Clock) -> None:
    ledger.budgets.set("acme", per="rolling-24h", limit={"steps": 1}, author="dana")
    made = reserved(ledger, a_call("first", scope=SCOPE))
    ledger.settle(made, usage=tokens(1), outcome="exact", reply="")
    clock.advance(hours=5)
    refusal = ledger.reserve(a_call("second", scope=SCOPE), a_quote())
    assert isinstance(refusal, Refusal)
    assert refusal.words().endswith("--per rolling-24h --steps 21  |  frees up from 2026-11-21T12:00+00:00")


def test_a_limit_that_is_changed_holds_for_what_is_in_the_window_already(
    ledger: Ledger, spend: Spender, clock: Clock
) -> None:
    ledger.budgets.set("acme", per="rolling-7d", limit={"tool_calls": 10}, author="dana")
    assert spend(6)
    clock.advance(days=3)
    ledger.budgets.set("acme", per="rolling-7d", limit={"tool_calls": 5}, author="dana")
    assert not spend(1)
    ledger.budgets.set("acme", per="rolling-7d", limit={"tool_calls": 8}, author="dana")
    assert spend(2)
    assert not spend(1)
    clock.advance(days=4, hours=3)
    assert spend(6)
    assert not spend(1)


def test_a_list_shows_what_is_in_the_window_now(ledger: Ledger, spend: Spender, clock: Clock) -> None:
    ledger.budgets.set("acme", per="rolling-24h", limit={"tool_calls": 10}, author="dana")
    for amount in (1, 2, 3):
        assert spend(amount)
        clock.advance(hours=10)
    [line] = ledger.budgets.ls("acme")
    assert (line.window, line.posted.tool_calls) == ("rolling-24h", 5)
    clock.advance(days=2)
    assert ledger.budgets.ls("acme")[0].posted == Amounts()


def test_a_rolling_budget_has_no_window_to_give_a_grant_to(ledger: Ledger) -> None:
    ledger.budgets.set("acme", per="rolling-24h", limit={"tool_calls": 10}, author="dana")
    with pytest.raises(UsageError, match="it has no window to give to"):
        ledger.budgets.grant("acme", Amounts(tool_calls=1), author="dana", note="")
