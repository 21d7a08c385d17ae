"""The journal: every change of a balance, a limit or a policy as one row, appended in the transaction that makes it.

Each tenant and each organisation has a chain of its own. The hash of an entry covers the entry and the hash before it,
so nothing in a chain can be changed, taken out or put elsewhere unseen (see `bursar.budget.audit.verify`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy import BindParameter, Connection, Text, bindparam, func, insert, literal_column, or_, select, update

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.schema import account, chain, entry
from bursar.budget.stores.prepared import Positional, Prepared, Record

__all__ = ["NOBODYS", "NOTHING", "amounts_in", "body_of", "claim", "columns_of", "hash_of", "journal", "move"]

NOTHING = Amounts()

NOBODYS = "ledger/"
"""The chain of what belongs to no tenant: prices. No tenant can have this name."""

_NEXT_HASH = func.bursar_sha256(chain.c.hash + bindparam("body", type_=Text), type_=Text)
_LINK = (
    update(chain)
    .where(chain.c.name == bindparam("of_chain"))
    .values(number=chain.c.number + literal_column("1"), hash=_NEXT_HASH)
    .returning(chain.c.number, chain.c.hash)
)
_BODY = (
    *("chain", "at_us", "kind", "reservation_id", "accounts", "path"),
    *(f"{side}_{name}" for side in ("held", "posted", "limit") for name in DIMENSIONS),
    *("author", "note", "detail"),
)
_COLUMNS = entry.c.keys()
_TO_LINK = Positional(_LINK, ("body", "of_chain"))
_TO_ENTER = Positional(insert(entry).values({name: bindparam(name) for name in _COLUMNS}), _COLUMNS)
# Both in one round trip, for PostgreSQL; SQLite has none to save, and no such statement.
_LINKED = _LINK.cte("linked")
_ENTERED = select(*(bindparam(name, type_=entry.c[name].type) for name in _BODY), _LINKED.c.number, _LINKED.c.hash)
_TO_APPEND = Positional(insert(entry).from_select((*_BODY, "number", "hash"), _ENTERED), ("body", "of_chain", *_BODY))


def claim(connection: Connection, chains: Iterable[str]) -> None:
    """Take the lock of these chains until the transaction ends: whoever else would change their ledger waits.

    All take several in one order. SQLite has one writer at a time, so there is nothing to take.
    """
    if connection.dialect.name == "sqlite":
        return
    names = sorted(chains)
    taken = _claim(len(names))(connection, {f"name_{place}": name for place, name in enumerate(names)}).fetchall()
    for name in names if len(taken) < len(names) else ():
        _begin_chain(connection, name)
        claim(connection, [name])


def move(
    connection: Connection,
    *,
    chain: str,
    kind: str,
    at_us: int,
    reservation_id: int,
    accounts: str,
    held: Amounts = NOTHING,
    posted: Amounts = NOTHING,
    note: str | None = None,
) -> Sequence[int]:
    """Change the balance of every account of a reservation by the same amounts, and journal it.

    `accounts` is a JSON list of ids. Returns the ids of those in which the next alert is due.
    """
    ids = _ids(accounts)
    more_held = (held.nanousd, held.tokens, held.steps, held.tool_calls)
    due = []
    if posted:
        more_posted = (posted.nanousd, posted.tokens, posted.steps, posted.tool_calls)
        changed = _move(len(ids), posts=True)(connection, (*more_posted, *more_held, *ids))
        due = [row[0] for row in changed.fetchall() if row[1]]
    else:
        _move(len(ids), posts=False)(connection, (*more_held, *ids))
    journal(
        connection,
        chain=chain,
        kind=kind,
        at_us=at_us,
        reservation_id=reservation_id,
        accounts=accounts,
        held=held,
        posted=posted,
        note=note,
    )
    return due


def journal(
    connection: Connection,
    *,
    chain: str = NOBODYS,
    kind: str,
    at_us: int,
    reservation_id: int | None = None,
    accounts: str | None = None,
    path: str | None = None,
    held: Amounts = NOTHING,
    posted: Amounts = NOTHING,
    limit: Mapping[str, int | None] | None = None,
    author: str | None = None,
    note: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append one row to a chain; `limit` is by dimension, and only where a limit was set or granted.

    `detail` is what the other columns have no room for, by name.
    """
    rest = (
        *(at_us, kind, reservation_id, accounts, path),
        *(held.nanousd, held.tokens, held.steps, held.tool_calls),
        *(posted.nanousd, posted.tokens, posted.steps, posted.tool_calls),
        *(_NO_LIMIT if limit is None else (limit.get(name) for name in DIMENSIONS)),
        *(author, note, None if detail is None else _as_json(detail)),
    )
    body = _as_json((chain, *rest))
    if not _append(connection, chain, body, rest):
        _begin_chain(connection, chain)
        _append(connection, chain, body, rest)


def body_of(row: Record) -> str:
    """What the hash of an entry covers, beside the hash before it: all its columns but `number` and `hash`."""
    return _as_json([row[name] for name in _BODY])


def _as_json(value: object) -> str:
    return orjson.dumps(value).decode()


def hash_of(before: str, body: str) -> str:
    """The hash of an entry, as the store computes it (`bursar_sha256`)."""
    return sha256((before + body).encode()).hexdigest()


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


_NO_LIMIT = (None,) * len(DIMENSIONS)


def _append(connection: Connection, name: str, body: str, rest: tuple[Any, ...]) -> bool:
    """Link an entry to the end of its chain and write it; False where there is no such chain yet."""
    if connection.dialect.name != "sqlite":
        return bool(_TO_APPEND(connection, (body, name, name, *rest)).rowcount)
    found = _TO_LINK(connection, (body, name)).fetchall()
    for number, hashed in found:
        _TO_ENTER(connection, (name, number, *rest, hashed))
    return bool(found)


def _begin_chain(connection: Connection, name: str) -> None:
    """Make the row of a chain, unless somebody else just did."""
    if connection.dialect.name == "sqlite":
        connection.execute(insert(chain).values(name=name, number=0, hash=""))
        return
    from sqlalchemy.dialects import postgresql

    made = postgresql.insert(chain).values(name=name, number=0, hash="")
    connection.execute(made.on_conflict_do_nothing())


@lru_cache(maxsize=4096)
def _ids(accounts: str) -> tuple[int, ...]:
    return tuple(orjson.loads(accounts))


@lru_cache
def _claim(count: int) -> Prepared:
    names: list[BindParameter[str]] = [bindparam(f"name_{place}") for place in range(count)]
    return Prepared(select(chain.c.name).where(chain.c.name.in_(names)).order_by(chain.c.name).with_for_update())


@lru_cache
def _move(count: int, posts: bool) -> Positional:
    ids: list[BindParameter[int]] = [bindparam(f"id_{place}") for place in range(count)]
    sides = ("posted", "held") if posts else ("held",)
    changed = {
        f"{side}_{name}": account.c[f"{side}_{name}"] + bindparam(f"d_{side}_{name}")
        for side in sides
        for name in DIMENSIONS
    }
    statement = update(account).where(account.c.id.in_(ids)).values(changed)
    names = [f"d_{column}" for column in changed] + [one.key for one in ids]
    if not posts:
        return Positional(statement, names)
    is_due = or_(*(account.c[f"alert_{name}"] <= account.c[f"posted_{name}"] for name in DIMENSIONS))
    return Positional(statement.returning(account.c.id, is_due), names)
