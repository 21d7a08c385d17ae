"""Answers from the ledger: what a run cost and why, and what was spent by whom on what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import case, func, select
from sqlalchemy.engine import RowMapping

from bursar.budget.accounts import within
from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import NotFoundError
from bursar.budget.journal import amounts_in
from bursar.budget.prices import Price
from bursar.budget.refusal import Refusal
from bursar.budget.schema import account, entry, pot, price, reservation
from bursar.budget.store import Store
from bursar.budget.usage import Usage
from bursar.budget.windows import from_us

__all__ = ["GROUPS", "Attempt", "Group", "Reports", "RunBill", "SpendLine"]

Group = Literal["tenant", "agent", "run_id", "node", "tier", "model", "outcome"]
GROUPS: tuple[Group, ...] = ("tenant", "agent", "run_id", "node", "tier", "model", "outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at one call, from reservation to posting."""

    id: int
    call: str
    attempt: int
    kind: Literal["model", "tool"]
    state: str
    outcome: str | None
    agent: str
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendLine:
    """What was posted for one value of a group."""

    name: str
    posted: Amounts
    model_calls: int
    unknown: int
    """Calls whose outcome nobody knows; charged at what was reserved."""


class Reports:
    """Reads the ledger; changes nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def bill(self, run_id: str) -> RunBill:
        """What a run was charged and why; raises NotFoundError."""
        with self._store.read() as connection:
            runs = (
                select(pot, *_BALANCE)
                .join(account, account.c.pot_id == pot.c.id)
                .where(pot.c.run_id == run_id, pot.c.epoch.is_not(None))
            )
            row = connection.execute(runs).mappings().first()
            if row is None:
                raise NotFoundError(f"the ledger knows no run {run_id}", next_step="bursar runs ls")
            rows = connection.execute(
                select(reservation, price.c.record)
                .outerjoin(price, price.c.id == reservation.c.price_id)
                .where(reservation.c.run_id == run_id)
                .order_by(reservation.c.id)
            ).mappings()
            attempts = [_attempt(found) for found in rows]
            changes = connection.execute(
                select(entry).where(within(row["path"], entry.c.path), entry.c.kind != "open").order_by(entry.c.seq)
            ).mappings()
            return RunBill(
                run_id=run_id,
                path=row["path"],
                tenant=row["tenant"],
                limit={name: row[f"window_limit_{name}"] for name in DIMENSIONS},
                posted=amounts_in("posted", row),
                held=amounts_in("held", row),
                attempts=attempts,
                stopped=Refusal.from_record(json.loads(row["stopped"])) if row["stopped"] else None,
                changes=[
                    (from_us(change["at_us"]), change["kind"], change["author"] or "", change["note"] or "")
                    for change in changes
                ],
            )

    def spent(self, run_path: str) -> Amounts:
        """What a run was charged so far."""
        query = select(*_BALANCE).join(pot, account.c.pot_id == pot.c.id).where(pot.c.path == run_path)
        with self._store.read() as connection:
            row = connection.execute(query).mappings().first()
        return amounts_in("posted", row) if row else Amounts()

    def usage(self, run_id: str) -> Usage:
        """The tokens of a run's settled calls, as providers reported them; calls of unknown outcome have none."""
        counts = [func.coalesce(func.sum(func.json_extract(reservation.c.usage, f"$.{name}")), 0) for name in _USAGE]
        query = select(*counts).where(reservation.c.run_id == run_id, reservation.c.usage.is_not(None))
        with self._store.read() as connection:
            row = connection.execute(query).one()
        return Usage(**dict(zip(_USAGE, row, strict=True)))

    def spend(self, by: Group, *, tenant: str | None = None) -> list[SpendLine]:
        """What was posted by one column of the reservations, the largest first; optionally of one tenant only."""
        column = reservation.c[by]
        sums = [func.sum(reservation.c[f"posted_{name}"]).label(f"posted_{name}") for name in DIMENSIONS]
        unknown = func.sum(case((reservation.c.outcome == "unknown", 1), else_=0))
        query = (
            select(column.label("name"), *sums, unknown.label("unknown"))
            .where(reservation.c.state == "settled")
            .group_by(column)
            .order_by(sums[0].desc(), column)
        )
        if tenant is not None:
            query = query.where(reservation.c.tenant == tenant)
        with self._store.read() as connection:
            return [
                SpendLine(
                    name=row["name"] or "-",
                    posted=amounts_in("posted", row),
                    model_calls=row["posted_steps"],
                    unknown=row["unknown"],
                )
                for row in connection.execute(query).mappings()
            ]


_USAGE = tuple(field.name for field in fields(Usage))

_BALANCE = (
    *(account.c[f"limit_{name}"].label(f"window_limit_{name}") for name in DIMENSIONS),
    *(account.c[f"{side}_{name}"] for side in ("posted", "held") for name in DIMENSIONS),
)


def _attempt(row: RowMapping) -> Attempt:
    usage: dict[str, Any] | None = json.loads(row["usage"]) if row["usage"] else None
    return Attempt(
        id=row["id"],
        call=row["call"],
        attempt=row["attempt"],
        kind=row["kind"],
        state=row["state"],
        outcome=row["outcome"],
        agent=row["agent"],
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
