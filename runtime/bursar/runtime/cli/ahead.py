"""`bursar budget forecast`: when each budget runs out at the present pace."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

from cyclopts import Parameter
from rich.text import Text

from bursar.budget.windows import utc_now
from bursar.runtime.cli.books import open_books, require_known
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile
from bursar.runtime.cli.output import Column, console, print_json, print_next, print_table
from bursar.runtime.cli.shapes import outlook_json
from bursar.runtime.cli.words import about, bare, shown

if TYPE_CHECKING:
    from bursar.budget.whatif.forecast import Forecast
    from bursar.budget.whatif.outlook import Outlook

__all__ = ["forecast"]

MONTHS_DAYS = 180
"""So far ahead a day is named without its year."""

_COLUMNS: Sequence[Column] = (
    *((name, "whole") for name in ("budget", "window")),
    *((name, "right") for name in ("spent", "limit", "at its end")),
    "runs out",
)


def forecast(
    path: Annotated[
        str | None, Parameter(name="PATH", help="Only this tenant, team or agent, and what is below.")
    ] = None,
    /,
    *,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """Say when each budget runs out at the present pace."""
    now = utc_now()
    with open_books(config) as books:
        found = books.ledger.reports.forecast(books.ledger.budgets.ls(path), now)
        if path and not found:
            require_known(books.config, path)
    if as_json:
        print_json([outlook_json(one) for one in found])
    elif not found:
        console().print("no budgets")
        print_next([f"bursar budget set {path or 'TENANT'} --usd 5 --per month"], config)
    else:
        print_table(_COLUMNS, [_row(one, now) for one in found])


def _row(outlook: Outlook, now: datetime) -> tuple[str | Text, ...]:
    line, ahead, name = outlook.budget, outlook.forecast, outlook.dimension
    spent, limit = shown(name, getattr(line.posted, name)), shown(name, line.limit[name])
    return line.path, line.window or line.per, bare(spent), limit, _at_its_end(name, ahead), _runs_out(outlook, now)


def _at_its_end(dimension: str, ahead: Forecast) -> str:
    """What will be spent then: between these in four of five cases, or about as much where too little is known."""
    if ahead.expected is None:
        return "-"
    if ahead.low is None or ahead.high is None:
        return f"about {bare(about(dimension, ahead.expected))}"
    return " to ".join(bare(about(dimension, amount)) for amount in (ahead.low, ahead.high))


def _runs_out(outlook: Outlook, now: datetime) -> Text:
    """When, and how sure that is."""
    line, ahead = outlook.budget, outlook.forecast
    if ahead.runs_out_at is not None and ahead.runs_out_at <= now:
        return Text("used up", style="red")
    if not ahead.stretches:
        return Text("nothing spent of late", style="dim")
    earliest, at, latest = (
        None if time is None else _time(time, line.zone, now)
        for time in (ahead.runs_out_earliest, ahead.runs_out_at, ahead.runs_out_latest)
    )
    if at is None:
        return Text(f"perhaps, from {earliest}", style="yellow") if earliest else Text("no")
    if earliest is None:
        return Text(f"{at}, uncertain", style="yellow")
    return Text(f"{at} ({earliest} to {latest or 'never'})", style="red" if latest else "yellow")


def _time(at: datetime, zone: str, now: datetime) -> str:
    """The clock for the next day, the day for the next months, else the month, as the budget's zone has it."""
    local, days = at.astimezone(ZoneInfo(zone)), (at - now).days
    return f"{local:%H:%M}" if days < 1 else f"{local:%d %b}" if days < MONTHS_DAYS else f"{local:%b %Y}"
