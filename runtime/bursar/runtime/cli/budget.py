"""`bursar budget ls | set | grant`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

from cyclopts import Parameter

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import UsageError
from bursar.budget.money import nanousd
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.options import (
    CONFIG_FILE,
    AsJson,
    By,
    ConfigFile,
    Count,
    CountOrNone,
    DryRun,
    Period,
    Usd,
    UsdOrNone,
    author,
    flag,
)
from bursar.runtime.cli.output import Column, console, print_json, print_next, print_table
from bursar.runtime.cli.shapes import budget_json, limit_json
from bursar.runtime.cli.words import bare, plain, shown, shown_left

if TYPE_CHECKING:
    from bursar.budget.budgets import BudgetLine

__all__ = ["grant", "ls", "set_"]

BudgetPath = Annotated[str, Parameter(name="PATH", help="A tenant (acme) or one of its agents (acme/support).")]


def ls(
    path: Annotated[str | None, Parameter(name="PATH", help="Only this tenant or agent, and what is below.")] = None,
    /,
    *,
    runs: Annotated[bool, flag("--runs", "Those of single runs too.")] = False,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """List budgets with what is spent, held and left."""
    with open_books(config) as books:
        lines = books.ledger.budgets.ls(path, runs=runs)
    if as_json:
        print_json([budget_json(line) for line in lines])
    elif not lines:
        console().print("no budgets")
        print_next([f"bursar budget set {path or 'TENANT'} --usd 5 --per month"], config)
    else:
        _print(lines)


def set_(
    path: BudgetPath,
    /,
    *,
    usd: Annotated[UsdOrNone, Parameter(help="Dollars; `none` takes the limit away.")] = None,
    tokens: Annotated[CountOrNone, Parameter(help="Input and output tokens together, or `none`.")] = None,
    steps: Annotated[CountOrNone, Parameter(help="Model calls, or `none`.")] = None,
    tool_calls: Annotated[CountOrNone, Parameter(help="Tool executions, or `none`.")] = None,
    per: Annotated[Period, Parameter(help="The window; several budgets of one path hold at once.")] = "total",
    zone: Annotated[str | None, Parameter(help="The IANA time zone of the window, such as Europe/Paris.")] = None,
    by: By = None,
    note: Annotated[str, Parameter(help="Why; kept in the journal.")] = "",
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Set the limits of a tenant or of one of its agents."""
    given = {"nanousd": usd, "tokens": tokens, "steps": steps, "tool_calls": tool_calls}
    limit = {name: _limit(value) for name, value in given.items() if value is not None}
    if not limit:
        raise UsageError("nothing to set", next_step=f"bursar budget set {path} --usd 5 --per {per}")
    from bursar.runtime.tenants import tenant_of

    with open_books(config) as books:
        tenant_of(books.config, path.split("/")[0])
        budgets = books.ledger.budgets
        if dry_run:
            before = [line for line in budgets.ls(path) if (line.path, line.per) == (path, per)]
            return _would("set", f"{path} per {per}", limit, before, as_json=as_json)
        line = budgets.set(path, per=per, zone=zone, limit=limit, author=author(by), note=note)
    return print_json(budget_json(line)) if as_json else _print([line])


def grant(
    path: Annotated[str, Parameter(name="PATH", help="A tenant, an agent, or a run (acme/support/run_...).")],
    /,
    *,
    usd: Annotated[Usd, Parameter(help="Dollars.")] = None,
    tokens: Annotated[Count, Parameter(help="Input and output tokens together.")] = None,
    steps: Annotated[Count, Parameter(help="Model calls.")] = None,
    tool_calls: Annotated[Count, Parameter(help="Tool executions.")] = None,
    per: Annotated[Period | None, Parameter(help="Which budget, where the path has several.")] = None,
    by: By = None,
    note: Annotated[str, Parameter(help="Why; kept in the journal.")] = "",
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give a tenant, an agent or a run more, in its present window."""
    amount = Amounts(nanousd(usd or 0), tokens or 0, steps or 0, tool_calls or 0)
    with open_books(config) as books:
        budgets = books.ledger.budgets
        if dry_run:
            before = [line for line in budgets.ls(path, runs=True) if line.path == path and per in (None, line.per)]
            given = {name: getattr(amount, name) for name in DIMENSIONS if getattr(amount, name)}
            return _would("grant", path, given, before, as_json=as_json)
        line = budgets.grant(path, amount, author=author(by), note=note, per=per)
    return print_json(budget_json(line)) if as_json else _print([line])


def _limit(value: Decimal | int | str) -> int | None:
    if isinstance(value, Decimal):
        return nanousd(value)
    return value if isinstance(value, int) else None


def _would(verb: str, path: str, given: Mapping[str, int | None], now: Sequence[BudgetLine], *, as_json: bool) -> None:
    if as_json:
        lines = [budget_json(line) for line in now]
        return print_json({"dry_run": True, "path": path, verb: limit_json(given), "now": lines})
    what = ", ".join(_amount(name, value) for name, value in given.items())
    console().print(f"would {verb} {plain(path)}: {what or 'nothing'}; nothing was changed", soft_wrap=True)
    return _print(now) if now else None


def _print(lines: Sequence[BudgetLine]) -> None:
    held = any(line.held for line in lines)
    amounts = ("spent", "held", "limit", "left") if held else ("spent", "limit", "left")
    columns: list[Column] = [("budget", "whole"), "window", *((name, "right") for name in amounts)]
    print_table(columns, [row for line in lines for row in _rows(line, held=held)])
    for text in sorted({_ends(line, line.resets_at) for line in lines if line.resets_at}):
        console().print(text, style="dim")


def _amount(dimension: str, value: int | None) -> str:
    unit = "USD" if dimension == "nanousd" else dimension.replace("_", " ")
    return f"no limit in {unit}" if value is None else shown(dimension, value)


def _ends(line: BudgetLine, at: datetime) -> str:
    return f"{line.window} ends {at.astimezone(ZoneInfo(line.zone)).isoformat(timespec='minutes')}"


def _rows(line: BudgetLine, *, held: bool) -> Iterator[tuple[str, ...]]:
    """A row for each dimension that has a limit; one with the money that was spent where none has."""
    named = [line.path.split("/", 2)[-1] if line.kind == "run" else line.path, line.window or "total"]
    for name in [name for name in DIMENSIONS if line.limit[name] is not None] or ["nanousd"]:
        limit, posted = line.limit[name], getattr(line.posted, name)
        reserved = [bare(shown(name, getattr(line.held, name)))] if held else []
        left = bare(shown_left(name, limit, posted))
        yield *named, bare(shown(name, posted)), *reserved, shown(name, limit), left
        named = ["", ""]
