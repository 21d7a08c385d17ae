"""What the ledger tells by itself: limits that are reached, refuse, or run out, and calls that cost the unexpected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bursar.budget import Amounts, Ledger, Limits, Refusal, Reservation, Scope, Store
from bursar.budget.alerts.alerts import AlertLine
from bursar.budget.slices import Slice
from bursar.budget.testing import NANO_PER_TOKEN, Clock, a_call, a_quote, reserved, tokens

SCOPE = Scope(tenant="acme", agents=("support",), run_id="run_1", organisation="globex", team="red", user="dana")
TOKENS = 100
CALL = TOKENS * NANO_PER_TOKEN
"""What a call of these tests costs."""

on_sqlite = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""For what has nothing to do with the kind of store."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        ledger.gates.open(SCOPE, Limits.unlimited())
        yield ledger


@pytest.fixture
def call(ledger: Ledger) -> Callable[[], None]:
    """Makes one call after the other."""
    numbers = iter(range(10**6))

    def make() -> None:
        made = reserved(ledger, a_call(f"call {next(numbers)}", scope=SCOPE))
        ledger.dispatch(made)
        ledger.settle(made, usage=tokens(TOKENS // 2, TOKENS // 2), outcome="exact", reply="done")

    return make


def told(ledger: Ledger, *, kind: str = "limit.percent") -> list[AlertLine]:
    return [one for one in reversed(ledger.alerts.ls()) if one.kind == kind]


# --- Percents ---------------------------------------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize(
    ("path", "tenant"),
    [
        ("org:globex", "org:globex"),
        ("acme", "acme"),
        ("acme/team:red", "acme"),
        ("acme/user:dana", "acme"),
        ("acme/support", "acme"),
    ],
)
def test_every_kind_of_budget_has_alerts(ledger: Ledger, call: Callable[[], None], path: str, tenant: str) -> None:
    ledger.budgets.set(path, per="month", limit={"nanousd": 10 * CALL}, alerts=[50, 80], author="dana")
    for _ in range(8):
        call()
    found = told(ledger)
    assert [one.data["percent"] for one in found] == [50, 80]
    assert {(one.tenant, one.path, one.run_id) for one in found} == {(tenant, path, "run_1")}


def test_a_grant_moves_what_comes_next_and_repeats_nothing(ledger: Ledger, call: Callable[[], None]) -> None:
    ledger.budgets.set("acme", per="month", limit={"nanousd": 10 * CALL}, alerts=[50, 80], author="dana")
    for _ in range(6):
        call()
    ledger.budgets.grant("acme", Amounts(nanousd=10 * CALL), author="dana", note="the fair")
    for _ in range(9):
        call()
    assert [one.data["percent"] for one in told(ledger)] == [50]
    call()
    assert [(one.data["percent"], one.data["limit"]) for one in told(ledger)] == [
        (50, "0.001000000"),
        (80, "0.002000000"),
    ]


def test_a_new_month_tells_again_and_a_lower_limit_at_once(
    ledger: Ledger, clock: Clock, call: Callable[[], None]
) -> None:
    ledger.budgets.set("acme", per="month", limit={"nanousd": 10 * CALL}, alerts=[50], author="dana")
    for _ in range(6):
        call()
    clock.advance(days=30)
    for _ in range(4):
        call()
    assert len(told(ledger)) == 1
    ledger.budgets.set("acme", per="month", limit={"nanousd": 8 * CALL}, author="dana")
    assert [one.data["window"] for one in told(ledger)] == ["2026-11", "2026-12"]


@on_sqlite
def test_percents_that_are_set_later_tell_what_is_reached_already(ledger: Ledger, call: Callable[[], None]) -> None:
    ledger.budgets.set("acme", limit={"steps": 4}, author="dana")
    for _ in range(3):
        call()
    ledger.budgets.set("acme", limit={}, alerts=[50, 100], author="dana")
    assert [(one.data["dimension"], one.data["percent"]) for one in told(ledger)] == [("steps", 50)]


def test_a_hard_limit_tells_100_when_it_first_refuses_a_call(ledger: Ledger, call: Callable[[], None]) -> None:
    ledger.budgets.set("acme", limit={"nanousd": CALL + CALL // 10}, alerts=[100], author="dana")
    call()
    for number in range(3):
        assert isinstance(ledger.reserve(a_call(f"too much {number}", scope=SCOPE), a_quote()), Refusal)
    (one,) = told(ledger)
    assert one.data["message"] == "acme refuses calls: $0.0001 of $0.00011"
    assert one.data["next"] == "bursar budget grant acme --usd 50"


@on_sqlite
def test_a_soft_limit_goes_on_and_tells(ledger: Ledger, call: Callable[[], None]) -> None:
    ledger.budgets.set("acme", limit={"nanousd": 2 * CALL}, mode="soft", alerts=[100, 150], author="dana")
    for _ in range(3):
        call()
    assert [(one.data["percent"], one.data["mode"]) for one in told(ledger)] == [(100, "soft"), (150, "soft")]


def test_a_rolling_budget_tells_too(ledger: Ledger, clock: Clock, call: Callable[[], None]) -> None:
    ledger.budgets.set("acme", per="rolling-1h", limit={"nanousd": 10 * CALL}, alerts=[50], author="dana")
    for _ in range(4):
        call()
        clock.advance(minutes=20)
    assert told(ledger) == []
    for _ in range(3):
        call()
        clock.advance(minutes=1)
    (one,) = told(ledger)
    assert one.data["window"] == "rolling-1h"


# --- Forecasts --------------------------------------------------------------------------------------------------------


def test_a_steady_pace_that_uses_the_month_up_is_told_once_with_the_day(
    ledger: Ledger, clock: Clock, call: Callable[[], None]
) -> None:
    """Two calls an hour from Monday midnight on: 120 of them are gone on Wednesday noon."""
    ledger.budgets.set("acme", per="week", limit={"nanousd": 120 * CALL}, alerts=[100], author="dana")
    clock.advance(days=2, hours=12)
    for _ in range(30):
        call()
        clock.advance(minutes=30)
        ledger.alerts.sweep()
        call()
        clock.advance(minutes=30)
    (one,) = told(ledger, kind="limit.forecast")
    assert one.data["message"] == "acme is on pace to run out of $0.012 (2026-W48) on 2026-11-25"
    assert [one.data[name] for name in ("earliest", "runs_out_on", "latest")] == ["2026-11-25"] * 3


@on_sqlite
def test_a_pace_that_the_window_gets_by_with_is_not_told(
    ledger: Ledger, clock: Clock, call: Callable[[], None]
) -> None:
    ledger.budgets.set("acme", per="week", limit={"nanousd": 1_000 * CALL}, alerts=[100], author="dana")
    clock.advance(days=3)
    for _ in range(60):
        call()
        clock.advance(hours=1)
        ledger.alerts.sweep()
    assert told(ledger, kind="limit.forecast") == []


@on_sqlite
def test_a_burst_early_in_the_window_is_no_pace(ledger: Ledger, clock: Clock, call: Callable[[], None]) -> None:
    ledger.budgets.set("acme", per="week", limit={"nanousd": 100 * CALL}, alerts=[100], author="dana")
    clock.advance(days=3)
    for _ in range(60):
        call()
    for _ in range(100):
        clock.advance(hours=1)
        ledger.alerts.sweep()
    assert told(ledger, kind="limit.forecast") == []


@on_sqlite
def test_a_budget_that_nobody_wants_alerts_of_is_not_forecast(
    ledger: Ledger, clock: Clock, call: Callable[[], None]
) -> None:
    ledger.budgets.set("acme", per="week", limit={"nanousd": 60 * CALL}, author="dana")
    clock.advance(days=3)
    for _ in range(40):
        call()
        clock.advance(hours=1)
        ledger.alerts.sweep()
    assert ledger.alerts.ls() == []


# --- Calls ------------------------------------------------------------------------------------------------------------


@on_sqlite
def test_a_provider_that_bills_more_than_its_bound_is_told_of_once_a_day(ledger: Ledger, clock: Clock) -> None:
    for number in range(3):
        made = reserved(ledger, a_call(f"call {number}", scope=SCOPE))
        ledger.dispatch(made)
        ledger.settle(made, usage=tokens(50, 500), outcome="exact", reply="too long")
    (one,) = told(ledger, kind="call.overage")
    assert one.data["usd"] == {"bound": "0.000100000", "billed": "0.000550000"}
    assert one.data["tokens"] == {"bound": 100, "billed": 550}
    clock.advance(days=1)
    made = reserved(ledger, a_call("tomorrow", scope=SCOPE))
    ledger.dispatch(made)
    ledger.settle(made, usage=tokens(50, 500), outcome="exact", reply="too long")
    assert len(told(ledger, kind="call.overage")) == 2


def test_a_call_without_a_price_that_the_policy_allows_is_told_of_once_a_day(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"nanousd": CALL}, author="dana")
    ledger.policies.set("acme", unpriced="allow_and_alert", author="dana")
    for number in range(3):
        reserved(ledger, a_call(f"call {number}", scope=SCOPE), a_quote(price=None))
    (one,) = told(ledger, kind="price.missing")
    assert (one.path, one.run_id, one.data["model"]) == ("acme/support/run_1", "run_1", "small-1")
    assert json.dumps(dict(one.data))


def test_calls_that_a_slice_admits_are_told_of_when_they_are_written(ledger: Ledger) -> None:
    ledger.budgets.set("acme", limit={"nanousd": 10 * CALL}, alerts=[50], author="dana")
    taken = ledger.slices.open(SCOPE, 0, Amounts(nanousd=6 * CALL), seconds=60)
    assert isinstance(taken, Slice)
    for number in range(5):
        made = taken.reserve(a_call(f"call {number}", scope=SCOPE), a_quote())
        assert isinstance(made, Reservation)
        taken.settle(made, usage=tokens(50, 60), outcome="exact", reply="a little too long")
    assert ledger.alerts.ls() == []
    taken.flush()
    assert [one.kind for one in ledger.alerts.ls()] == ["limit.percent", "call.overage"]
