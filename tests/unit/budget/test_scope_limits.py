"""Every scope that has a budget binds its calls, at once and under concurrency; a soft one binds none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from bursar.budget import Amounts, Ledger, Limits, Refusal, Reservation, Scope, Store, Wait
from bursar.budget.audit.verify import verify
from bursar.budget.errors import UsageError
from bursar.budget.scope import Kind, budget_kind
from bursar.budget.testing import Clock, a_call, a_quote, audit, excesses, reserved, tokens
from tests.support.spender import Spender

RUN = Scope(tenant="acme", agents=("support",), run_id="run_1", organisation="globex", team="red", user="dana")

PATHS = (
    "org:globex",
    "acme",
    "acme/team:red",
    "acme/user:dana",
    "acme/team:red/user:dana",
    "acme/support",
    "acme/support/node:model",
    "acme/support/run_1/node:model",
)


@pytest.fixture
def ledger(store_url: str, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        ledger.gates.open(RUN, Limits.unlimited())
        yield ledger
        audit(ledger.store)
        assert not verify(ledger.store).findings
        assert not excesses(ledger.store)


def set_budget(ledger: Ledger, path: str, **how: Any) -> None:
    organisation = "globex" if path == "acme" else None
    ledger.budgets.set(path, author="dana", organisation=organisation, **how)


@pytest.mark.parametrize("path", PATHS)
def test_a_limit_of_any_scope_refuses_by_its_name(ledger: Ledger, path: str) -> None:
    set_budget(ledger, path, limit={"steps": 1})
    made = reserved(ledger, a_call("first", scope=RUN))
    assert ledger.reserve(a_call("second", scope=RUN), a_quote()) == Wait(path)
    ledger.settle(made, usage=tokens(50, 50), outcome="exact", reply="")
    refusal = ledger.reserve(a_call("second", scope=RUN), a_quote())
    assert isinstance(refusal, Refusal)
    assert (refusal.path, refusal.kind) == (path, budget_kind(path))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("org:globex", "organisation globex"),
        ("acme", "tenant acme"),
        ("acme/team:red", "team red of acme"),
        ("acme/user:dana", "user dana of acme"),
        ("acme/team:red/user:dana", "user dana of acme/red"),
        ("acme/support", "agent support of acme"),
        ("acme/support/node:model", "node model of acme/support"),
    ],
)
def test_a_refusal_calls_a_scope_as_people_do(path: str, name: str) -> None:
    kind: Kind = budget_kind(path)
    assert (
        Refusal(cause="limit", kind=kind, path=path, dimension="steps", limit=1)
        .words()
        .startswith(f"refused: {name} has ")
    )


def test_the_widest_scope_that_is_full_is_the_one_that_is_named(ledger: Ledger) -> None:
    for path in PATHS:
        set_budget(ledger, path, limit={"steps": 0}, oversubscribed=True)
    refusal = ledger.reserve(a_call(scope=RUN), a_quote())
    assert isinstance(refusal, Refusal)
    assert refusal.path == "org:globex"


@pytest.mark.parametrize("path", PATHS)
def test_a_soft_limit_refuses_nothing_and_is_counted_all_the_same(store_url: str, clock: Clock, path: str) -> None:
    with closing(Ledger(Store(store_url), clock=clock)) as ledger:
        ledger.gates.open(RUN, Limits.unlimited())
        set_budget(ledger, path, limit={"steps": 1, "nanousd": 0}, mode="soft")
        for number in range(3):
            made = reserved(ledger, a_call(str(number), scope=RUN))
            ledger.settle(made, usage=tokens(50, 50), outcome="exact", reply="")
        assert ledger.budgets.ls(path)[0].posted == Amounts(300_000, 300, 3)
        set_budget(ledger, path, limit={}, mode="hard")
        assert isinstance(ledger.reserve(a_call("hard", scope=RUN), a_quote()), Refusal)
        audit(ledger.store)


def test_the_same_user_in_another_team_has_the_users_budget_and_not_the_teams(ledger: Ledger) -> None:
    set_budget(ledger, "acme/team:red/user:dana", limit={"tool_calls": 1})
    set_budget(ledger, "acme/user:dana", limit={"tool_calls": 3})

    def in_team(team: str | None) -> Spender:
        scope = Scope(tenant="acme", agents=("support",), run_id=f"run of {team}", team=team, user="dana")
        return Spender(ledger, scope)

    red, blue, alone = in_team("red"), in_team("blue"), in_team(None)
    assert [red(), red(), blue(), alone(), blue()] == [True, False, True, True, False]


def test_a_node_has_a_budget_in_all_runs_and_one_in_each(ledger: Ledger) -> None:
    set_budget(ledger, "acme/support/node:draft", limit={"tool_calls": 3})

    def spender(run: str, node: str) -> Spender:
        scope = Scope(tenant="acme", agents=("support",), run_id=run)
        ledger.gates.open(scope, Limits.unlimited(), nodes={"draft": Limits(tool_calls=2)})
        return Spender(ledger, scope, node=node)

    first, second, other = spender("run_a", "draft"), spender("run_b", "draft"), spender("run_c", "review")
    assert [first(), first(), first()] == [True, True, False]
    assert [second(), second()] == [True, False]
    assert all(other() for _ in range(5))


def test_a_nodes_limits_in_a_run_are_those_that_were_written_down_alone(ledger: Ledger) -> None:
    scope = Scope(tenant="acme", agents=("support",), run_id="run_a")
    ledger.gates.open(scope, Limits.unlimited(), nodes={"draft": Limits(cost_usd="0.5")})
    [line] = ledger.budgets.ls("acme/support/run_a/node:draft", runs=True)
    assert line.limit == {"nanousd": 500_000_000, "tokens": None, "steps": None, "tool_calls": None}


@pytest.mark.parametrize("claimed", [None, "initech"])
def test_a_call_that_hides_its_tenants_organisation_is_no_call(ledger: Ledger, claimed: str | None) -> None:
    set_budget(ledger, "acme", limit={"steps": 5})
    elsewhere = Scope(tenant="acme", agents=("support",), run_id="run_2", organisation=claimed)
    ledger.gates.open(elsewhere, Limits.unlimited())
    with pytest.raises(UsageError, match="tenant acme belongs to org:globex"):
        ledger.reserve(a_call(scope=elsewhere), a_quote())


def test_many_at_once_in_two_tenants_never_come_to_more_than_their_organisation_has(
    ledger: Ledger, store_url: str
) -> None:
    ledger.budgets.set("org:globex", limit={"steps": 25}, author="dana")
    for tenant in ("acme", "rival"):
        ledger.budgets.set(tenant, limit={"steps": 20}, author="dana", organisation="globex", source="config")
    numbers = itertools.count()

    def work(worker: int) -> int:
        tenant = ("acme", "rival")[worker % 2]
        scope = Scope(tenant=tenant, agents=("support",), run_id=f"run of {worker}", organisation="globex")
        with closing(Ledger(Store(store_url))) as one:
            one.gates.open(scope, Limits.unlimited())
            made = [one.reserve(a_call(str(next(numbers)), scope=scope), a_quote()) for _ in range(10)]
            admitted = [reservation for reservation in made if isinstance(reservation, Reservation)]
            for reservation in admitted:
                one.settle(reservation, usage=tokens(1, 1), outcome="exact", reply="")
            return len(admitted)

    with ThreadPoolExecutor(6) as threads:
        admitted = sum(threads.map(work, range(6)))
    posted = {line.path: line.posted.steps for line in ledger.budgets.ls()}
    assert posted["org:globex"] == admitted == posted["acme"] + posted["rival"] == 25
