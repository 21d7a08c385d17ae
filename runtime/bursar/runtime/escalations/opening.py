"""Escalations made from what a run asks: in the transaction that lets it wait, each once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from bursar.budget.alerts.outbox import insert_once
from bursar.budget.stores.text import storable
from bursar.runtime.config import TenantConfig
from bursar.runtime.escalations.digest import digest_of
from bursar.runtime.escalations.events import note, notify
from bursar.runtime.escalations.policy import rule_for
from bursar.runtime.escalations.records import Asked
from bursar.runtime.runs.records import Records
from bursar.runtime.runs.schema import escalation

__all__ = ["Costs", "open_all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a run has cost when it asks, and is expected to cost more."""

    spent_nanousd: int
    finish_nanousd: int | None


def open_all(
    connection: Connection,
    run_row: RowMapping,
    asked: Sequence[Asked],
    tenant: TenantConfig,
    costs: Costs,
    now: int,
    *,
    refused: bool = False,
) -> None:
    """Make an escalation of each question that is new, and withdraw those that the run does not ask any more.

    Where one was decided while the run was executed, the run is queued again at once.
    """
    before = _by_interrupt(connection, run_row["id"])
    for one in asked:
        known = before.get(one.id)
        if known is None or _is_asked_again(known, refused):
            _open(connection, run_row, one, tenant, costs, now, again=known)
    wanted = {one.id for one in asked}
    for row in before.values():
        if row["status"] == "open" and row["interrupt_id"] not in wanted:
            _change(connection, row["id"], {"status": "withdrawn", "due_us": None})
            note(connection, row, "withdrawn", now)
    untaken = [row for row in before.values() if row["decision"] and row["taken_us"] is None]
    if any(row["interrupt_id"] in wanted for row in untaken):
        Records.queue(connection, run_row["id"], now=now, cause="decided while it was executed")


def _open(
    connection: Connection,
    run_row: RowMapping,
    one: Asked,
    tenant: TenantConfig,
    costs: Costs,
    now: int,
    *,
    again: RowMapping | None,
) -> None:
    rule, priority, amount = rule_for(tenant, run_row["agent"], one, now)
    values: dict[str, Any] = {
        "tenant": run_row["tenant"],
        "run_id": run_row["id"],
        "interrupt_id": one.id,
        "kind": one.kind,
        "agent": run_row["agent"],
        "node": one.node,
        "reason": one.reason,
        "words": storable(one.words),
        "payload": _json(one.payload),
        "digest": digest_of({key: value for key, value in one.payload.items() if key != "digest"}),
        "allowed": json.dumps(list(one.allowed)),
        "form": None if one.form is None else _json(one.form),
        "amount_nanousd": amount,
        "cost_nanousd": costs.spent_nanousd,
        "finish_nanousd": costs.finish_nanousd,
        "evidence": _json(list(one.evidence)),
        "priority": priority,
        "requester": run_row["user"],
        "rule": rule.to_json(),
        "due_us": rule.next_moment(now),
        "expires_us": rule.expires_us,
        "status": "open",
        "created_us": now,
    }
    if again is None:
        insert_once(connection, escalation, values)
    else:
        _change(connection, again["id"], {**values, **_UNDECIDED})
    mine = (escalation.c.run_id == run_row["id"], escalation.c.interrupt_id == one.id)
    row = connection.execute(select(escalation).where(*mine)).mappings().one()
    note(connection, row, "opened", now)
    notify(connection, row, rule, "escalation.opened", f"{run_row['agent']} asks: {one.words}", now)


_UNDECIDED: dict[str, Any] = {
    **dict.fromkeys(("first_decision", "first_by", "decision", "decided_by", "decided_us", "taken_us", "assignee")),
    "level": 0,
}


def _is_asked_again(row: RowMapping, refused: bool) -> bool:
    """Whether what the run asks was asked before and came to no answer that its graph takes."""
    if row["decision"] is None:
        return row["status"] in ("withdrawn", "expired")
    return refused and row["taken_us"] is not None and row["kind"] in ("plain", "call")


def _by_interrupt(connection: Connection, run_id: str) -> dict[str, RowMapping]:
    rows = connection.execute(select(escalation).where(escalation.c.run_id == run_id)).mappings()
    return {row["interrupt_id"]: row for row in rows}


def _change(connection: Connection, escalation_id: int, values: dict[str, Any]) -> None:
    connection.execute(update(escalation).where(escalation.c.id == escalation_id).values(**values))


def _json(value: object) -> str:
    return json.dumps(value, default=str)
