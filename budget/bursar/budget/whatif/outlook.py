"""When each budget runs out, from the calls of the past that were charged to it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import dropwhile
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.journal import amounts_in
from bursar.budget.schema import account, pot, reservation
from bursar.budget.whatif.forecast import Forecast, forecast
from bursar.budget.windows import BUCKETS, Period, from_us, rolling_us, to_us, window_at

if TYPE_CHECKING:
    from bursar.budget.budgets import BudgetLine

__all__ = ["Outlook", "Span"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The past from which a pace is taken: so many stretches of equal length, up to now."""

    count: int
    length: timedelta

    @property
    def length_us(self) -> int:
        """The length in microseconds."""
        return self.length // timedelta(microseconds=1)


SPANS: Mapping[Period, Span] = {
    "hour": Span(count=24, length=timedelta(minutes=5)),
    "day": Span(count=24, length=timedelta(hours=1)),
    "week": Span(count=28, length=timedelta(hours=6)),
    "month": Span(count=28, length=timedelta(days=1)),
    "total": Span(count=28, length=timedelta(days=1)),
}
"""Whole days and whole weeks, so that a quiet night or weekend is in its due share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The forecast for one limit of one budget."""

    budget: BudgetLine
    dimension: str
    """Of `DIMENSIONS`; its limit is not None."""

    forecast: Forecast


def outlooks_of(connection: Connection, budgets: Sequence[BudgetLine], now: datetime) -> list[Outlook]:
    """A forecast for each limit of each budget; a pace is taken from the first charge of its span on."""
    pots = _pot_ids(connection, {line.path for line in budgets})
    by_span = {
        per: _charged(connection, [pots[line.path, line.per] for line in budgets if line.per == per], span, now)
        for per, span in SPANS.items()
        if any(line.per == per for line in budgets)
    }
    found = []
    for line in budgets:
        limited = [name for name in DIMENSIONS if line.limit[name] is not None]
        if limited and rolling_us(line.per) is not None:
            found += _rolling(connection, line, pots[line.path, line.per], limited, now)
        elif limited:
            past = by_span[line.per].get(pots[line.path, line.per], [])
            found += [_calendar(line, name, past, now) for name in limited]
    return found


def _calendar(line: BudgetLine, dimension: str, past: Sequence[tuple[datetime, Amounts]], now: datetime) -> Outlook:
    expected = forecast(
        _of(dimension, past),
        limit=line.limit[dimension] or 0,
        spent=getattr(line.posted, dimension),
        now=now,
        window_end=line.resets_at,
    )
    return Outlook(budget=line, dimension=dimension, forecast=expected)


def _rolling(
    connection: Connection, line: BudgetLine, pot_id: int, dimensions: Sequence[str], now: datetime
) -> list[Outlook]:
    """Of a rolling window everything is known: what was spent in each of its buckets, and when that leaves it."""
    length = timedelta(microseconds=rolling_us(line.per) or 0)
    query = select(account).where(account.c.pot_id == pot_id, account.c.ends_us > to_us(now - length))
    posted = {row["starts_us"]: amounts_in("posted", row) for row in connection.execute(query).mappings()}
    bucket = length // BUCKETS
    first = from_us(window_at(line.per, line.zone, now).starts_us) - length
    starts = [first + place * bucket for place in range(BUCKETS + 1)]
    past = [(at, posted.get(to_us(at), Amounts())) for at in starts]
    return [
        Outlook(
            budget=line,
            dimension=name,
            forecast=forecast(
                _of(name, past),
                limit=line.limit[name] or 0,
                spent=getattr(line.posted, name),
                now=now,
                window_end=now + length,
                leaving=[(at + bucket + length, amount) for at, amount in _of(name, past)],
            ),
        )
        for name in dimensions
    ]


def _of(dimension: str, past: Sequence[tuple[datetime, Amounts]]) -> list[tuple[datetime, int]]:
    """The stretches from the first one in which something was spent."""
    amounts = [(at, getattr(amount, dimension)) for at, amount in past]
    return [*dropwhile(lambda stretch: not stretch[1], amounts)]


def _pot_ids(connection: Connection, paths: set[str]) -> dict[tuple[str, str], int]:
    query = select(pot.c.path, pot.c.per, pot.c.id).where(pot.c.path.in_(paths))
    return {(row["path"], row["per"]): row["id"] for row in connection.execute(query).mappings()}


def _charged(
    connection: Connection, pot_ids: Sequence[int], span: Span, now: datetime
) -> dict[int, list[tuple[datetime, Amounts]]]:
    """What was charged to each pot, in whichever of its windows, in each stretch of the span.

    Read once for all pots, by the index on time, and summed by the accounts that calls were charged to.
    """
    since = now - span.count * span.length
    its_own = account.c.pot_id.in_(pot_ids)
    accounts = select(account.c.id, account.c.pot_id).where(its_own, account.c.ends_us > to_us(since))
    pot_of = {row["id"]: row["pot_id"] for row in connection.execute(accounts).mappings()}
    stretch = ((reservation.c.reserved_us - to_us(since)) // span.length_us).label("stretch")
    sums = [func.sum(reservation.c[f"posted_{name}"]).label(f"posted_{name}") for name in DIMENSIONS]
    charged = (
        select(reservation.c.accounts, stretch, *sums)
        .where(reservation.c.reserved_us >= to_us(since), reservation.c.reserved_us < to_us(now))
        .group_by(reservation.c.accounts, stretch)
    )
    found: dict[int, list[Amounts]] = defaultdict(lambda: [Amounts()] * span.count)
    for row in connection.execute(charged).mappings():
        amounts = amounts_in("posted", {name: int(row[name]) for name in row if name.startswith("posted_")})
        for account_id in json.loads(row["accounts"]):
            if account_id in pot_of:
                found[pot_of[account_id]][row["stretch"]] += amounts
    starts = [since + place * span.length for place in range(span.count)]
    return {pot_id: [*zip(starts, amounts, strict=True)] for pot_id, amounts in found.items()}
