"""Grants: more allowance in one window, by somebody, for a reason, until a time; what is unused is taken back then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.engine import RowMapping

from bursar.budget.alerts.thresholds import arm
from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.journal import amounts_in, columns_of, journal
from bursar.budget.schema import account, grant
from bursar.budget.scope import chain_of

__all__ = ["end", "end_expired", "give", "granted"]


def give(
    connection: Connection,
    account_id: int,
    path: str,
    amount: Amounts,
    *,
    author: str,
    note: str,
    now: int,
    kind: str = "grant",
    key: str | None = None,
    expires_us: int | None = None,
) -> int:
    """Raise an account's limits; returns the grant's id. A `carry` from the window before may be below zero."""
    # NULL + n is NULL: a dimension without a limit stays without one.
    raised = {f"limit_{name}": account.c[f"limit_{name}"] + getattr(amount, name) for name in DIMENSIONS}
    connection.execute(update(account).where(account.c.id == account_id).values(**raised))
    made = connection.execute(
        insert(grant)
        .values(
            account_id=account_id,
            key=key,
            author=author,
            note=note,
            granted_us=now,
            expires_us=expires_us,
            **columns_of("amount", amount),
        )
        .returning(grant.c.id)
    )
    if expires_us is not None:
        _note_expiry(connection, account_id)
    grant_id = int(made.scalar_one())
    detail = {"grant": grant_id, "key": key, "expires_us": expires_us}
    _tell(connection, account_id, path, amount, kind=kind, now=now, author=author, note=note, detail=detail)
    return grant_id


def end(connection: Connection, row: RowMapping, path: str, *, author: str, note: str, now: int) -> Amounts:
    """Take back what a grant gave and nobody used or holds; returns how much that was.

    What calls in flight still hold of it is taken back when they have settled: until then the grant has not ended.
    """
    its_account = select(account).where(account.c.id == row["account_id"])
    standing = connection.execute(its_account).mappings().one()
    rest = amounts_in("amount", row) - amounts_in("taken", row)
    taken = Amounts(**{name: _unused(standing, name, getattr(rest, name)) for name in DIMENSIONS})
    blocked = any(getattr(rest, name) > getattr(taken, name) and standing[f"held_{name}"] for name in DIMENSIONS)
    expires_us = min(now, now if row["expires_us"] is None else row["expires_us"])
    if blocked and not taken and expires_us == row["expires_us"]:
        return taken
    lowered = {f"limit_{name}": account.c[f"limit_{name}"] - getattr(taken, name) for name in DIMENSIONS}
    connection.execute(update(account).where(account.c.id == row["account_id"]).values(**lowered))
    ended_us = None if blocked else now
    ended = {"expires_us": expires_us, "ended_us": ended_us, **columns_of("taken", amounts_in("taken", row) + taken)}
    connection.execute(update(grant).where(grant.c.id == row["id"]).values(**ended))
    _note_expiry(connection, row["account_id"])
    detail = {"grant": row["id"], "expires_us": expires_us, "ended_us": ended_us}
    _tell(
        connection, row["account_id"], path, taken, kind="take_back", now=now, author=author, note=note, detail=detail
    )
    return taken


def end_expired(connection: Connection, account_id: int, path: str, now: int) -> None:
    """End every grant of an account whose time is over."""
    expired = select(grant).where(
        grant.c.account_id == account_id, grant.c.ended_us.is_(None), grant.c.expires_us <= now
    )
    for row in connection.execute(expired.order_by(grant.c.id)).mappings().all():
        end(connection, row, path, author=row["author"], note=f"grant {row['id']} expired", now=now)


def granted(connection: Connection, account_id: int) -> Amounts:
    """What grants have raised an account's limits by, less what was taken back."""
    rows = connection.execute(select(grant).where(grant.c.account_id == account_id)).mappings()
    return sum((amounts_in("amount", row) - amounts_in("taken", row) for row in rows), Amounts())


def _unused(standing: RowMapping, name: str, amount: int) -> int:
    limit: int | None = standing[f"limit_{name}"]
    if limit is None:
        return amount
    used: int = standing[f"posted_{name}"] + standing[f"held_{name}"]
    return max(0, min(amount, limit - used))


def _note_expiry(connection: Connection, account_id: int) -> None:
    first = select(func.min(grant.c.expires_us)).where(grant.c.account_id == account_id, grant.c.ended_us.is_(None))
    at = connection.execute(first).scalar_one()
    connection.execute(update(account).where(account.c.id == account_id).values(grants_end_us=at))


def _tell(
    connection: Connection,
    account_id: int,
    path: str,
    amount: Amounts,
    *,
    kind: str,
    now: int,
    author: str,
    note: str,
    detail: Mapping[str, Any],
) -> None:
    journal(
        connection,
        chain=chain_of(path),
        kind=kind,
        at_us=now,
        accounts=json.dumps([account_id]),
        path=path,
        limit={name: getattr(amount, name) or None for name in DIMENSIONS},
        author=author,
        note=note,
        detail=detail,
    )
    arm(connection, account_id, now)
