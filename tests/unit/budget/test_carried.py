"""What a window leaves, and what it owes, comes into the next as the budget's policy says, and nothing else does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bursar.budget import Amounts, Ledger, Scope, Store
from bursar.budget.audit.verify import verify
from bursar.budget.errors import UsageError
from bursar.budget.testing import Clock, a_call, a_quote, audit, reserved, tokens
from bursar.budget.windows import from_us, to_us, window_at
from tests.support.spender import Spender

TENANTS = (f"tenant_{number}" for number in itertools.count())


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        yield ledger
        audit(ledger.store)
        assert not verify(ledger.store).findings


@pytest.fixture
def spend(ledger: Ledger) -> Spender:
    return Spender(ledger, Scope(tenant="acme", agents=("support",), run_id="run_1"))


def left(ledger: Ledger) -> int | None:
    """What the present window allows, as a list shows it once it is open."""
    [line] = ledger.budgets.ls("acme")
    limit = line.limit["tool_calls"]
    return None if limit is None else limit - line.posted.tool_calls - line.held.tool_calls


def set_budget(ledger: Ledger, per: str = "month", *, limit: int = 10, **policy: Any) -> None:
    ledger.budgets.set("acme", per=per, limit={"tool_calls": limit}, author="dana", **policy)


# --- Rollover ---------------------------------------------------------------------------------------------------------


def test_what_was_granted_until_a_time_rolls_over_no_more_once_that_is_past(
    ledger: Ledger, clock: Clock, spend: Spender
) -> None:
    set_budget(ledger, "day", rollover_percent=100)
    spend(10)
    ledger.budgets.grant(
        "acme", Amounts(tool_calls=10), author="dana", note="for an hour", expires_at=clock.now + timedelta(hours=1)
    )
    clock.advance(days=1)
    assert spend(1)
    assert left(ledger) == 9


def test_what_is_unused_comes_into_the_next_window_up_to_the_percent(
    ledger: Ledger, spend: Spender, clock: Clock
) -> None:
    set_budget(ledger, rollover_percent=50)
    assert spend(3)
    clock.now = datetime(2026, 12, 1, tzinfo=ZoneInfo("UTC"))
    assert spend(15)
    assert not spend(1)


def test_what_is_carried_over_is_what_is_unused_where_that_is_less(
    ledger: Ledger, spend: Spender, clock: Clock
) -> None:
    set_budget(ledger, rollover_percent=50)
    assert spend(8)
    clock.now = datetime(2026, 12, 1, tzinfo=ZoneInfo("UTC"))
    assert not spend(13)
    assert spend(12)


def test_idle_windows_do_not_add_up(ledger: Ledger, spend: Spender, clock: Clock) -> None:
    set_budget(ledger, rollover_percent=50)
    assert spend(1)
    clock.now = datetime(2027, 6, 1, tzinfo=ZoneInfo("UTC"))
    assert not spend(16)
    assert spend(15)


def test_the_first_window_of_a_budget_has_nothing_carried_over(ledger: Ledger, spend: Spender) -> None:
    set_budget(ledger, rollover_percent=100)
    assert not spend(11)
    assert spend(10)


def test_a_call_in_flight_at_the_end_of_its_window_leaves_nothing_of_what_it_holds(
    ledger: Ledger, spend: Spender, clock: Clock
) -> None:
    ledger.budgets.set("acme", per="day", limit={"tokens": 100}, author="dana", rollover_percent=100)
    scope = Scope(tenant="acme", agents=("support",), run_id="run_1")
    in_flight = reserved(ledger, a_call(scope=scope), a_quote(50, 40))
    clock.advance(days=1)
    reserved(ledger, a_call("next", scope=scope), a_quote(60, 50))  # 100 of its own and 10 of yesterday's
    ledger.settle(in_flight, usage=tokens(1, 1), outcome="exact", reply="")
    [today] = ledger.budgets.ls("acme")
    assert (today.limit["tokens"], today.held.tokens, today.posted.tokens) == (110, 110, 0)


# --- Overdraft --------------------------------------------------------------------------------------------------------


def test_an_overdraft_is_used_in_advance_and_owed_to_the_next_window(
    ledger: Ledger, spend: Spender, clock: Clock
) -> None:
    set_budget(ledger, overdraft_percent=20)
    assert spend(12)
    assert not spend(1)
    clock.now = datetime(2026, 12, 1, tzinfo=ZoneInfo("UTC"))
    assert spend(8)
    assert left(ledger) == 0
    assert spend(2), "it may be overdrawn again"
    assert not spend(1)


def test_a_debt_is_paid_by_the_windows_in_which_nothing_is_called(ledger: Ledger, spend: Spender, clock: Clock) -> None:
    set_budget(ledger, overdraft_percent=100)
    assert spend(20)
    clock.now = datetime(2027, 1, 1, tzinfo=ZoneInfo("UTC"))  # December paid
    assert spend(20)
    assert not spend(1)


def test_what_an_idle_window_pays_of_a_debt_it_does_not_leave_to_the_next(
    ledger: Ledger, spend: Spender, clock: Clock
) -> None:
    set_budget(ledger, overdraft_percent=100, rollover_percent=100)
    assert spend(17)
    clock.now = datetime(2027, 1, 1, tzinfo=ZoneInfo("UTC"))
    assert spend(13 + 10), "10 of its own, 3 that December had left, 10 in advance"
    assert not spend(1)


def test_without_an_overdraft_nothing_is_owed(ledger: Ledger, spend: Spender, clock: Clock) -> None:
    set_budget(ledger, limit=10)
    assert spend(9)
    set_budget(ledger, limit=5)
    clock.now = datetime(2026, 12, 1, tzinfo=ZoneInfo("UTC"))
    assert spend(5)


@pytest.mark.parametrize("per", ["total", "rolling-24h"])
@pytest.mark.parametrize("policy", ["rollover_percent", "overdraft_percent"])
def test_a_budget_without_a_next_window_carries_nothing(ledger: Ledger, per: str, policy: str) -> None:
    with pytest.raises(UsageError, match="has no next window"):
        set_budget(ledger, per, **{policy: 10})


# --- Over any number of windows ---------------------------------------------------------------------------------------

# Around changes to summer and winter time, ends of months and years, and where a midnight or a day is skipped.
BEGINS = [
    ("Europe/Paris", datetime(2026, 3, 27, 22, 30)),  # noqa: DTZ001 - made aware below
    ("Europe/Paris", datetime(2026, 10, 24, 0, 30)),  # noqa: DTZ001 - made aware below
    ("America/New_York", datetime(2026, 12, 30, 23, 59)),  # noqa: DTZ001 - made aware below
    ("America/Sao_Paulo", datetime(2018, 11, 2, 12)),  # noqa: DTZ001 - made aware below
    ("Pacific/Apia", datetime(2011, 12, 28, 12)),  # noqa: DTZ001 - made aware below
    ("Asia/Kathmandu", datetime(2028, 2, 28, 12)),  # noqa: DTZ001 - made aware below
]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    per=st.sampled_from(["hour", "day", "week", "month"]),
    begin=st.sampled_from(BEGINS),
    limit=st.integers(0, 20),
    rollover=st.sampled_from([0, 10, 50, 100]),
    overdraft=st.sampled_from([0, 10, 50, 100]),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30)), min_size=1, max_size=12),
)
def test_windows_are_reckoned_one_after_the_other_whichever_of_them_were_used(
    ledger: Ledger,
    clock: Clock,
    per: str,
    begin: tuple[str, datetime],
    limit: int,
    rollover: int,
    overdraft: int,
    steps: list[tuple[int, int]],
) -> None:
    zone, local = begin
    clock.now = local.replace(tzinfo=ZoneInfo(zone))
    tenant = next(TENANTS)
    policy = {"rollover_percent": rollover, "overdraft_percent": overdraft}
    ledger.budgets.set(tenant, per=per, zone=zone, limit={"tool_calls": limit}, author="dana", **policy)  # type: ignore[arg-type]
    spend = Spender(ledger, Scope(tenant=tenant, agents=("support",), run_id=f"run of {tenant}"))
    carried = used = 0
    for windows, amount in steps:
        for _ in range(windows):
            clock.now = from_us(window_at(per, zone, clock.now).ends_us)
            unused = limit + carried - used
            carried = min(unused, limit * rollover // 100) if unused >= 0 else unused if overdraft else 0
            used = 0
        fits = used + amount <= limit + carried + limit * overdraft // 100
        assert spend(amount) == fits
        used += amount if fits else 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rollover=st.sampled_from([0, 50, 100]),
    overdraft=st.sampled_from([0, 50, 100]),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), min_size=1, max_size=25),
)
def test_no_row_of_windows_ever_holds_more_than_their_limits_what_rolled_in_and_one_overdraft(
    ledger: Ledger, clock: Clock, rollover: int, overdraft: int, steps: list[tuple[int, int]]
) -> None:
    tenant = next(TENANTS)
    policy = {"rollover_percent": rollover, "overdraft_percent": overdraft}
    ledger.budgets.set(tenant, per="day", limit={"tool_calls": 10}, author="dana", **policy)  # type: ignore[arg-type]
    spend = Spender(ledger, Scope(tenant=tenant, agents=("support",), run_id=f"run of {tenant}"))
    days: dict[int, int] = {}
    for hours, amount in steps:
        clock.advance(hours=hours)
        day = to_us(clock.now) // 86_400_000_000
        days[day] = days.get(day, 0) + (amount if spend(amount) else 0)
    for first, last in itertools.combinations_with_replacement(days, 2):
        spent = sum(amount for day, amount in days.items() if first <= day <= last)
        assert spent <= 10 * (last - first + 1) + rollover // 10 + overdraft // 10


def test_a_debt_is_owed_although_the_overdraft_was_taken_away_meanwhile(
    ledger: Ledger, clock: Clock, spend: Spender
) -> None:
    ledger.budgets.set("acme", per="month", limit={"tool_calls": 100}, overdraft_percent=50, author="dana")
    spend(150)
    ledger.budgets.set("acme", per="month", limit={}, overdraft_percent=0, author="dana")
    clock.now = datetime(2026, 12, 2, tzinfo=clock.now.tzinfo)
    spend(50)
    assert left(ledger) == 0


def test_an_hour_keeps_what_was_used_of_it_in_every_zone(ledger: Ledger, spend: Spender) -> None:
    ledger.budgets.set("acme", per="hour", zone="UTC", limit={"tool_calls": 100}, author="dana")
    spend(60)
    ledger.budgets.set("acme", per="hour", zone="Europe/Paris", limit={"tool_calls": 100}, author="dana")
    [line] = ledger.budgets.ls("acme")
    assert line.posted.tool_calls == 60
