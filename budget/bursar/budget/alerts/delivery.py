"""Who was told of which alert: a row for each endpoint, tried by one process at a time until it is delivered.

A row is claimed by compare-and-set, with a lease: a process that dies between sending and writing that down lets go of
it by itself, and the alert is sent again under the same id. Nothing is lost, and a receiver can tell a repetition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import ColumnElement, Connection, Select, exists, func, literal_column, select, update

from bursar.budget.alerts.endpoints import AlertKind, Reader
from bursar.budget.alerts.outbox import insert_once
from bursar.budget.schema import alert, delivery

__all__ = ["GONE", "LEASE_US", "Claim", "claim", "is_shut", "mark", "offer", "recent", "unoffered", "waiting"]

LEASE_US = 60_000_000
"""How long a claim lasts; well above the time that one attempt may take."""

OFFERED_US = 3 * 24 * 3_600_000_000
"""How old an alert may be when an endpoint first hears of it, such as one that was declared today."""

TRIED_US = 21 * 24 * 3_600_000_000
"""How old an alert is at most when it is tried for the last time, whatever a receiver asks for with `Retry-After`."""

GONE = "answered 410: it wants no more"
"""The note of a delivery whose endpoint asked not to be told anything any more."""

_IS_WAITING = delivery.c.state == literal_column("'waiting'")  # written out, so that SQLite uses the partial index


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One attempt to tell one endpoint of one alert, which nobody else makes at this time."""

    id: int
    message_id: str
    """The same in every attempt, of whichever process."""

    kind: AlertKind
    payload: str
    attempt: int
    """From 1."""


def recent(connection: Connection, now: int) -> set[str]:
    """The tenants of whose alerts somebody may still have to be told: most endpoints need not be looked at."""
    return set(connection.scalars(select(alert.c.tenant).where(alert.c.at_us > now - TRIED_US).distinct()))


def unoffered(connection: Connection, reader: Reader, now: int) -> list[int]:
    """The alerts that a reader is to be told of and that it has no row for, the oldest first.

    Looked for by what is missing, not by the last id that was seen: a transaction may commit a lower id later.
    """
    there = exists().where(delivery.c.alert_id == alert.c.id, delivery.c.endpoint == reader.name)
    wanted: list[ColumnElement[bool]] = [alert.c.at_us > now - OFFERED_US, alert.c.kind != "test", ~there]
    if reader.tenant is not None:
        wanted.append(alert.c.tenant == reader.tenant)
    if reader.kinds is not None:
        wanted.append(alert.c.kind.in_(reader.kinds))
    if reader.person is not None:
        named = func.replace(alert.c.people, f",{reader.person},", "") != alert.c.people  # unlike LIKE, exact
        wanted.append(alert.c.people.is_(None) | named)
    return list(connection.scalars(select(alert.c.id).where(*wanted).order_by(alert.c.id)))


def offer(connection: Connection, endpoint: str, alert_ids: Sequence[int], now: int) -> None:
    """Make a waiting row for each alert, unless another process just did."""
    for alert_id in alert_ids:
        row = {"alert_id": alert_id, "endpoint": endpoint, "state": "waiting", "next_us": now}
        insert_once(connection, delivery, row)


def waiting(connection: Connection, reader: Reader, now: int) -> int:
    """How many deliveries are due for a reader; asked before `claim`, which has to write."""
    return connection.scalar(select(func.count()).select_from(_due(reader, now).subquery())) or 0


def claim(connection: Connection, reader: Reader, now: int, *, alert_id: int | None = None) -> Claim | None:
    """The next delivery that is due, or that of one alert, which is the caller's alone until the lease ends.

    None where there is none.
    """
    due = _due(reader, now)
    if alert_id is not None:
        due = due.where(delivery.c.alert_id == alert_id)
    while (row := connection.execute(due.limit(1)).first()) is not None:
        as_seen = (delivery.c.id == row.id, delivery.c.attempts == row.attempts, delivery.c.next_us == row.next_us)
        taken = update(delivery).where(_IS_WAITING, *as_seen)
        if connection.execute(taken.values(attempts=row.attempts + 1, next_us=now + LEASE_US)).rowcount:
            message_id = _message_id(row.alert_id, row.payload)
            of_alert = {"message_id": message_id, "kind": row.kind, "payload": row.payload}
            return Claim(id=row.id, attempt=row.attempts + 1, **of_alert)
    return None


def mark(connection: Connection, claimed: Claim, *, note: str, now: int, next_us: int | None, delivered: bool) -> bool:
    """Write down how an attempt ended: delivered, to be tried again at `next_us`, or else given up.

    False where the lease had ended and somebody else has claimed it since; then nothing is changed.
    """
    if delivered:
        values = {"state": "delivered", "done_us": now}
    else:
        values = {"state": "failed", "done_us": now} if next_us is None else {"next_us": next_us}
    mine = (delivery.c.id == claimed.id, delivery.c.attempts == claimed.attempt, _IS_WAITING)
    return bool(connection.execute(update(delivery).where(*mine).values(note=note, **values)).rowcount)


def is_shut(connection: Connection, endpoint: str) -> bool:
    """Whether the last thing heard of an endpoint is that it wants no more."""
    ended = select(delivery.c.note).where(delivery.c.endpoint == endpoint, delivery.c.done_us.is_not(None))
    return connection.scalar(ended.order_by(delivery.c.done_us.desc(), delivery.c.id.desc()).limit(1)) == GONE


def _due(reader: Reader, now: int) -> Select[int, int, int, int, str, str]:
    # By tenant too: two of them may name the same URL, each with a secret of its own.
    due = (
        select(
            *(delivery.c.id, delivery.c.alert_id, delivery.c.next_us, delivery.c.attempts),
            alert.c.kind,
            alert.c.payload,
        )
        .join(alert, alert.c.id == delivery.c.alert_id)
        .where(_IS_WAITING, delivery.c.endpoint == reader.name, delivery.c.next_us <= now)
        .order_by(delivery.c.next_us, delivery.c.id)
    )
    return due if reader.tenant is None else due.where(alert.c.tenant == reader.tenant)


def _message_id(alert_id: int, payload: str) -> str:
    # Of the payload too: another ledger that tells the same receiver counts its alerts from 1 as well.
    return f"msg_{sha256(f'{alert_id}:{payload}'.encode()).hexdigest()[:32]}"
