from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select

from bursar.budget import Amounts, Ledger, Limits, Refusal, Reservation, Scope
from bursar.budget.errors import NotFoundError, UsageError
from bursar.budget.money import NANOUSD_MAX
from bursar.budget.schema import entry
from bursar.budget.testing import SUPPORT, Clock, a_call, a_quote, reserved, tokens
from bursar.budget.windows import Period


def spend(ledger: Ledger, *ids: str, scope: Scope = SUPPORT) -> None:
    for id in ids:
        ledger.settle(reserved(ledger, a_call(id, scope=scope)), usage=tokens(50, 50), outcome="exact", reply="")


def entries(ledger: Ledger) -> int:
    with ledger.store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(entry)).scalar_one())


# --- Setting ----------------------------------------------------------------------------------------------------------


def test_a_budget_says_what_it_is(empty_ledger: Ledger) -> None:
    line = empty_ledger.budgets.set("acme", per="month", zone="Europe/Paris", limit={"nanousd": 5}, author="dana")
    assert (line.path, line.kind, line.per, line.zone, line.source) == (
        "acme",
        "tenant",
        "month",
        "Europe/Paris",
        "command",
    )
    assert (line.window, line.resets_at) == ("2026-11", datetime(2026, 11, 30, 23, tzinfo=UTC))
    assert line.limit == {"nanousd": 5, "tokens": None, "steps": None, "tool_calls": None}
    assert line.posted == line.held == Amounts()
    assert empty_ledger.budgets.ls() == [line]


def test_a_dimension_and_a_zone_left_out_stay_and_none_takes_a_limit_away(empty_ledger: Ledger) -> None:
    budgets = empty_ledger.budgets
    budgets.set("acme", per="day", zone="Asia/Tokyo", limit={"nanousd": 5, "steps": 7}, author="dana")
    line = budgets.set("acme", per="day", limit={"steps": 8}, author="dana")
    assert (line.limit["nanousd"], line.limit["steps"], line.zone) == (5, 8, "Asia/Tokyo")
    line = budgets.set("acme", per="day", limit={"nanousd": None}, author="dana")
    assert (line.limit["nanousd"], line.limit["steps"]) == (None, 8)


def test_a_zone_is_utc_at_first(empty_ledger: Ledger) -> None:
    assert empty_ledger.budgets.set("acme", limit={}, author="dana").zone == "UTC"


def test_the_configuration_never_overrides_the_command(empty_ledger: Ledger) -> None:
    budgets = empty_ledger.budgets
    for steps in (1, 2):
        line = budgets.set("acme", limit={"steps": steps}, author="bursar.yaml", source="config")
        assert (line.limit["steps"], line.source) == (steps, "config")
    budgets.set("acme", limit={"steps": 9}, author="dana")
    before = entries(empty_ledger)
    line = budgets.set("acme", limit={"steps": 3}, author="bursar.yaml", source="config")
    assert (line.limit["steps"], line.source) == (9, "command")
    assert entries(empty_ledger) == before


def test_a_configuration_that_changes_nothing_writes_nothing(empty_ledger: Ledger) -> None:
    how: dict[str, Any] = {"per": "day", "zone": "Asia/Tokyo", "author": "bursar.yaml", "source": "config"}
    for _ in range(3):
        empty_ledger.budgets.set("acme", limit={"steps": 1}, **how)
    assert entries(empty_ledger) == 1


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"path": ""}, "a budget belongs to an organisation, a tenant, a team, a user, an agent or a node"),
        ({"path": "acme/"}, "not to 'acme/'"),
        ({"path": "acme/support/run_1"}, "not to 'acme/support/run_1'"),
        ({"per": "year"}, "per 'year': expected one of hour, day, week, month, total"),
        ({"zone": "Europe/Pariss"}, "did you mean Europe/Paris"),
        ({"zone": ""}, "expected an IANA name"),
        ({"zone": "../secret"}, "expected an IANA name"),
        ({"zone": "Europe"}, "expected an IANA name"),
        ({"limit": {"usd": 1}}, "limit 'usd': expected one of nanousd, tokens, steps, tool_calls"),
        ({"limit": {"steps": -1}}, "limit steps -1: expected a whole number from 0"),
        ({"limit": {"steps": 1.5}}, "limit steps 1.5: expected a whole number"),
        ({"limit": {"steps": True}}, "limit steps True: expected a whole number"),
        ({"limit": {"nanousd": NANOUSD_MAX + 1}}, f"expected a whole number from 0 to {NANOUSD_MAX}"),
    ],
    ids=str,
)
def test_a_budget_that_cannot_be_is_refused_with_what_was_expected(
    empty_ledger: Ledger, wrong: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UsageError) as caught:
        empty_ledger.budgets.set(**{"path": "acme", "limit": {}, "author": "dana", **wrong})
    assert expected in str(caught.value)
    assert empty_ledger.budgets.ls() == []


# --- Another zone -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["day", "week", "month"])
@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Asia/Tokyo", "Asia/Kathmandu"])
def test_another_zone_keeps_what_was_used_in_the_window_of_that_name(
    ledger: Ledger, clock: Clock, per: Any, zone: str
) -> None:
    ledger.budgets.set("acme", per=per, limit={"steps": 1}, author="dana")
    spend(ledger, "a")
    line = ledger.budgets.set("acme", per=per, zone=zone, limit={}, author="dana")
    assert line.posted.steps == 1
    assert isinstance(ledger.reserve(a_call("b"), a_quote()), Refusal)
    assert line.resets_at is not None
    clock.now = line.resets_at
    spend(ledger, "b")
    assert isinstance(ledger.reserve(a_call("c"), a_quote()), Refusal)


def test_going_from_zone_to_zone_across_a_days_end_grants_nothing_twice(ledger: Ledger, clock: Clock) -> None:
    clock.now = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
    spent = 0
    for number in range(3):
        for zone in ("UTC", "Europe/Paris"):
            ledger.budgets.set("acme", per="day", zone=zone, limit={"steps": 1}, author="dana")
            clock.advance(minutes=1)
            spent += isinstance(ledger.reserve(a_call(f"{zone} {number}"), a_quote()), Reservation)
    assert spent == 2, "one for the 20th, which it is in UTC, and one for the 21st, which it is in Paris"


def test_a_window_opened_in_the_old_zone_is_found_again_at_the_months_end(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", per="month", limit={"steps": 1}, author="dana")
    spend(ledger, "a")
    ledger.budgets.set("acme", per="month", zone="America/Sao_Paulo", limit={}, author="dana")
    clock.now = datetime(2026, 12, 1, 2, tzinfo=UTC)
    refusal = ledger.reserve(a_call("b"), a_quote())
    assert isinstance(refusal, Refusal)
    assert (refusal.window, refusal.zone) == ("2026-11", "America/Sao_Paulo")
    assert refusal.words().endswith("resets 2026-12-01T00:00-03:00")


# --- Grants -----------------------------------------------------------------------------------------------------------


def test_a_grant_adds_to_the_present_window_and_outlives_a_new_limit(empty_ledger: Ledger) -> None:
    budgets = empty_ledger.budgets
    budgets.set("acme", per="month", limit={"steps": 1, "tokens": 10}, author="dana")
    budgets.grant("acme", Amounts(steps=2), author="dana", note="launch")
    line = budgets.grant("acme", Amounts(steps=3, tokens=5, nanousd=7), author="dana", note="launch")
    assert line.limit == {"nanousd": None, "tokens": 15, "steps": 6, "tool_calls": None}
    line = budgets.set("acme", per="month", limit={"steps": 10}, author="dana")
    assert line.limit["steps"] == 15


def test_a_run_may_be_granted_more(empty_ledger: Ledger) -> None:
    empty_ledger.gates.open(SUPPORT, Limits(steps=1))
    spend(empty_ledger, "a")
    empty_ledger.budgets.grant(SUPPORT.run_path, Amounts(steps=1), author="dana", note="one more")
    spend(empty_ledger, "b")
    assert isinstance(empty_ledger.reserve(a_call("c"), a_quote()), Refusal)


def test_a_grant_names_the_budget_where_there_are_several(empty_ledger: Ledger) -> None:
    budgets = empty_ledger.budgets
    periods: tuple[Period, ...] = ("day", "month")
    for per in periods:
        budgets.set("acme", per=per, limit={"steps": 1}, author="dana")
    with pytest.raises(UsageError, match="acme has several budgets: day, month"):
        budgets.grant("acme", Amounts(steps=1), author="dana", note="")
    budgets.grant("acme", Amounts(steps=1), author="dana", note="", per="day")
    assert {line.per: line.limit["steps"] for line in budgets.ls()} == {"day": 2, "month": 1}


def test_a_grant_to_nobody_is_refused(empty_ledger: Ledger) -> None:
    empty_ledger.budgets.set("acme", per="day", limit={"steps": 1}, author="dana")
    nobody: list[tuple[str, Period | None]] = [("rival", None), ("acme", "month")]
    for path, per in nobody:
        with pytest.raises(NotFoundError, match=f"there is no budget for {path}"):
            empty_ledger.budgets.grant(path, Amounts(steps=1), author="dana", note="", per=per)


def test_a_grant_of_nothing_is_refused(empty_ledger: Ledger) -> None:
    empty_ledger.budgets.set("acme", limit={"steps": 1}, author="dana")
    with pytest.raises(UsageError, match="above zero"):
        empty_ledger.budgets.grant("acme", Amounts(), author="dana", note="")


def test_grants_never_raise_a_limit_beyond_what_the_ledger_can_hold(empty_ledger: Ledger) -> None:
    empty_ledger.budgets.set("acme", limit={"nanousd": NANOUSD_MAX}, author="dana")
    with pytest.raises(UsageError, match="must not raise a limit above"):
        empty_ledger.budgets.grant("acme", Amounts(nanousd=NANOUSD_MAX), author="dana", note="")
    assert empty_ledger.budgets.ls()[0].limit["nanousd"] == NANOUSD_MAX


# --- Listing ----------------------------------------------------------------------------------------------------------


def test_a_list_holds_what_is_at_and_below_a_path_and_runs_only_when_asked(ledger: Ledger) -> None:
    for path in ("acme", "acme/support", "acme2", "Acme/support", "acme_/x", "rival"):
        ledger.budgets.set(path, limit={}, author="dana")
    assert [line.path for line in ledger.budgets.ls("acme")] == ["acme", "acme/support"]
    assert [line.path for line in ledger.budgets.ls("acme/support", runs=True)] == ["acme/support", SUPPORT.run_path]
    assert len(ledger.budgets.ls()) == 6
    assert ledger.budgets.ls("nobody") == []


def test_a_list_shows_the_present_window_before_anything_was_used_in_it(ledger: Ledger, clock: Clock) -> None:
    ledger.budgets.set("acme", per="day", limit={"steps": 5}, author="dana")
    ledger.budgets.grant("acme", Amounts(steps=1), author="dana", note="today")
    spend(ledger, "a")
    clock.advance(days=1)
    (line,) = ledger.budgets.ls("acme")
    assert (line.window, line.limit["steps"], line.posted) == ("2026-11-21", 5, Amounts())
