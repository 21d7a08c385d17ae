"""Checks every balance and every limit against what follows from the journal alone, and writes what follows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from bursar.budget.audit.links import PAGE, Finding
from bursar.budget.audit.tally import LIMIT, MOVED, Tallies, Tally
from bursar.budget.journal import claim, journal
from bursar.budget.schema import account, pot
from bursar.budget.scope import chain_of
from bursar.budget.stores.store import Store

__all__ = ["Wrong", "check_accounts", "rebuild"]

Wrong = dict[int, tuple[str, Mapping[str, int | None], Mapping[str, int | None]]]
"""The path of each account that is not as the journal says, with the columns as they are and as they should be."""

_ACCOUNTS = select(
    account, *(pot.c[name] for name in ("path", "per", "kind")), *(pot.c[name].label(f"pot_{name}") for name in LIMIT)
).join(pot)


def check_accounts(connection: Connection, tallies: Tallies, wrong: Wrong) -> Iterator[Finding]:
    """Compare every account, in the order of their ids; those whose amounts differ are put into `wrong`."""
    after: int | None = -(2**63)
    while after is not None:
        of_page = _ACCOUNTS.where(account.c.id > after).order_by(account.c.id).limit(PAGE)
        rows = connection.execute(of_page).mappings().all()
        last = rows[-1]["id"] if len(rows) == PAGE else None
        said = tallies.between(after, last)
        for row in rows:
            tally = said.pop(row["id"], None)
            name = f"account {row['id']} ({' '.join(filter(None, [row['path'], 'per', row['per'], row['window']]))})"
            for problem in _problems(row, tally, wrong):
                yield Finding(chain=chain_of(row["path"]), what=name, problem=problem)
        for key in said:
            yield Finding(what=f"account {key}", problem="is missing; the journal has entries of it")
        after = last


def rebuild(store: Store, wrong: Wrong, *, author: str, now: int) -> int:
    """Write the balances that follow from the journal where they differ; returns how many accounts were changed.

    What calls moved in the meantime stays moved: an amount is corrected by how far it was off.
    """
    for key, (path, was, due) in wrong.items():
        with store.write(durable=True) as connection:
            claim(connection, [chain_of(path)])
            values = {name: _corrected(name, was[name], of) for name, of in due.items()}
            connection.execute(update(account).where(account.c.id == key).values(values))
            journal(
                connection,
                chain=chain_of(path),
                kind="rebuild",
                at_us=now,
                accounts=json.dumps([key]),
                path=path,
                author=author,
                detail={"was": dict(was), "is": dict(due)},
            )
    return len(wrong)


def _corrected(name: str, was: Any, due: int | None) -> Any:
    """A limit as it should be; an amount moved by how far it was off, where it was a number at all."""
    return account.c[name] + due - was if name in MOVED and type(was) is int else due


def _problems(row: RowMapping, tally: Tally | None, wrong: Wrong) -> Iterator[str]:
    if tally is None or tally.base is None:
        yield "the journal does not say that it was opened"
        return
    due: dict[str, Any] = {**dict(zip(MOVED, tally.moved, strict=True)), **dict(zip(LIMIT, tally.limit, strict=True))}
    off = {name: amount for name, amount in due.items() if row[name] != amount}
    if off:
        wrong[row["id"]] = (row["path"], {name: row[name] for name in off}, off)
    for name, amount in off.items():
        yield f"{name} is {row[name]}; its entries come to {amount}"
    if tally.path != row["path"]:
        yield f"it is of {row['path']}; its entries are of {tally.path}"
    of_pot = tuple(row[f"pot_{name}"] for name in LIMIT)
    if row["kind"] == "run" and of_pot != tally.base:
        yield f"the limits of its run are {of_pot}; it was opened with {tally.base}"
