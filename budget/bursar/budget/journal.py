"""The journal: every change of a balance or a limit as one row, appended in the transaction that makes the change."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from sqlalchemy import BindParameter, Connection, bindparam, insert, update

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.prepared import Prepared, Record
from bursar.budget.schema import account, entry

__all__ = ["NOTHING", "amounts_in", "columns_of", "journal", "move"]

NOTHING = Amounts()

_ENTRY = Prepared(
    insert(entry).values({column.name: bindparam(column.name) for column in entry.c if column.name != "seq"})
)


@lru_cache
def _move(count: int) -> Prepared:
    ids: list[BindParameter[int]] = [bindparam(f"id_{place}") for place in range(count)]
    changed = {
        f"{side}_{name}": account.c[f"{side}_{name}"] + bindparam(f"d_{side}_{name}")
        for side in ("held", "posted")
        for name in DIMENSIONS
    }
    return Prepared(update(account).where(account.c.id.in_(ids)).values(changed))


def columns_of(prefix: str, amounts: Amounts) -> dict[str, int]:
    """The amounts as column values: `held_nanousd`, `held_tokens`, ..."""
    return {
        f"{prefix}_nanousd": amounts.nanousd,
        f"{prefix}_tokens": amounts.tokens,
        f"{prefix}_steps": amounts.steps,
        f"{prefix}_tool_calls": amounts.tool_calls,
    }


def amounts_in(prefix: str, row: Record) -> Amounts:
    """The amounts in a row's columns."""
    return Amounts(*(row[f"{prefix}_{name}"] for name in DIMENSIONS))


def move(
    connection: Connection,
    *,
    kind: str,
    at_us: int,
    reservation_id: int,
    accounts: tuple[int, ...],
    held: Amounts = NOTHING,
    posted: Amounts = NOTHING,
    note: str | None = None,
) -> None:
    """Change the balance of every account of a reservation by the same amounts, and journal it."""
    changes = {**columns_of("d_held", held), **columns_of("d_posted", posted)}
    _move(len(accounts))(connection, {**changes, **{f"id_{place}": one for place, one in enumerate(accounts)}})
    journal(connection, kind=kind, at_us=at_us, reservation_id=reservation_id, held=held, posted=posted, note=note)


def journal(
    connection: Connection,
    *,
    kind: str,
    at_us: int,
    reservation_id: int | None = None,
    account_id: int | None = None,
    path: str | None = None,
    held: Amounts = NOTHING,
    posted: Amounts = NOTHING,
    limit: Mapping[str, int | None] | None = None,
    author: str | None = None,
    note: str | None = None,
) -> None:
    """Append one row; `limit` is by dimension, and only where a limit was set or granted."""
    _ENTRY(
        connection,
        {
            "kind": kind,
            "at_us": at_us,
            "reservation_id": reservation_id,
            "account_id": account_id,
            "path": path,
            **columns_of("held", held),
            **columns_of("posted", posted),
            **{f"limit_{name}": limit.get(name) if limit else None for name in DIMENSIONS},
            "author": author,
            "note": note,
        },
    )
