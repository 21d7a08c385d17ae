"""`bursar budget report`: who spent what on what, and how much of it was waste."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from bursar.budget.money import format_usd
from bursar.budget.windows import utc_now
from bursar.runtime.cli.bars import print_bars
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.chosen import LAST_30_DAYS, Chosen
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, flag
from bursar.runtime.cli.output import Column, console, print_json, print_table
from bursar.runtime.cli.picture import write_picture
from bursar.runtime.cli.shapes import report_json
from bursar.runtime.cli.words import counted, plain

if TYPE_CHECKING:
    from bursar.budget.reports.report import Reports
    from bursar.budget.reports.spend import Group, Selection, SpendLine

__all__ = ["report"]

By = Literal["organisation", "tenant", "team", "user", "agent", "run", "node", "tier", "model", "outcome", "day"]

DEFAULT: tuple[By, ...] = ("tenant", "agent", "model")


def _file(what: str) -> Parameter:
    return Parameter(help=f"Write {what} to this file.")


def report(
    *,
    by: Annotated[
        tuple[By, ...],
        Parameter(
            help="What to sum by, several times for a combination; else tenant, agent and model.",
            negative="",
            show_default=False,
        ),
    ] = (),
    chosen: Chosen = LAST_30_DAYS,
    limit: Annotated[int, Parameter(help="Show so many lines at most.", validator=Number(gte=1, lte=10_000))] = 40,
    waste: Annotated[bool, flag("--waste", "Show what share of each line's cost was waste.")] = False,
    chart: Annotated[bool, flag("--chart", "Draw the days as bars, by the first group or by tier.")] = False,
    png: Annotated[Path | None, _file("the same as a picture, with the budget of one tenant, team or agent,")] = None,
    csv: Annotated[Path | None, _file("all lines as CSV")] = None,
    parquet: Annotated[Path | None, _file("all lines as Parquet")] = None,
    focus: Annotated[Path | None, _file("every charge as FOCUS 1.2, CSV or .parquet,")] = None,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """Sum up spending by any combination, and say what of it was waste."""
    from bursar.budget.reports.stack import stacked

    now = utc_now()
    selection = chosen.selection(now)
    groups = _groups(by or DEFAULT)
    with open_books(config) as books:
        reports = books.ledger.reports
        files = [*_written(reports, groups, selection, csv=csv, parquet=parquet, focus=focus)]
        if chart or png:
            stacks_of: tuple[Group, ...] = (*(group for group in _groups(by) if group != "day"), "tier")
            stack = stacked(reports.spend("day", stacks_of[0], selection=selection))
        if png:
            write_picture(png, books, chosen, selection, stack, now)
            files.append((png, 1))
        lines = [*islice(reports.spend(*groups, selection=selection), None if as_json else limit + 1)]
        total = next(reports.spend(selection=selection), None)
    if as_json:
        return print_json(report_json(groups, selection, lines, total))
    if total is None:
        console().print(f"nothing was spent since {selection.since:%d %b %Y}")
    elif chart:
        print_bars(stack)
    else:
        _print(groups, lines[:limit], total, waste=waste)
        if len(lines) > limit:
            console().print(f"and more: --limit {limit * 10}, or --csv FILE for all", style="dim", soft_wrap=True)
    for file, rows in files:
        console().print(Text(f"{plain(str(file))}: {counted(rows, 'row')}", style="dim"), soft_wrap=True)
    return None


def _groups(by: Sequence[By]) -> tuple[Group, ...]:
    return tuple(dict.fromkeys("run_id" if name == "run" else name for name in by))


def _written(
    reports: Reports,
    by: tuple[Group, ...],
    selection: Selection,
    *,
    csv: Path | None,
    parquet: Path | None,
    focus: Path | None,
) -> Iterator[tuple[Path, int]]:
    """Write the files that are asked for; what was written, and how many rows it has."""
    from bursar.budget.reports.export import write_csv, write_parquet
    from bursar.budget.reports.focus import COLUMNS, focus_rows
    from bursar.budget.reports.spend_table import spend_columns, spend_row

    for file, write in ((csv, write_csv), (parquet, write_parquet)):
        if file:
            rows = (spend_row(by, line) for line in reports.spend(*by, selection=selection))
            yield file, write(file, spend_columns(by), rows)
    if focus:
        charges = (row for charge in reports.charges(selection) for row in focus_rows(charge))
        write = write_parquet if focus.suffix == ".parquet" else write_csv
        yield focus, write(focus, COLUMNS, charges)


def _print(by: Sequence[Group], lines: Sequence[SpendLine], total: SpendLine, *, waste: bool) -> None:
    """A table with the sum of all lines, of what was used or of what was waste; then the waste in all."""
    wasted = [name for name, part in total.waste.parts() if part.calls]
    amounts = ("cost", *wasted) if waste else ("calls", "tokens", "cost")
    columns: list[Column] = ["run" if group == "run_id" else group for group in by]
    cells = _shares if waste else _amounts
    rows = [[*line.key, *cells(line, wasted)] for line in lines]
    in_all = ["in all", *[""] * (len(by) - 1), *cells(total, wasted)]
    print_table(
        [*columns, *((name, "right") for name in amounts)],
        [*rows, [Text(cell, style="bold") for cell in in_all]],
    )
    for name in wasted:
        part = getattr(total.waste, name)
        share = _share(part.nanousd, total.posted.nanousd)
        words = f"{name}: {format_usd(part.nanousd)} in {counted(part.calls, 'call')}, {share} of the cost"
        console().print(words, style="dim", soft_wrap=True)


def _amounts(line: SpendLine, _: Sequence[str]) -> list[str]:
    posted = line.posted
    return [f"{posted.steps:,}", f"{posted.tokens:,}", format_usd(posted.nanousd)]


def _shares(line: SpendLine, wasted: Sequence[str]) -> list[str]:
    cost = line.posted.nanousd
    return [format_usd(cost), *(_share(getattr(line.waste, name).nanousd, cost) for name in wasted)]


def _share(part: int, whole: int) -> str:
    if not (part and whole):
        return "-"
    return "<0.1%" if part * 1000 < whole else f"{part / whole:.1%}"
