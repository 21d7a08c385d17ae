"""A store with runs that wait for people, and a clock that is set by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete

from bursar.budget import Ledger, Limits
from bursar.budget.scope import Scope
from bursar.budget.stores.migrate import migrate
from bursar.runtime.config import parse_config
from bursar.runtime.escalations.escalations import Escalations
from bursar.runtime.escalations.records import Asked, Escalation
from bursar.runtime.runs.records import MIGRATIONS, Records
from bursar.runtime.runs.schema import metadata

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)  # a Monday

PEOPLE = """
    people:
      dana: {roles: [lead], ceiling_usd: "50"}
      eve: {roles: [lead], teams: [risk]}
      finn: {teams: [risk], ceiling_usd: "500"}
      gus: {}
"""


def config_text(tenant: str = "") -> str:
    """A configuration with the tenant acme, `tenant` being its section, and another tenant."""
    return f"""
database: sqlite:///unused.db
models: {{m: {{provider: sim, scenario: support}}}}
tiers: {{small: [m]}}
tenants:
  other: {{}}
  acme:
    budgets: [{{usd: "1000"}}]
{tenant}
"""


def approval(place: int = 0, **changed: Any) -> Asked:
    """A question whether a refund may be paid."""
    values: dict[str, Any] = {
        "id": f"{place:032x}",
        "kind": "bursar",
        "reason": "approval",
        "words": "support wants to call refund",
        "payload": {"tool": "refund", "args": {"order": "1", "amount_usd": 40}, "amount_argument": "amount_usd"},
        "allowed": ["approve", "edit", "reject", "respond"],
        "form": {
            "type": "object",
            "properties": {"order": {"type": "string"}, "amount_usd": {"type": "number"}},
            "required": ["order", "amount_usd"],
            "additionalProperties": False,
        },
        "amount_nanousd": 40 * 10**9,
    }
    return Asked(**{**values, **changed})


def question(place: int = 0, **changed: Any) -> Asked:
    """A question of a graph's own."""
    values: dict[str, Any] = {
        "id": f"{place:032x}",
        "kind": "plain",
        "reason": "question",
        "words": "which colour?",
        "payload": {"value": "which colour?"},
    }
    return Asked(**{**values, **changed})


def more(run_id: str, **changed: Any) -> Asked:
    """A run that has reached its limit of steps."""
    refusal = {"path": f"acme/support/{run_id}", "per": "total"}
    values: dict[str, Any] = {
        "id": f"more-{run_id}-1",
        "kind": "more",
        "reason": "budget",
        "words": "run is at its limit",
        "payload": {"refusal": refusal},
        "allowed": ["grant", "downgrade", "stop"],
    }
    return Asked(**{**values, **changed})


class Desk:
    """The escalations of one store; another desk on the same store is another process."""

    def __init__(self, url: str, tenant: str = "", *, empty: bool = True) -> None:
        self.at = START
        self.ledger = Ledger.open(url, clock=self.now)
        migrate(self.ledger.store, scripts=MIGRATIONS, version_table="bursar_runs_version")
        if empty:  # databases are shared by tests, and only the ledger's own tables are emptied between them
            with self.ledger.store.write() as connection:
                for table in reversed(metadata.sorted_tables):
                    connection.execute(delete(table))
        self.records = Records(self.ledger, self.now)
        self.config = parse_config(config_text(tenant), file=Path("bursar.yaml"))
        self.escalations = Escalations(self.ledger, self.config, self.now)
        self._numbers = itertools.count()

    def now(self) -> datetime:
        return self.at

    def later(self, **span: float) -> None:
        """Let time pass, and do what is due."""
        self.at += timedelta(**span)
        self.escalations.act_on_due()

    def begin(self, user: str | None = None, steps: int = 1) -> str:
        """A run that is executed."""
        run_id = f"run_{next(self._numbers)}"
        scope = Scope(tenant="acme", agents=("support",), run_id=run_id, user=user)
        self.ledger.gates.open(scope, Limits(steps=steps))
        values = {
            "id": run_id,
            "tenant": "acme",
            "user": user,
            "agent": "support",
            "on_limit": "escalate",
            "max_output_tokens": 100,
            "input_type": "json",
            "input": b"{}",
        }
        with self.records.creating(values, "running"):
            pass
        return run_id

    def wait(self, run_id: str, asked: Sequence[Asked]) -> list[Escalation]:
        """Let the run wait for people; returns what they have to decide."""
        also = self.escalations.opening(self.records.row(run_id), asked)
        self.records.change(run_id, "interrupted", cause="asks", also=also)
        return self.escalations.ls(run_id=run_id)

    def ask(self, *asked: Asked, user: str | None = None) -> list[Escalation]:
        """What people have to decide for a new run."""
        return self.wait(self.begin(user), asked)

    def status(self, run_id: str) -> str:
        return str(self.records.row(run_id)["status"])

    def answers(self, run_id: str, pending: Sequence[str]) -> Mapping[str, Any]:
        return self.escalations.answers(run_id, pending)

    def told(self) -> list[tuple[str, Any]]:
        """The kinds of what people were told, and who, in order."""
        lines = reversed(self.ledger.alerts.ls())
        return [(one.kind, one.data["may_decide"]) for one in lines]

    def history(self, one: Escalation) -> list[tuple[str, str]]:
        return [(event.kind, event.author) for event in self.escalations.history(one.id)]

    def close(self) -> None:
        self.ledger.close()
