"""What somebody has to be told: alerts, each written once, in the transaction that makes it true."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from bursar.budget.alerts.endpoints import AlertKind
from bursar.budget.money import usd
from bursar.budget.schema import alert
from bursar.budget.windows import from_us

__all__ = ["Alert", "amount_json", "insert_once", "known", "tell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing to be told."""

    key: str
    """What "once" means: a second alert with the same key is none."""

    kind: AlertKind
    tenant: str
    """Whose endpoints are told; for an organisation's budget its own path."""

    path: str
    """The scope that it is about."""

    message: str
    """A sentence for people."""

    data: Mapping[str, Any]
    """Plain JSON; money as decimal strings."""

    run_id: str | None = None

    people: Sequence[str] = ()
    """Whose mailboxes it is for; empty for everybody's. Webhooks and the log are told in any case."""


def tell(connection: Connection, alerts: Sequence[Alert], now: int) -> int:
    """Write alerts in the caller's transaction; returns how many of them were new."""
    return sum(insert_once(connection, alert, _row(one, now)) for one in alerts)


def known(connection: Connection, keys: Collection[str]) -> set[str]:
    """Those of the keys of which an alert was written."""
    return set(connection.scalars(select(alert.c.key).where(alert.c.key.in_(keys))))


def insert_once(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless one of its unique keys is taken; whether it was inserted."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return bool(connection.execute(dialect.insert(table).values(**values).on_conflict_do_nothing()).rowcount)


def amount_json(dimension: str, value: int | None) -> str | int | None:
    """An amount as JSON: USD as a decimal string, everything else as a whole number."""
    return f"{usd(value):f}" if dimension == "nanousd" and value is not None else value


def _row(one: Alert, now: int) -> dict[str, Any]:
    """The payload is written once, so that each attempt to deliver it sends the very same bytes."""
    named = {"scope": one.path, "run_id": one.run_id, "message": one.message, **one.data}
    payload = {"type": one.kind, "timestamp": from_us(now).isoformat(), "data": named}
    return {
        "key": one.key,
        "at_us": now,
        "kind": one.kind,
        "tenant": one.tenant,
        "path": one.path,
        "run_id": one.run_id,
        "people": f",{','.join(one.people)}," if one.people else None,
        "payload": json.dumps(payload, separators=(",", ":")),
    }
