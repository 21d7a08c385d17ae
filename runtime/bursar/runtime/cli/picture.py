"""The picture of `bursar budget report --png`: the chosen days, and the budget that covers what is chosen."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from bursar.budget.windows import from_us, window_at
from bursar.runtime.cli.books import Books
from bursar.runtime.cli.chosen import Chosen

if TYPE_CHECKING:
    from bursar.budget.budgets import BudgetLine
    from bursar.budget.reports.chart import Burn
    from bursar.budget.reports.spend import Selection
    from bursar.budget.reports.stack import Stack

__all__ = ["write_picture"]


def write_picture(file: Path, books: Books, chosen: Chosen, selection: Selection, stack: Stack, now: datetime) -> None:
    """Draw it; raises UsageError where matplotlib is missing or the file cannot be written."""
    from bursar.budget.reports.chart import write_png

    who = chosen.budget_path or " ".join(selection.where.values()) or "all tenants"
    span = f"{stack.days[0]} to {stack.days[-1]}" if stack.days else "nothing spent"
    write_png(file, title=f"{who}: {span}", stack=stack, burn=_burn(books, chosen.budget_path, selection, now))


def _burn(books: Books, path: str | None, selection: Selection, now: datetime) -> Burn | None:
    """The budget in money with the longest window: a month rather than an hour."""
    from bursar.budget.reports.chart import Burn
    from bursar.budget.reports.spend import Selection

    lines = [line for line in books.ledger.budgets.ls(path) if line.path == path and _is_drawn(line)] if path else []
    if not lines:
        return None
    line = max(lines, key=lambda one: one.resets_at or now)
    [outlook] = [one for one in books.ledger.reports.forecast([line], now) if one.dimension == "nanousd"]
    starts = from_us(window_at(line.per, line.zone, now).starts_us)
    days = Selection(since=starts, until=now, zone=line.zone, where=selection.where)
    spent = [(day.key[0], day.posted.nanousd) for day in books.ledger.reports.spend("day", selection=days)]
    return Burn(
        name=f"{line.path} per {line.per}, {line.window}",
        limit=line.limit["nanousd"] or 0,
        spent=[(starts, 0), *_rising(spent, line, now)],
        ends_at=line.resets_at,
        forecast=outlook.forecast,
    )


def _is_drawn(line: BudgetLine) -> bool:
    """Whether it is in money, and its window is one of days."""
    return line.limit["nanousd"] is not None and line.per in ("week", "month")


def _rising(spent: list[tuple[str, int]], line: BudgetLine, now: datetime) -> list[tuple[datetime, int]]:
    """What was spent by the end of each day; now it is what the budget says, which may be younger than its window."""
    ends, most = [_end_of(day, line.zone) for day, _ in spent], line.posted.nanousd
    sums = accumulate(amount for _, amount in spent)
    return [*((end, min(so_far, most)) for end, so_far in zip(ends, sums, strict=True) if end < now), (now, most)]


def _end_of(day: str, zone: str) -> datetime:
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone))
    return from_us(window_at("day", zone, noon.astimezone(UTC)).ends_us)
