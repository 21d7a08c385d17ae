"""`bursar budget history`: who changed which limit, grant, price, policy or gate, when and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bursar.runtime.cli.books import open_books, require_known
from bursar.runtime.cli.budget import amounts_text
from bursar.runtime.cli.moments import moment, zone_of
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile
from bursar.runtime.cli.output import Column, console, print_json, print_table
from bursar.runtime.cli.shapes import limit_json, time_json
from bursar.runtime.cli.words import short, shown_time

if TYPE_CHECKING:
    from bursar.budget.audit.changes import Change

__all__ = ["history"]

_COLUMNS: Sequence[Column] = (("when", "whole"), "by", ("what", "whole"), "of", "amount", "why")


def history(
    path: Annotated[
        str | None, Parameter(name="PATH", help="Only what was changed of this, and what is below.")
    ] = None,
    /,
    *,
    author: Annotated[str | None, Parameter(help="Only what this person changed.")] = None,
    since: Annotated[str | None, Parameter(help="From when on: 30d or 12h ago, a day or a time.")] = None,
    zone: Annotated[str, Parameter(help="The IANA time zone of that day or time.")] = "UTC",
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """Say who changed which limit, grant, price or policy, when and why."""
    from bursar.budget.audit.changes import changes  # with SQLAlchemy

    begins = None if since is None else moment(since, zone_of(zone), datetime.now(UTC))
    with open_books(config) as books:
        found = changes(books.ledger.store, path, author=author, since=begins)
        if path and not found:
            require_known(books.config, path)
    if as_json:
        print_json([_as_json(one) for one in found])
    elif found:
        print_table(_COLUMNS, [_row(one) for one in found])
    else:
        console().print("no changes")


def _row(change: Change) -> tuple[str, ...]:
    of = f"{change.path} per {change.per}" if change.per else change.path
    given = {name: value for name, value in change.limit.items() if value is not None}
    amount = amounts_text(given) or ("no limit" if change.kind == "limit" else "")
    return shown_time(change.at), change.author or "-", change.kind.replace("_", " "), of, amount, _why(change)


def _why(change: Change) -> str:
    """Its reason; of a refusal, what was left where: `bursar budget why` has the rest."""
    return short(change.note).partition("; this call needs")[0]


def _as_json(change: Change) -> dict[str, Any]:
    return {
        "at": time_json(change.at),
        "path": change.path,
        "kind": change.kind,
        "per": change.per,
        "amount": limit_json(change.limit),
        "author": change.author,
        "note": change.note,
        "entry": f"{change.chain}:{change.number}",
    }
