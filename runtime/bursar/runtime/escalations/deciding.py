"""A decision on an escalation: checked, written and carried out in one transaction, so that it is made once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, select, update

from bursar.budget.alerts.endpoints import AlertKind
from bursar.budget.errors import ConflictError, NotAllowedError
from bursar.budget.gate import try_again
from bursar.budget.journal import claim
from bursar.budget.limits import COUNT_MAX
from bursar.budget.scope import chain_of
from bursar.runtime.escalations.allowing import (
    amount_of,
    refuses,
    require_ceiling,
    require_may,
    require_open,
    require_same,
    require_unclaimed,
    rule_of,
)
from bursar.runtime.escalations.events import note, notify
from bursar.runtime.escalations.fitting import fitted, in_words, type_of
from bursar.runtime.escalations.granting import grant
from bursar.runtime.escalations.kinds import graph_id
from bursar.runtime.escalations.records import Decision
from bursar.runtime.escalations.rule import Rule
from bursar.runtime.runs.records import Records, lock, run_path
from bursar.runtime.runs.schema import escalation, run

__all__ = ["POLICY", "conclude", "decide", "end_run", "locked", "row_of"]

POLICY = "policy"
"""The author of what happens where nobody decides in time."""


def locked(connection: Connection, escalation_id: int) -> RowMapping | None:
    """An escalation that is about to be changed; nobody else changes it or its run until the transaction ends."""
    row = row_of(connection, escalation_id)
    if row is None:
        return None
    lock(connection, row["run_id"])
    return row_of(connection, escalation_id)


def row_of(connection: Connection, escalation_id: int) -> RowMapping | None:
    """An escalation as it stands; None where there is none of this number, however large."""
    if not 0 < escalation_id <= COUNT_MAX:
        return None
    return connection.execute(select(escalation).where(escalation.c.id == escalation_id)).mappings().first()


def decide(
    connection: Connection, row: RowMapping, decision: Decision, *, by: str, said: str, digest: str | None, now: int
) -> None:
    """Decide on a locked escalation; where two people must agree, the first only says what the second has to.

    Raises ConflictError, NotAllowedError and UsageError, and nothing is done then.
    """
    rule = rule_of(row)
    require_open(row, now)
    require_same(row, digest)
    require_may(row, rule, by)
    require_unclaimed(row, by, now)
    fit = fitted(row, decision)
    if not refuses(fit, row):
        amount = amount_of(row, rule, fit)
        require_ceiling(row, rule, by, amount)
        if rule.needs_two(amount) and not _agreed(connection, row, fit, by=by, said=said, now=now):
            return
    conclude(connection, row, rule, fit, by=by, said=said, now=now)


def conclude(
    connection: Connection,
    row: RowMapping,
    rule: Rule,
    decision: Decision,
    *,
    by: str,
    said: str,
    now: int,
    expired: bool = False,
) -> None:
    """Write down what was decided, by a person or where it has `expired` by its rule, and let the run go on with it."""
    words = in_words(decision)
    status: Literal["expired", "decided"] = "expired" if expired else "decided"
    told: AlertKind = "escalation.expired" if expired else "escalation.decided"
    values = {"decision": json.dumps(decision), "decided_by": by, "decided_us": now, "due_us": None}
    connection.execute(
        update(escalation)
        .where(escalation.c.id == row["id"])
        .values(**values, status=status, claimed_by=None, claimed_until_us=None)
    )
    agreed = not expired and row["first_decision"] == json.dumps(decision, sort_keys=True)
    together = f"{row['first_by']} and {by}" if agreed else by
    note(connection, row, status, now, author=together, detail=f"{words}: {said}" if said else words)
    kind = type_of(decision) or "answered"
    notify(connection, row, rule, told, f"{together}: {kind} on: {row['words']}", now)
    cause = f"{words} on: {row['words']}"
    if row["kind"] == "more":
        _carry_out(connection, row, decision, by=by, said=said, now=now)
    if row["kind"] == "more" and kind == "stop":
        end_run(connection, row, cause, by=by, now=now)
    elif _all_decided(connection, row):
        Records.queue(connection, row["run_id"], now=now, cause=cause, author=together)


def end_run(connection: Connection, row: RowMapping, cause: str, *, by: str, now: int) -> None:
    """Let a run that waits end as it is; it asks nothing else any more."""
    if Records.stop(connection, row["run_id"], now=now, cause=cause, author=by):
        others = select(escalation).where(escalation.c.run_id == row["run_id"], escalation.c.status == "open")
        for other in connection.execute(others).mappings().all():
            if other["id"] != row["id"]:
                connection.execute(
                    update(escalation).where(escalation.c.id == other["id"]).values(status="withdrawn", due_us=None)
                )
                note(connection, other, "withdrawn", now, author=by)


def _agreed(connection: Connection, row: RowMapping, decision: Decision, *, by: str, said: str, now: int) -> bool:
    """Whether another person has decided the same before; if not, this is what the second has to agree to."""
    if by == row["requester"]:
        words = f"escalation {row['id']} is about {by}'s own run: two others must agree"
        raise NotAllowedError(words, next_step=f"bursar inbox show {row['id']}")
    written = json.dumps(decision, sort_keys=True)
    if row["first_decision"] == written and row["first_by"] != by:
        return True
    if row["first_decision"] == written:
        words = f"{by} has decided so already; on escalation {row['id']} another person must agree"
        raise ConflictError(words, next_step=f"bursar inbox show {row['id']}")
    first = {"first_decision": written, "first_by": by}
    connection.execute(update(escalation).where(escalation.c.id == row["id"]).values(**first))
    words = in_words(decision)
    note(connection, row, "agreed", now, author=by, detail=f"{words}: {said}" if said else words)
    return False


def _carry_out(
    connection: Connection, row: RowMapping, decision: Mapping[str, Any], *, by: str, said: str, now: int
) -> None:
    """Give a run at its limit what was decided; it tries the same call again."""
    kind = type_of(decision)
    of_run = connection.execute(select(run).where(run.c.id == row["run_id"])).mappings().one()
    refusal = json.loads(row["payload"])["refusal"]
    path = run_path(of_run)
    claim(connection, {chain_of(path), chain_of(refusal["path"])})
    if kind == "grant":
        why = said or f"for {row['run_id']}"
        key = f"escalation-{row['id']}"
        grant(connection, refusal["path"], path, decision, by=by, note=why, now=now, per=refusal["per"], key=key)
    if kind == "downgrade":
        connection.execute(update(run).where(run.c.id == row["run_id"]).values(on_limit="downgrade"))
        try_again(connection, path, now, author=by)


def _all_decided(connection: Connection, row: RowMapping) -> bool:
    """Whether nothing is open of what the graph's interrupt asks, of which this is a part."""
    mine = graph_id(row["interrupt_id"])
    of_run = select(escalation.c.interrupt_id).where(
        escalation.c.run_id == row["run_id"], escalation.c.status == "open"
    )
    return not any(graph_id(one) == mine for one in connection.execute(of_run).scalars())
