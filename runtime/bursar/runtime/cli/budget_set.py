"""`bursar budget set`: a budget's limits and its policy."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from cyclopts import Parameter

from bursar.budget.errors import UsageError
from bursar.budget.money import nanousd
from bursar.runtime.cli.books import open_books, require_known
from bursar.runtime.cli.budget import print_budgets, print_would, used_up
from bursar.runtime.cli.options import (
    CONFIG_FILE,
    AsJson,
    By,
    ConfigFile,
    Count,
    CountOrNone,
    DryRun,
    Period,
    Reason,
    UsdOrNone,
    author,
)
from bursar.runtime.cli.output import print_json, print_words
from bursar.runtime.cli.shapes import budget_json

__all__ = ["set_"]

_PATH = "acme, acme/support, acme/team:red, acme/user:dana, acme/support/node:draft or org:globex."


def set_(
    path: Annotated[str, Parameter(name="PATH", help=_PATH)],
    /,
    *,
    usd: Annotated[UsdOrNone, Parameter(help="Dollars; `none` takes the limit away.")] = None,
    tokens: Annotated[CountOrNone, Parameter(help="Input and output tokens together, or `none`.")] = None,
    steps: Annotated[CountOrNone, Parameter(help="Model calls, or `none`.")] = None,
    tool_calls: Annotated[CountOrNone, Parameter(help="Tool executions, or `none`.")] = None,
    per: Annotated[Period, Parameter(help="hour, day, week, month, total, or rolling-24h, rolling-7d.")] = "total",
    zone: Annotated[str | None, Parameter(help="The IANA time zone of the window, such as Europe/Paris.")] = None,
    soft: Annotated[
        bool | None, Parameter(name="--soft", negative="--hard", help="Refuse nothing, only show and tell.")
    ] = None,
    rollover: Annotated[Count, Parameter(help="So many percent, where unused, come into the next window.")] = None,
    overdraft: Annotated[Count, Parameter(help="So many percent may be used in advance, owed to the next.")] = None,
    oversubscribe: Annotated[
        bool | None, Parameter(negative="--no-oversubscribe", help="Let its parts sum up to more than it has.")
    ] = None,
    alert: Annotated[
        list[int] | None, Parameter(negative="--no-alerts", help="Tell at so many percent; may be repeated.")
    ] = None,
    by: By = None,
    reason: Reason = "",
    config: ConfigFile = CONFIG_FILE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Set the limits of an organisation, a tenant, a team, a user, an agent or a node."""
    given = {"nanousd": usd, "tokens": tokens, "steps": steps, "tool_calls": tool_calls}
    limit = {name: _limit(value) for name, value in given.items() if value is not None}
    said: dict[str, Any] = {
        "zone": zone,
        "mode": None if soft is None else "soft" if soft else "hard",
        "rollover_percent": rollover,
        "overdraft_percent": overdraft,
        "oversubscribed": oversubscribe,
        "alerts": alert,
    }
    policy = {name: value for name, value in said.items() if value is not None}
    if not limit and not policy:
        raise UsageError("nothing to set", next_step=f"bursar budget set {path} --usd 5 --per {per}")
    with open_books(config) as books:
        require_known(books.config, path)
        budgets = books.ledger.budgets
        if dry_run:
            before = [line for line in budgets.ls(path) if (line.path, line.per) == (path, per)]
            return print_would("set", f"{path} per {per}", limit, before, policy=_described(policy), as_json=as_json)
        line = budgets.set(path, per=per, limit=limit, author=author(by), note=reason, **policy)
    if as_json:
        return print_json(budget_json(line))
    print_budgets([line])
    for sentence in used_up(line):
        print_words(sentence)
    return None


def _limit(value: Decimal | int | str) -> int | None:
    if isinstance(value, Decimal):
        return nanousd(value)
    return value if isinstance(value, int) else None


def _described(policy: Mapping[str, Any]) -> str:
    """A policy in words: `mode soft, rollover 50`."""
    said = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in policy.items()}
    return ", ".join(f"{name.removesuffix('_percent')} {value}" for name, value in said.items())
