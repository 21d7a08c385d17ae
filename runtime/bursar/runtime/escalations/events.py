"""What happened to an escalation: kept with it, and told to those whom it concerns."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, insert

from bursar.budget.alerts.endpoints import AlertKind
from bursar.budget.alerts.outbox import Alert, tell
from bursar.budget.money import usd
from bursar.budget.stores.text import storable
from bursar.budget.windows import from_us
from bursar.runtime.escalations.rule import Rule
from bursar.runtime.runs.schema import escalation_event

__all__ = ["EventKind", "note", "notify"]

EventKind = Literal[
    "opened",
    "reminder",
    "raised",  # the next level may decide, too
    "assigned",
    "claimed",
    "released",
    "comment",
    "agreed",  # the first of two people
    "decided",
    "expired",
    "withdrawn",  # the run does not ask any more
]


def note(
    connection: Connection, row: RowMapping, kind: EventKind, now: int, *, author: str | None = None, detail: str = ""
) -> None:
    """Keep that it happened, in the caller's transaction."""
    connection.execute(
        insert(escalation_event).values(
            escalation_id=row["id"], at_us=now, kind=kind, author=author, detail=storable(detail) or None
        )
    )


def notify(
    connection: Connection,
    row: RowMapping,
    rule: Rule,
    kind: AlertKind,
    message: str,
    now: int,
    *,
    level: int | None = None,
    to: str | None = None,
) -> None:
    """Tell those who may decide now, or one of them; never what the arguments of an action are."""
    people = [to] if to is not None else rule.may_decide(row["level"] if level is None else level)
    amount = row["amount_nanousd"]
    data: dict[str, Any] = {
        "escalation": row["id"],
        "reason": row["reason"],
        "agent": row["agent"],
        "words": row["words"],
        "priority": row["priority"],
        "amount_usd": None if amount is None else f"{usd(amount):f}",
        "deadline": None if row["expires_us"] is None else from_us(row["expires_us"]).isoformat(),
        "may_decide": people,
        "next": f"bursar inbox show {row['id']}",
    }
    one = Alert(
        key=f"{kind}:{row['id']}:{now}",
        kind=kind,
        tenant=row["tenant"],
        path=f"{row['tenant']}/{row['agent']}/{row['run_id']}",
        run_id=row["run_id"],
        message=message,
        data=data,
        people=people or (),
    )
    tell(connection, [one], now)
