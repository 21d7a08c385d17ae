"""`bursar budget grant | grants | revoke`: more allowance in one window, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.text import Text

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import NotFoundError, UsageError
from bursar.budget.money import nanousd
from bursar.runtime.cli.books import open_books, require_known
from bursar.runtime.cli.budget import amounts_text, print_budgets, print_would
from bursar.runtime.cli.moments import ahead
from bursar.runtime.cli.options import (
    CONFIG_FILE,
    AsJson,
    By,
    ConfigFile,
    Count,
    DryRun,
    Period,
    Reason,
    Usd,
    author,
)
from bursar.runtime.cli.output import Column, console, print_json, print_next, print_table
from bursar.runtime.cli.shapes import amounts_json, budget_json, grant_json
from bursar.runtime.cli.words import plain, shown_time

if TYPE_CHECKING:
    from bursar.budget.budgets import BudgetLine, GrantLine

__all__ = ["grant", "grants", "revoke"]

_COLUMNS: Sequence[Column] = (
    ("id", "right"),
    ("budget", "whole"),
    "window",
    ("granted", "right"),
    ("when", "whole"),
    ("state", "whole"),
    "by",
    "why",
)


def grant(
    path: Annotated[str, Parameter(name="PATH", help="A budget's path, or a run's (acme/support/run_...).")],
    /,
    *,
    usd: Annotated[Usd, Parameter(help="Dollars.")] = None,
    tokens: Annotated[Count, Parameter(help="Input and output tokens together.")] = None,
    steps: Annotated[Count, Parameter(help="Model calls.")] = None,
    tool_calls: Annotated[Count, Parameter(help="Tool executions.")] = None,
    per: Annotated[Period | None, Parameter(help="Which budget, where the path has several.")] = None,
    expires: Annotated[
        str | None, Parameter(help="Until when: 2h, 7d, 2026-12-01; what is unused is taken back.")
    ] = None,
    by: By = None,
    reason: Reason = "",
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give a budget or a run more, in its present window."""
    amount = Amounts(nanousd(usd or 0), tokens or 0, steps or 0, tool_calls or 0)
    with open_books(config) as books:
        budgets = books.ledger.budgets
        before = [line for line in budgets.ls(path, runs=True) if line.path == path and per in (None, line.per)]
        expires_at = None if expires is None else ahead(expires, before[0].zone if before else "UTC")
        if dry_run:
            until = f"until {expires_at.isoformat(timespec='minutes')}" if expires_at else ""
            return print_would("grant", path, _given(amount), before, policy=until, as_json=as_json)
        line = budgets.grant(path, amount, author=author(by), note=reason, per=per, expires_at=expires_at)
        made = budgets.grants(path)[0]
    if as_json:
        return print_json({**budget_json(line), "grant": grant_json(made)})
    print_budgets([line])
    return print_next([f"bursar budget revoke {made.id}"], config)


def grants(
    path: Annotated[str | None, Parameter(name="PATH", help="Only those of this budget, and what is below.")] = None,
    /,
    *,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """List grants, the newest first, with what was taken back of them."""
    with open_books(config) as books:
        found = books.ledger.budgets.grants(path)
        if path and not found:
            require_known(books.config, path)
    if as_json:
        print_json([grant_json(one) for one in found])
    elif not found:
        console().print("no grants")
        print_next([f"bursar budget grant {path or 'TENANT'} --usd 5"], config)
    else:
        print_table(_COLUMNS, [_row(one) for one in found])


def revoke(
    grant_id: Annotated[int, Parameter(name="ID", help="A grant's number, as `bursar budget grants` lists it.")],
    /,
    *,
    by: By = None,
    reason: Reason = "",
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take back what is unused of a grant."""
    with open_books(config) as books:
        budgets = books.ledger.budgets
        if dry_run:
            return _would_revoke(_found(budgets.grants(), grant_id), as_json=as_json)
        taken = budgets.revoke(grant_id, author=author(by), note=reason)
        line = _line_of(_found(budgets.grants(), grant_id), budgets.ls(runs=True))
    if as_json:
        return print_json({"grant": grant_id, "taken_back": amounts_json(taken), "budget": budget_json(line)})
    what = f"{amounts_text(_given(taken))} taken back" if taken else "nothing was left to take back"
    console().print(f"grant {grant_id}: {what}", soft_wrap=True)
    return print_budgets([line])


def _given(amount: Amounts) -> dict[str, int | None]:
    return {name: getattr(amount, name) for name in DIMENSIONS if getattr(amount, name)}


def _found(lines: Sequence[GrantLine], grant_id: int) -> GrantLine:
    for line in lines:
        if line.id == grant_id:
            return line
    raise NotFoundError(f"there is no grant {grant_id}", next_step="bursar budget grants")


def _line_of(given: GrantLine, lines: Sequence[BudgetLine]) -> BudgetLine:
    return next(line for line in lines if (line.path, line.per) == (given.path, given.per))


def _would_revoke(given: GrantLine, *, as_json: bool) -> None:
    if given.ended_at is not None:
        raise UsageError(f"grant {given.id} ended at {given.ended_at:%Y-%m-%d %H:%M} already")
    if as_json:
        return print_json({"dry_run": True, "revoke": grant_json(given)})
    what = f"what is unused of {amounts_text(_given(given.amount))} for {plain(given.path)}"
    return console().print(f"would take back {what}; nothing was changed", soft_wrap=True)


def _row(given: GrantLine) -> tuple[str | Text, ...]:
    amount, when = amounts_text(_given(given.amount)), shown_time(given.granted_at)
    return (str(given.id), given.path, given.window or "total", amount, when, _state(given), given.author, given.note)


def _state(given: GrantLine) -> str | Text:
    if given.ended_at is not None:
        taken = amounts_text(_given(given.taken)) or "nothing"
        return Text(f"ended, {taken} taken back", style="dim")
    return "in force" if given.expires_at is None else f"until {given.expires_at:%d %b %Y %H:%M} UTC"
