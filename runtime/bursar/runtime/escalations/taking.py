"""What a run is answered when it is taken up: each decision that its graph has not taken in."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from bursar.runtime.escalations.kinds import answer, graph_id
from bursar.runtime.runs.schema import escalation

__all__ = ["answers", "take"]


def answers(connection: Connection, run_id: str, pending: Collection[str]) -> Mapping[str, Any]:
    """The answers to the graph's `pending` interrupts, by their ids, for `Command(resume=...)`.

    Those that were handed to it before are among them: it did not keep them, or they would not be pending.
    """
    of_run = select(escalation).where(escalation.c.run_id == run_id).order_by(escalation.c.id)
    parts: dict[str, list[RowMapping]] = defaultdict(list)
    for row in connection.execute(of_run).mappings():
        if graph_id(row["interrupt_id"]) in pending:
            parts[graph_id(row["interrupt_id"])].append(row)
    return {
        key: answer(rows, [json.loads(row["decision"]) for row in rows])
        for key, rows in parts.items()
        if all(row["decision"] is not None for row in rows)
    }


def take(connection: Connection, run_id: str, now: int) -> None:
    """Mark what was decided as handed to the run, in the transaction that lets somebody execute it."""
    untaken = (escalation.c.run_id == run_id, escalation.c.decision.is_not(None), escalation.c.taken_us.is_(None))
    connection.execute(update(escalation).where(*untaken).values(taken_us=now))
