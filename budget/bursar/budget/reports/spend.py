"""What was spent, by whom and on what, and how much of it was waste."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    case,
    exists,
    false,
    func,
    null,
    select,
    union_all,
)
from sqlalchemy.engine import RowMapping
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.journal import amounts_in
from bursar.budget.schema import reservation, rollup
from bursar.budget.windows import from_us, to_us, window_at

__all__ = ["FILTERS", "GROUPS", "WASTE", "Column", "Group", "Part", "Selection", "SpendLine", "Waste"]

Column = Literal["organisation", "tenant", "team", "user", "agent", "run_id", "node", "tier", "model", "outcome"]
"""What calls can be chosen by."""

Group = Literal[Column, "day"]
"""What calls can be summed by."""

FILTERS: tuple[Column, ...] = get_args(Column)
GROUPS: tuple[Group, ...] = (*FILTERS, "day")

AT_ONCE = 1000
"""How many rows are in memory at a time."""

NONE = "-"
"""Stands for a group's missing value, and for the run of calls that retention has summed up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which calls a report is about; a call counts at the time at which it was reserved, as it does in its budgets."""

    since: datetime | None = None
    """From this time on; None from the first call."""

    until: datetime | None = None
    """Before this time; None to the last call."""

    zone: str = "UTC"
    """The IANA time zone in which days begin."""

    where: Mapping[Column, str] = field(default_factory=dict)
    """Values that the columns must have."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the calls, and what they cost in nano-USD."""

    calls: int
    nanousd: int

    def __add__(self, other: Part) -> Part:
        return Part(self.calls + other.calls, self.nanousd + other.nanousd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waste:
    """Money that bought less than it could have, and what replays saved. The parts overlap; they do not add up."""

    retries: Part
    """Attempts at calls of which an earlier attempt had been charged already."""

    aborted: Part
    """Calls whose use is known, and that left no reply: broken and aborted streams."""

    unknown: Part
    """Calls of unknown outcome, which are charged at what was reserved until the truth comes."""

    overage: Part
    """Calls that were billed above the bound that they were given; the money is what lies above it."""

    replayed: Part
    """Replies that were given again for free, after a crash or a resume; the money is what was not paid twice."""

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Each part with its name."""
        return ((name, getattr(self, name)) for name in WASTE)


WASTE = ("retries", "aborted", "unknown", "overage", "replayed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendLine:
    """What was posted for one combination of groups."""

    key: tuple[str, ...]
    """The value of each group, in the order in which they were asked for."""

    posted: Amounts
    """Its steps are the model calls."""

    waste: Waste

    @property
    def name(self) -> str:
        """The key in one word."""
        return " ".join(self.key)


def lines_of(connection: Connection, by: tuple[Group, ...], selection: Selection) -> Iterator[SpendLine]:
    """A line for each combination of groups, the dearest first; day by day where one of the groups is the day."""
    if "day" not in by:
        yield from _lines(connection, by, selection)
        return
    for day, part in _days(connection, selection):
        yield from _lines(connection, by, part, day)


def _lines(connection: Connection, by: tuple[Group, ...], selection: Selection, day: str = "") -> Iterator[SpendLine]:
    charged = union_all(_kept(selection), _rolled_up(selection)).subquery()
    groups = [charged.c[name] for name in by if name != "day"]
    sums = [func.coalesce(func.sum(charged.c[name]), 0).label(name) for name in _SUMS]
    query = select(*groups, *sums).group_by(*groups).order_by(sums[0].desc(), *groups)
    for row in streamed(connection, query):
        if groups or any(row[name] for name in _SUMS):
            yield _line(row, tuple(day if name == "day" else row[name] or NONE for name in by))


def _line(row: RowMapping, key: tuple[str, ...]) -> SpendLine:
    # PostgreSQL sums BIGINT into NUMERIC, which comes back as Decimal.
    counts = {name: int(row[name]) for name in _SUMS}
    parts = {name: Part(counts[f"{name}_calls"], counts[f"{name}_nanousd"]) for name in WASTE}
    return SpendLine(key=key, posted=amounts_in("posted", counts), waste=Waste(**parts))


_POSTED = tuple(f"posted_{name}" for name in DIMENSIONS)
NOON_US = rollup.c.day_us + 12 * 3600 * 1_000_000
"""When calls count of which only the day is known, in UTC: so it is the same day in nearly every zone."""

_EDGES = tuple(edge(at_us) for at_us in (reservation.c.reserved_us, NOON_US) for edge in (func.min, func.max))
_MOMENT = timedelta(microseconds=1)
_SUMS = (*_POSTED, *(f"{name}_{unit}" for name in WASTE for unit in ("calls", "nanousd")))


def _kept(selection: Selection) -> Select[Any]:
    """A row for each charged attempt."""
    row = reservation.c
    earlier = reservation.alias("earlier")
    charged_before = exists().where(
        earlier.c.run_id == row.run_id,
        earlier.c.call == row.call,
        earlier.c.attempt < row.attempt,
        earlier.c.state == "settled",
    )
    return select(
        *(row[name] for name in FILTERS),
        *(row[name] for name in _POSTED),
        *_part("retries", and_(row.attempt > 0, charged_before), row.posted_nanousd),
        *_part("aborted", and_(row.kind == "model", row.reply.is_(None), row.outcome != "unknown"), row.posted_nanousd),
        *_part("unknown", row.outcome == "unknown", row.posted_nanousd),
        *_part("overage", row.posted_nanousd > row.held_nanousd, row.posted_nanousd - row.held_nanousd),
        *(row.replays.label("replayed_calls"), (row.replays * row.posted_nanousd).label("replayed_nanousd")),
    ).where(row.state == "settled", *chosen(reservation.c, row.reserved_us, selection))


def _rolled_up(selection: Selection) -> Select[Any]:
    """A row for each day and combination that retention has summed up."""
    row = rollup.c
    is_unknown = row.outcome == "unknown"
    return select(
        *(null().cast(Text).label("run_id") if name == "run_id" else row[name] for name in FILTERS),
        *(row[name] for name in _POSTED),
        *(row.retries.label("retries_calls"), row.retries_nanousd),
        *(row.aborted.label("aborted_calls"), row.aborted_nanousd),
        case((is_unknown, row.calls), else_=0).label("unknown_calls"),
        case((is_unknown, row.posted_nanousd), else_=0).label("unknown_nanousd"),
        *(row.overage.label("overage_calls"), row.overage_nanousd),
        *(row.replayed.label("replayed_calls"), row.replayed_nanousd),
    ).where(row.state == "settled", *chosen(rollup.c, NOON_US, selection))


def _part(name: str, which: ColumnElement[bool], nanousd: ColumnElement[int]) -> list[ColumnElement[int]]:
    return [
        case((which, 1), else_=0).label(f"{name}_calls"),
        case((which, nanousd), else_=0).label(f"{name}_nanousd"),
    ]


def streamed(connection: Connection, query: Select[Any]) -> Iterator[RowMapping]:
    """The rows of a query, of which few are in memory at a time."""
    yield from connection.execute(query, execution_options={"yield_per": AT_ONCE}).mappings()


def chosen(
    columns: ReadOnlyColumnCollection[str, Any], at_us: ColumnElement[int], selection: Selection
) -> Iterator[ColumnElement[bool]]:
    """What a selection asks of the columns of a table."""
    if selection.since is not None:
        yield at_us >= to_us(selection.since)
    if selection.until is not None:
        yield at_us < to_us(selection.until)
    for name, value in selection.where.items():
        yield columns[name] == value if name in columns else false()


def _days(connection: Connection, selection: Selection) -> Iterator[tuple[str, Selection]]:
    """The days of the selection in its zone, each with the part of the selection that lies in it.

    A query for each day, by the index on time: SQLite knows no time zones, and days are not all equally long.
    """
    edges = [connection.execute(select(edge)).scalar() for edge in _EDGES]
    known = [from_us(edge) for edge in edges if edge is not None]
    if not known:
        return
    at = max(filter(None, (min(known), selection.since)))
    until = min(filter(None, (max(known) + _MOMENT, selection.until)))
    while at < until:
        window = window_at("day", selection.zone, at)
        ends = from_us(window.ends_us)
        yield window.name, replace(selection, since=at, until=min(ends, until))
        at = ends
