"""Who changed which limit, grant, price, policy or gate, when and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from bursar.budget.accounts import within
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.audit.tally import account_ids
from bursar.budget.schema import account, entry, pot, summary
from bursar.budget.stores.prepared import Record
from bursar.budget.stores.store import Store
from bursar.budget.windows import from_us, to_us

__all__ = ["ROUTINE", "Change", "changes"]

ROUTINE = ("open", "window", "carry")
"""What nobody decided: a run or a window begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of the journal that somebody is answerable for."""

    at: datetime
    path: str
    """The scope; of a price, `provider/model`."""

    kind: str
    """`limit`, `grant`, `take_back`, `price`, `policy`, `stop`, `reopen`, `extend`, `cancel`, `rebuild`, `compact`."""

    per: str | None
    """The period of the budget that was changed, where it was one."""

    limit: Mapping[str, int | None]
    """The new limit, or the amount that was granted or taken back, by dimension."""

    author: str | None
    """None where the ledger did it by itself: a run was stopped at a limit."""

    note: str
    """Why."""

    chain: str
    number: int
    """Where it stands in the journal."""


def changes(
    store: Store, path: str | None = None, *, author: str | None = None, since: datetime | None = None
) -> list[Change]:
    """Every change, or those at and below a path, the newest first; also those whose entries were rolled up."""
    with store.read() as connection:
        found = [*_rolled_up(connection, path), *_entries(connection, path)]
        periods = _periods(connection, found)
    since_us = None if since is None else to_us(since)
    chosen = [
        _change(row, periods)
        for row in found
        if author in (None, row["author"]) and (since_us is None or row["at_us"] >= since_us)
    ]
    return sorted(chosen, key=lambda one: (one.at, one.chain, one.number), reverse=True)


def _entries(connection: Connection, path: str | None) -> Iterable[RowMapping]:
    query = select(entry).where(entry.c.path.is_not(None), entry.c.kind.not_in(ROUTINE))
    if path is not None:
        query = query.where(within(path, entry.c.path))
    return connection.execute(query).mappings()


def _rolled_up(connection: Connection, path: str | None) -> Iterator[Record]:
    for record in connection.execute(select(summary.c.changes)).scalars():
        for row in json.loads(record):
            below = path is None or row["path"] == path or str(row["path"]).startswith(f"{path}/")
            if row["path"] is not None and row["kind"] not in ROUTINE and below:
                yield row


def _periods(connection: Connection, rows: Iterable[Record]) -> dict[int, str]:
    """The periods of the budgets that these entries changed, by account."""
    ids = {key for row in rows for key in account_ids(row["accounts"])}
    query = select(account.c.id, pot.c.per).join(pot).where(account.c.id.in_(ids), pot.c.kind != "run")
    return {row[0]: row[1] for row in connection.execute(query)}


def _change(row: Any, periods: Mapping[int, str]) -> Change:
    key = next(iter(account_ids(row["accounts"])), 0)
    return Change(
        at=from_us(row["at_us"]),
        path=row["path"],
        kind=row["kind"],
        per=periods.get(key),
        limit={name: row[f"limit_{name}"] for name in DIMENSIONS},
        author=row["author"],
        note=row["note"] or "",
        chain=row["chain"],
        number=row["number"],
    )
