"""Pots and the accounts of their present windows, as every transaction reads them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, and_, bindparam, func, insert, or_, select, update

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.errors import LedgerError
from bursar.budget.prepared import Prepared, Record
from bursar.budget.schema import account, pot
from bursar.budget.windows import from_us, window_at

__all__ = ["CURRENT", "create_pot", "current", "open_window", "within"]

CURRENT = select(
    pot,
    account.c.id.label("account_id"),
    account.c.window,
    account.c.ends_us,
    *(account.c[f"limit_{name}"].label(f"window_limit_{name}") for name in DIMENSIONS),
    *(account.c[f"{side}_{name}"] for side in ("posted", "held") for name in DIMENSIONS),
).select_from(
    pot.outerjoin(
        account,
        and_(
            account.c.pot_id == pot.c.id,
            account.c.starts_us <= bindparam("now"),
            account.c.ends_us > bindparam("now"),
        ),
    )
)
"""Pots with the account of the window that holds `:now`; its columns are NULL until the window is first used."""


@lru_cache
def _of_paths(count: int) -> Prepared:
    names: list[BindParameter[str]] = [bindparam(f"path_{place}") for place in range(count)]
    # One order for all, so that row locks never cross.
    return Prepared(CURRENT.where(pot.c.path.in_(names)).order_by(pot.c.id))


def current(connection: Connection, paths: tuple[str, ...], now: int) -> list[Record]:
    """The pots of these paths with their present windows, opened where needed."""
    query = _of_paths(len(paths))
    asked = {"now": now, **{f"path_{place}": path for place, path in enumerate(paths)}}
    rows: list[Record] = query(connection, asked).fetchall()
    missing = [row for row in rows if row["account_id"] is None]
    if missing:
        for row in missing:
            open_window(connection, row, now)
        rows = query(connection, asked).fetchall()
    return rows


def open_window(connection: Connection, row: Record, now: int) -> int:
    """The account of a pot's window that holds `now`, made when it is first needed."""
    window = window_at(row["per"], row["zone"], from_us(now))
    span = {"starts_us": window.starts_us, "ends_us": window.ends_us}
    its_own = account.c.pot_id == row["id"]
    found = connection.execute(select(account).where(its_own, account.c.window == window.name)).mappings().first()
    if found is not None and all(found[edge] == at for edge, at in span.items()):
        return int(found["id"])
    # The pot's zone was changed: a window keeps its account by its name, and no two of them hold the same time.
    connection.execute(update(account).where(its_own, account.c.ends_us > now).values(ends_us=now))
    if found is not None:
        connection.execute(update(account).where(account.c.id == found["id"]).values(span))
        return int(found["id"])
    limits = {f"limit_{name}": row[f"limit_{name}"] for name in DIMENSIONS}
    made = insert(account).values(pot_id=row["id"], window=window.name, **span, **limits)
    return _inserted(connection.execute(made).inserted_primary_key)


def create_pot(connection: Connection, values: Mapping[str, Any], now: int) -> int:
    """A new pot with its present window; returns the account's id."""
    pot_id = _inserted(connection.execute(insert(pot).values(**values)).inserted_primary_key)
    limits = {f"limit_{name}": values.get(f"limit_{name}") for name in DIMENSIONS}
    return open_window(connection, {"id": pot_id, "per": values["per"], "zone": values["zone"], **limits}, now)


def within(path: str, column: ColumnElement[str] = pot.c.path) -> ColumnElement[bool]:
    """Whether a column names a path or one below it; not by LIKE, to which `Acme` and `acme` are the same."""
    return or_(column == path, func.substr(column, 1, len(path) + 1) == f"{path}/")


def _inserted(key: object) -> int:
    if not key:
        raise LedgerError("the store gave no id for a new row")
    return int(key[0])  # type: ignore[index]  # SQLAlchemy's Row is not typed as a sequence here
