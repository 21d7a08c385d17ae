"""What bursar.yaml says of its tenants is what holds, except where a command has spoken since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import select

from bursar.budget import Ledger
from bursar.budget.schema import entry
from bursar.runtime.config import TenantConfig
from bursar.runtime.tenants import declare_budgets
from tests.unit.runtime.config_texts import MINIMAL, parse

_TENANTS = TypeAdapter(dict[str, TenantConfig])


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with nothing in it."""
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield ledger
    ledger.close()


def declare(ledger: Ledger, **tenants: dict[str, Any]) -> None:
    declare_budgets(ledger, parse(MINIMAL).model_copy(update={"tenants": _TENANTS.validate_python(tenants)}))


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
            return len(connection.execute(select(entry.c.seq)).all())

    for budgets in ([{"steps": 1}], []):
        declare(ledger, acme={"budgets": budgets})
        before = written()
        declare(ledger, acme={"budgets": budgets})
        assert written() == before
