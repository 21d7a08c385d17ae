"""The bill of a run: every attempt at every call, from its reservation to its posting, and what changed on the way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select
from sqlalchemy.engine import RowMapping

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import NotFoundError
from bursar.budget.journal import amounts_in
from bursar.budget.pricing.prices import Price
from bursar.budget.refusal import Refusal
from bursar.budget.schema import account, entry, pot, price, reservation
from bursar.budget.usage import Usage
from bursar.budget.windows import from_us

__all__ = ["Attempt", "Draw", "RunBill"]

DIGITS_MAX = 18
"""Of a reservation's number: any such number is within what a store holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at one call, from reservation to posting."""

    id: int
    call: str
    attempt: int
    kind: Literal["model", "tool", "slice"]
    state: str
    outcome: str | None
    organisation: str | None
    tenant: str
    team: str | None
    user: str | None
    agent: str
    run_id: str
    node: str
    tier: str | None
    model: str | None
    reason: str | None
    max_output_tokens: int | None
    capped: bool
    held: Amounts
    """As reserved; kept after the settle."""

    posted: Amounts
    usage: Usage | None
    price: Price | None
    note: str | None
    reserved_at: datetime
    closed_at: datetime | None

    @property
    def price_id(self) -> str | None:
        """The name of the price row."""
        return self.price.id if self.price else None

    @property
    def saved_nanousd(self) -> int:
        """What the provider's prompt cache saved (see `Price.saved`); 0 where nobody knows what the call used."""
        if self.price is None or self.usage is None or self.outcome == "unknown":
            return 0
        return self.price.saved(self.usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A budget that a call drew on: one pot, in the window in which the call was reserved."""

    path: str
    per: str
    window: str
    limit: Mapping[str, int | None]
    """By dimension, as it is now, with the grants of the window; None = no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBill:
    """All that a run was charged, attempt by attempt; the postings add up to the balance of the run's account."""

    run_id: str
    path: str
    tenant: str
    limit: Mapping[str, int | None]
    posted: Amounts
    held: Amounts
    attempts: Sequence[Attempt]
    stopped: Refusal | None
    changes: Sequence[tuple[datetime, str, str, str]]
    """Changes of its gate and limits: time, kind, author and note."""

    @property
    def saved_nanousd(self) -> int:
        """What prompt caches saved in all; below 0 where they cost more than they saved."""
        return sum(attempt.saved_nanousd for attempt in self.attempts)


_BALANCE = (
    *(account.c[f"limit_{name}"].label(f"window_limit_{name}") for name in DIMENSIONS),
    *(account.c[f"{side}_{name}"] for side in ("posted", "held") for name in DIMENSIONS),
)
_COUNTS = tuple(field.name for field in fields(Usage) if field.name.endswith("_tokens"))


def bill_of(connection: Connection, run_id: str) -> RunBill:
    """What a run was charged and why, for runs within it too; raises NotFoundError."""
    runs = (
        select(pot, *_BALANCE)
        .join(account, account.c.pot_id == pot.c.id)
        .where(pot.c.run_id == run_id, pot.c.epoch.is_not(None))
    )
    row = connection.execute(runs).mappings().first()
    if row is None:
        raise NotFoundError(f"the ledger knows no run {run_id}", next_step="bursar runs ls")
    of_run = select(pot.c.path).where(pot.c.run_id == run_id)
    runs_paid = select(pot.c.run_id).where(or_(pot.c.path == row["path"], pot.c.parent == row["path"]))
    paths = connection.scalars(of_run.union(select(pot.c.path).where(pot.c.parent.in_(of_run)))).all()
    changes = select(entry).where(entry.c.path.in_(paths), entry.c.kind != "open").order_by(entry.c.number)
    return RunBill(
        run_id=run_id,
        path=row["path"],
        tenant=row["tenant"],
        limit={name: row[f"window_limit_{name}"] for name in DIMENSIONS},
        posted=amounts_in("posted", row),
        held=amounts_in("held", row),
        attempts=attempts_of(connection, reservation.c.run_id.in_(runs_paid)),
        stopped=Refusal.from_record(json.loads(row["stopped"])) if row["stopped"] else None,
        changes=[
            (from_us(change["at_us"]), change["kind"], change["author"] or "", change["note"] or "")
            for change in connection.execute(changes).mappings()
        ],
    )


def run_of(connection: Connection, run_path: str) -> Amounts:
    """What a run was charged so far; nothing where it is unknown."""
    query = select(*_BALANCE).join(pot, account.c.pot_id == pot.c.id).where(pot.c.path == run_path)
    row = connection.execute(query).mappings().first()
    return amounts_in("posted", row) if row else Amounts()


def attempts_of(connection: Connection, which: ColumnElement[bool]) -> list[Attempt]:
    """The attempts that a condition on `reservation` chooses, in the order in which they were reserved."""
    return [attempt_in(row) for row in connection.execute(with_price(which).order_by(reservation.c.id)).mappings()]


def with_price(which: ColumnElement[bool]) -> Select[Any]:
    """Reservations with the price rows of their postings."""
    return select(reservation, price.c.record).outerjoin(price, price.c.id == reservation.c.price_id).where(which)


def draws_of(connection: Connection, reservation_id: int) -> list[Draw]:
    """The budgets on which an attempt drew, in the order in which they were checked."""
    accounts = connection.execute(select(reservation.c.accounts).where(reservation.c.id == reservation_id)).scalar_one()
    query = (
        select(pot.c.path, pot.c.per, account.c.window, *_BALANCE)
        .join(pot, pot.c.id == account.c.pot_id)
        .where(account.c.id.in_(json.loads(accounts)))
        .order_by(pot.c.id)
    )
    return [
        Draw(
            path=row["path"],
            per=row["per"],
            window=row["window"],
            limit={name: row[f"window_limit_{name}"] for name in DIMENSIONS},
        )
        for row in connection.execute(query).mappings()
    ]


def attempts_at(connection: Connection, call: str) -> list[Attempt]:
    """The attempt with this number, or all attempts at the call with this id; raises NotFoundError."""
    if call.isascii() and call.isdigit() and len(call) <= DIGITS_MAX:
        found = attempts_of(connection, reservation.c.id == int(call))
    else:
        run_id = call.partition(":")[0]  # by which the rows of a call are found; see `Call.id`
        found = attempts_of(connection, and_(reservation.c.run_id == run_id, reservation.c.call == call))
    if not found:
        raise NotFoundError(f"the ledger knows no call {call}", next_step="bursar runs ls")
    return found


def total_usage(records: Iterable[str]) -> Usage:
    """The sum of usages that are kept as JSON."""
    usages = [json.loads(record) for record in records]
    return Usage(**{name: sum(usage.get(name, 0) for usage in usages) for name in _COUNTS})


def attempt_in(row: RowMapping) -> Attempt:
    """The attempt in a row of `with_price`."""
    usage: dict[str, Any] | None = json.loads(row["usage"]) if row["usage"] else None
    return Attempt(
        id=row["id"],
        call=row["call"],
        attempt=row["attempt"],
        kind=row["kind"],
        state=row["state"],
        outcome=row["outcome"],
        organisation=row["organisation"],
        tenant=row["tenant"],
        team=row["team"],
        user=row["user"],
        agent=row["agent"],
        run_id=row["run_id"],
        node=row["node"],
        tier=row["tier"],
        model=row["model"],
        reason=row["reason"],
        max_output_tokens=row["max_output_tokens"],
        capped=bool(row["capped"]),
        held=amounts_in("held", row),
        posted=amounts_in("posted", row),
        usage=Usage(**usage) if usage else None,
        price=Price.from_record(json.loads(row["record"])) if row["record"] else None,
        note=row["note"],
        reserved_at=from_us(row["reserved_us"]),
        closed_at=from_us(row["closed_us"]) if row["closed_us"] else None,
    )
