"""`bursar budget ls`: what may be spent, as a tree of scopes, and how much of it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

from cyclopts import Parameter
from rich.text import Text

from bursar.budget.amounts import DIMENSIONS
from bursar.runtime.cli.books import open_books, require_known
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, flag
from bursar.runtime.cli.output import Column, console, print_json, print_next, print_table
from bursar.runtime.cli.shapes import budget_json, limit_json
from bursar.runtime.cli.words import bare, plain, shown, shown_left

if TYPE_CHECKING:
    from bursar.budget.budgets import BudgetLine

__all__ = ["amounts_text", "ls", "print_budgets", "print_would", "reset_text", "used_up"]

BAR_CELLS = 12
WIDE = 110
"""From so many columns on there is room for a bar."""


def ls(
    path: Annotated[str | None, Parameter(name="PATH", help="Only this budget, and what is below.")] = None,
    /,
    *,
    runs: Annotated[bool, flag("--runs", "Those of single runs too.")] = False,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """List budgets with what is spent, held and left."""
    with open_books(config) as books:
        lines = books.ledger.budgets.ls(path, runs=runs)
        if path and not lines:
            require_known(books.config, path)
    if as_json:
        print_json([budget_json(line) for line in lines])
    elif not lines:
        console().print("no budgets")
        print_next([f"bursar budget set {path or 'TENANT'} --usd 5 --per month"], config)
    else:
        print_budgets(lines)


def print_budgets(lines: Sequence[BudgetLine]) -> None:
    """A table of budgets, each below the one that it is a part of; then their policies, and when their windows end."""
    held = any(line.held for line in lines)
    amounts = ("spent", "held", "limit", "left") if held else ("spent", "limit", "left")
    columns: list[Column] = [("budget", "whole"), ("window", "whole"), ("used", "whole")]
    columns += [(name, "right") for name in amounts]
    rows = [row for name, line in _tree(lines) for row in _rows(line, name, held=held)]
    print_table(columns, rows)
    policies = [f"{line.path} per {line.per}: {_policy(line)}" for line in lines if _policy(line)]
    for text in policies + sorted({_ends(line) for line in lines if line.resets_at}):
        console().print(text, style="dim", soft_wrap=True)


def print_would(
    verb: str, path: str, given: Mapping[str, int | None], now: Sequence[BudgetLine], *, policy: str, as_json: bool
) -> None:
    """What a dry run would have done, and how it stands."""
    if as_json:
        lines = [budget_json(line) for line in now]
        return print_json({"dry_run": True, "path": path, verb: limit_json(given), "now": lines})
    what = ", ".join([amounts_text(given)] * bool(given) + [policy] * bool(policy))
    console().print(f"would {verb} {plain(path)}: {what or 'nothing'}; nothing was changed", soft_wrap=True)
    return print_budgets(now) if now else None


def amounts_text(given: Mapping[str, int | None]) -> str:
    """Limits in words: `$5.00, no limit in steps`."""
    return ", ".join(_amount(name, value) for name, value in given.items())


def used_up(line: BudgetLine) -> Iterator[str]:
    """A sentence for each hard limit that leaves nothing, since more was used than it allows now."""
    for name, limit in line.limit.items():
        posted = getattr(line.posted, name)
        if limit is None or line.mode == "soft" or posted < limit * (100 + line.overdraft_percent) // 100:
            continue
        resets = line.resets_at if limit else None  # a new window of nothing is nothing, too
        until = reset_text(line, resets) if resets else "it is raised or granted more"
        used = f"{shown(name, posted)} of {shown(name, limit)}"
        yield f"{line.path} has used {used}: nothing more is admitted until {until}"


def reset_text(line: BudgetLine, at: datetime) -> str:
    """A time in the budget's own zone."""
    return at.astimezone(ZoneInfo(line.zone)).isoformat(timespec="minutes")


def _tree(lines: Sequence[BudgetLine]) -> Iterator[tuple[str, BudgetLine]]:
    """The lines, each below what it is a part of, with its name moved in and without the name of that."""
    listed = {line.path for line in lines}
    above = {line.path: _above(line, listed) for line in lines}

    def way(path: str) -> tuple[str, ...]:
        parent = above[path]
        return (path,) if parent is None else (*way(parent), path)

    for line in sorted(lines, key=lambda line: way(line.path)):
        parent = above[line.path] if "/" in line.path else None
        yield "  " * (len(way(line.path)) - 1) + line.path.removeprefix(f"{parent}/"), line


def _above(line: BudgetLine, listed: Collection[str]) -> str | None:
    """The nearest listed budget of which this one is a part."""
    if "/" not in line.path:
        return line.parent if line.parent in listed else None
    path = line.path
    while (path := path.rpartition("/")[0]) and path not in listed:
        pass
    return path or None


def _rows(line: BudgetLine, name_shown: str, *, held: bool) -> Iterator[tuple[str | Text, ...]]:
    """A row for each dimension that has a limit; one with the money that was spent where none has."""
    first = [name_shown, _window(line)]
    soft = "soft " if line.mode == "soft" else ""
    for name in [name for name in DIMENSIONS if line.limit[name] is not None] or ["nanousd"]:
        limit, posted = line.limit[name], getattr(line.posted, name)
        reserved = [bare(shown(name, getattr(line.held, name)))] if held else []
        left = bare(shown_left(name, limit, posted))
        yield *first, _used(line, name), bare(shown(name, posted)), *reserved, f"{soft}{shown(name, limit)}", left
        first = ["", ""]


def _window(line: BudgetLine) -> str:
    """The window's name; of an hour, `20 Nov 19 h`."""
    if line.per == "hour":
        return f"{datetime.fromisoformat(line.window):%d %b %H} h"
    return line.window or "total"


def _used(line: BudgetLine, name: str) -> Text:
    """How much of a limit is spent, dark, and held, light: as a bar where there is room, and in percent."""
    limit = line.limit[name]
    if limit is None:
        return Text("-", style="dim")
    posted, held = getattr(line.posted, name), getattr(line.held, name)
    percent = 100 if not limit else -(-posted * 100 // limit)
    colour = "red" if percent >= 100 else "yellow" if percent >= 80 else "green"
    spent_cells = min(BAR_CELLS, posted * BAR_CELLS // limit) if limit else BAR_CELLS
    held_cells = min(BAR_CELLS - spent_cells, -(-held * BAR_CELLS // limit)) if limit else 0
    bar = ("█" * spent_cells, colour), ("▒" * held_cells, colour), ("·" * (BAR_CELLS - spent_cells - held_cells), "dim")
    return Text.assemble(*(bar if console().width >= WIDE else ()), (f"{percent:>4} %", colour))


def _policy(line: BudgetLine) -> str:
    said = {
        f"rollover {line.rollover_percent} %": line.rollover_percent,
        f"overdraft {line.overdraft_percent} %": line.overdraft_percent,
        "oversubscribed": line.oversubscribed,
        f"alerts at {', '.join(map(str, line.alerts))} %": line.alerts,
    }
    return ", ".join(text for text, holds in said.items() if holds)


def _amount(dimension: str, value: int | None) -> str:
    unit = "USD" if dimension == "nanousd" else dimension.replace("_", " ")
    return f"no limit in {unit}" if value is None else shown(dimension, value)


def _ends(line: BudgetLine) -> str:
    at = reset_text(line, line.resets_at) if line.resets_at else ""
    return f"{_window(line)} {'frees up from' if line.per.startswith('rolling') else 'ends'} {at} ({line.zone})"
