"""What bursar.yaml says of its tenants is what holds, except where a command has spoken since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import select

from bursar.budget import Call, Ledger, Limits, ModelQuote, Refusal, Scope
from bursar.budget.budgets import BudgetLine
from bursar.budget.errors import UsageError
from bursar.budget.schema import entry
from bursar.runtime.config import TenantConfig
from bursar.runtime.config_budgets import OrganisationConfig
from bursar.runtime.tenants import declare_budgets
from tests.unit.runtime.config_texts import MINIMAL, parse

_TENANTS = TypeAdapter(dict[str, TenantConfig])
_ORGANISATIONS = TypeAdapter(dict[str, OrganisationConfig])


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with nothing in it."""
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield ledger
    ledger.close()


def declare(ledger: Ledger, organisations: dict[str, Any] | None = None, **tenants: dict[str, Any]) -> None:
    sections = {
        "organisations": _ORGANISATIONS.validate_python(organisations or {}),
        "tenants": _TENANTS.validate_python(tenants),
    }
    declare_budgets(ledger, parse(MINIMAL).model_copy(update=sections))


def steps(ledger: Ledger) -> dict[tuple[str, str], int | None]:
    return {(line.path, line.per): line.limit["steps"] for line in ledger.budgets.ls()}


def test_a_budget_that_is_no_longer_declared_limits_nothing_and_the_journal_says_so(ledger: Ledger) -> None:
    declare(ledger, acme={"budgets": [{"steps": 0, "per": "month"}, {"steps": 5, "per": "day"}]})
    declare(ledger, acme={"budgets": [{"steps": 1000, "per": "day"}]})
    assert steps(ledger) == {("acme", "month"): None, ("acme", "day"): 1000}
    with ledger.store.read() as connection:
        lifted = connection.execute(select(entry).where(entry.c.note == "no longer declared")).mappings().one()
    assert (lifted["kind"], lifted["path"], lifted["author"]) == ("limit", "acme", "bursar.yaml")


def test_a_tenant_without_its_budgets_and_an_agent_without_its_own_are_limited_no_more(ledger: Ledger) -> None:
    budgets = [{"steps": 1}]
    declare(ledger, acme={"budgets": budgets, "agents": {"support": {"budgets": budgets}}}, rival={"budgets": budgets})
    declare(ledger, acme={"budgets": []})
    assert steps(ledger) == {("acme", "total"): None, ("acme/support", "total"): None, ("rival", "total"): None}


def test_what_a_command_has_set_is_not_lifted(ledger: Ledger) -> None:
    declare(ledger, acme={"budgets": [{"steps": 1, "per": "month"}]})
    ledger.budgets.set("acme", per="month", limit={"steps": 7}, author="dana")
    declare(ledger, acme={"budgets": [{"steps": 1000, "per": "day"}]})
    assert steps(ledger) == {("acme", "month"): 7, ("acme", "day"): 1000}


def test_an_unchanged_configuration_writes_nothing(ledger: Ledger) -> None:
    def written() -> int:
        with ledger.store.read() as connection:
            return len(connection.execute(select(entry.c.number)).all())

    for budgets in ([{"steps": 1}], []):
        declare(ledger, acme={"budgets": budgets})
        before = written()
        declare(ledger, acme={"budgets": budgets})
        assert written() == before


def test_every_scope_that_the_configuration_names_has_its_budget(ledger: Ledger) -> None:
    budgets = {"budgets": [{"steps": 1}]}
    acme = {
        "organisation": "globex",
        "teams": {"red": {**budgets, "users": {"dana": budgets}}},
        "users": {"dana": budgets},
        "agents": {"support": {**budgets, "nodes": {"draft": budgets}}},
    }
    declare(ledger, {"globex": budgets}, acme=acme)
    assert steps(ledger) == {
        ("org:globex", "total"): 1,
        ("acme", "total"): None,
        ("acme/team:red", "total"): 1,
        ("acme/team:red/user:dana", "total"): 1,
        ("acme/user:dana", "total"): 1,
        ("acme/support", "total"): 1,
        ("acme/support/node:draft", "total"): 1,
    }


POLICY: dict[str, Any] = {
    "zone": "Europe/Paris",
    "mode": "soft",
    "rollover_percent": 50,
    "overdraft_percent": 10,
    "oversubscribed": True,
    "alerts": [80, 50],
}


def policy(line: BudgetLine) -> dict[str, Any]:
    return {name: getattr(line, name) for name in POLICY}


def test_a_budgets_whole_policy_is_declared_and_what_it_no_longer_says_returns_to_its_default(ledger: Ledger) -> None:
    budget = {"steps": 1, "per": "month"}
    plain = {
        "zone": "UTC",
        "mode": "hard",
        "rollover_percent": 0,
        "overdraft_percent": 0,
        "oversubscribed": False,
        "alerts": (),
    }
    for said, kept in ((POLICY, {**POLICY, "alerts": (50, 80)}), ({}, plain)):
        declare(ledger, acme={"budgets": [{**budget, **said}]})
        [line] = ledger.budgets.ls("acme")
        assert policy(line) == kept


def test_a_budget_that_is_no_longer_declared_keeps_none_of_its_policy(ledger: Ledger) -> None:
    declare(ledger, acme={"budgets": [{"steps": 1, "per": "month", **POLICY}]})
    declare(ledger, acme={"budgets": [{"steps": 1, "per": "day"}]})
    lifted = {line.per: line for line in ledger.budgets.ls("acme")}["month"]
    assert (lifted.mode, lifted.rollover_percent, lifted.alerts) == ("hard", 0, ())


def reserve(ledger: Ledger, organisation: str | None) -> object:
    scope = Scope(tenant="acme", agents=("support",), run_id=f"run_{organisation}", organisation=organisation)
    ledger.gates.open(scope, Limits.unlimited())
    quote = ModelQuote(model="m", price=None, input_tokens=1, max_output_tokens=1)
    return ledger.reserve(Call(id="a", scope=scope, epoch=0, node="n"), quote)


def test_a_tenant_of_an_organisation_cannot_leave_it_out_of_a_call(ledger: Ledger) -> None:
    declare(ledger, {"globex": {"budgets": [{"steps": 0}]}}, acme={"organisation": "globex"})
    with pytest.raises(UsageError, match="tenant acme belongs to org:globex"):
        reserve(ledger, None)
    refusal = reserve(ledger, "globex")
    assert isinstance(refusal, Refusal)
    assert refusal.path == "org:globex"


@pytest.mark.parametrize("budgets", [[], [{"steps": 5, "per": "day"}]], ids=["without a budget", "with one"])
def test_a_tenant_that_leaves_its_organisation_is_bound_by_it_no_more(
    ledger: Ledger, budgets: list[dict[str, Any]]
) -> None:
    globex = {"globex": {"budgets": [{"steps": 0}]}}
    declare(ledger, globex, acme={"organisation": "globex"})
    declare(ledger, globex, acme={"budgets": budgets})
    assert not isinstance(reserve(ledger, None), Refusal)


def test_budgets_that_a_command_has_set_belong_to_the_tenants_organisation_too(ledger: Ledger) -> None:
    ledger.budgets.set("acme", per="day", limit={"steps": 5}, author="dana")
    declare(ledger, {"globex": {"budgets": [{"steps": 9, "per": "hour"}]}}, acme={"organisation": "globex"})
    ledger.budgets.set("acme", per="hour", limit={"steps": 5}, author="dana")
    with pytest.raises(UsageError, match="org:globex has 9 steps per hour, and its parts would be given 10"):
        ledger.budgets.set("acme", per="hour", limit={"steps": 10}, author="dana")
    declare(ledger)
    assert not isinstance(reserve(ledger, None), Refusal)


def test_the_order_in_which_wholes_and_parts_are_changed_does_not_matter(ledger: Ledger) -> None:
    def acme(whole: int, part: int) -> dict[str, Any]:
        return {"budgets": [{"steps": whole}], "agents": {"support": {"budgets": [{"steps": part}]}}}

    for whole, part in ((10, 10), (100, 100), (1, 1)):
        declare(ledger, acme=acme(whole, part))
        assert set(steps(ledger).values()) == {whole}
