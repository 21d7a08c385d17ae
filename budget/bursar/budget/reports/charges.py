"""Every charge of a stretch of time, one by one, for those who reckon for themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, select
from sqlalchemy.engine import RowMapping

from bursar.budget.amounts import Amounts
from bursar.budget.journal import amounts_in
from bursar.budget.reports.bill import Attempt, attempt_in, with_price
from bursar.budget.reports.spend import NOON_US, Selection, chosen, streamed
from bursar.budget.schema import reservation, rollup
from bursar.budget.windows import from_us

__all__ = ["DaySum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaySum:
    """What retention has left of the calls of a day that were alike."""

    day: datetime
    """Its midnight in UTC."""

    organisation: str | None
    tenant: str
    team: str | None
    user: str | None
    agent: str
    node: str
    tier: str | None
    model: str | None
    kind: str
    outcome: str | None
    price_id: str | None
    calls: int
    posted: Amounts


def charges_of(connection: Connection, selection: Selection) -> Iterator[Attempt | DaySum]:
    """All that was charged, each side in order of time: what was summed up first, then attempt by attempt."""
    sums = (
        select(rollup)
        .where(rollup.c.state == "settled", *chosen(rollup.c, NOON_US, selection))
        .order_by(rollup.c.day_us)
    )
    for row in streamed(connection, sums):
        yield _day_sum(row)
    at_us = reservation.c.reserved_us
    charged = and_(reservation.c.state == "settled", *chosen(reservation.c, at_us, selection))
    for row in streamed(connection, with_price(charged).order_by(at_us, reservation.c.id)):
        yield attempt_in(row)


def _day_sum(row: RowMapping) -> DaySum:
    return DaySum(
        day=from_us(row["day_us"]),
        organisation=row["organisation"],
        tenant=row["tenant"],
        team=row["team"],
        user=row["user"],
        agent=row["agent"],
        node=row["node"],
        tier=row["tier"],
        model=row["model"],
        kind=row["kind"],
        outcome=row["outcome"],
        price_id=row["price_id"],
        calls=row["calls"],
        posted=amounts_in("posted", row),
    )
