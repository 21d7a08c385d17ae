"""New limits for a run that is under way, and holding it up: what a person changes while it works."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from bursar.budget.accounts import limit_window, open_window
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import NotFoundError
from bursar.budget.gate import reopen
from bursar.budget.grants import granted
from bursar.budget.journal import claim, journal
from bursar.budget.limits import Limits
from bursar.budget.schema import account, pot
from bursar.budget.scope import chain_of
from bursar.budget.stores.prepared import Record

__all__ = ["Amount", "Retuned", "limits_of", "pause", "retune"]

_SECOND_US = 1_000_000

Amount = int | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retuned:
    """A run's limits before and after, by `nanousd`, `tokens`, `steps`, `tool_calls` and `seconds`; None = none."""

    before: Mapping[str, Amount]
    after: Mapping[str, Amount]


def limits_of(connection: Connection, path: str) -> dict[str, Amount]:
    """A run's limits with all that it was granted, by the names of `Retuned`; raises NotFoundError."""
    row = _run(connection, path)
    amounts: dict[str, Amount] = {name: _window(connection, row)[f"limit_{name}"] for name in DIMENSIONS}
    seconds = row["seconds_us"]
    return amounts | {"seconds": None if seconds is None else seconds / _SECOND_US}


def retune(connection: Connection, path: str, limits: Limits, now: int, *, author: str, note: str = "") -> Retuned:
    """Set the limits of a run that were written down in `limits`, in place of its limits and what it was granted.

    What was spent stays spent: under a limit below that, the next call is refused. A run that its own limit stopped
    goes on where one is raised. `now` is in microseconds. Raises NotFoundError for an unknown run.
    """
    claim(connection, [chain_of(path)])
    row, before = _run(connection, path), limits_of(connection, path)
    new = {name: value for name, value in _written(limits).items() if value != before[name]}
    if not new:
        return Retuned(before=before, after=before)
    window = _window(connection, row)
    more = granted(connection, window["id"])
    values: dict[str, Amount] = {
        f"limit_{name}": None if of is None else of - getattr(more, name)
        for name, of in new.items()
        if name in DIMENSIONS
    }
    if "seconds" in new:
        values["seconds_us"] = None if new["seconds"] is None else int(new["seconds"] * _SECOND_US)
    connection.execute(update(pot).where(pot.c.id == row["id"]).values(**values))
    row = _run(connection, path)
    account_id = open_window(connection, row, now)
    limit_window(connection, row, account_id)
    after = limits_of(connection, path)
    journal(
        connection,
        chain=chain_of(path),
        kind="retune",
        at_us=now,
        accounts=json.dumps([account_id]),
        path=path,
        limit={name: row[f"limit_{name}"] for name in DIMENSIONS},
        author=author,
        note=note,
        detail={"before": before, "after": after},
    )
    if any(_is_more(of, before[name]) for name, of in new.items()):
        reopen(connection, path)
    return Retuned(before=before, after=after)


def pause(connection: Connection, path: str, now: int, *, on: bool, author: str, note: str = "") -> bool:
    """Refuse every further call of a run until it is let go on, without stopping it; returns whether that is new."""
    claim(connection, [chain_of(path)])
    row = _run(connection, path)
    if (row["paused_us"] is not None) == on:
        return False
    values = {"paused_us": now, "paused_by": author} if on else {"paused_us": None, "paused_by": None}
    connection.execute(update(pot).where(pot.c.id == row["id"]).values(**values))
    kind = "pause" if on else "unpause"
    journal(connection, chain=chain_of(path), kind=kind, at_us=now, path=path, author=author, note=note)
    return True


def _written(limits: Limits) -> dict[str, Amount]:
    of_all = {**limits.as_amounts_limit(), "seconds": limits.seconds}
    return {name: of for name, of in of_all.items() if name in limits.given}


def _is_more(new: Amount, old: Amount) -> bool:
    return old is not None and (new is None or new > old)


def _window(connection: Connection, row: Record) -> Record:
    """The account of a run, whose window has no end."""
    return connection.execute(select(account).where(account.c.pot_id == row["id"])).mappings().one()


def _run(connection: Connection, path: str) -> Record:
    row = connection.execute(select(pot).where(pot.c.path == path, pot.c.kind == "run")).mappings().first()
    if row is None:
        raise NotFoundError(f"there is no run {path}", next_step="bursar runs ls")
    return row
