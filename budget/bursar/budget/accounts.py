"""Pots and the accounts of their present windows, as every transaction reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)

from bursar.budget.admission import Balance
from bursar.budget.alerts.thresholds import arm
from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import LedgerError
from bursar.budget.grants import end_expired, give, granted
from bursar.budget.journal import NOTHING, journal
from bursar.budget.schema import FOREVER_US, account, pot
from bursar.budget.scope import Kind, chain_of
from bursar.budget.stores.prepared import Positional, Prepared, Record
from bursar.budget.windows import Period, from_us, rolling_us, window_at

__all__ = [
    "CURRENT",
    "Standing",
    "create_pot",
    "current",
    "drawn_on",
    "limit_window",
    "open_window",
    "rolled",
    "within",
]

_NOW = and_(
    account.c.pot_id == pot.c.id,
    account.c.starts_us <= bindparam("now"),
    account.c.ends_us > bindparam("now"),
)

CURRENT = select(
    pot,
    account.c.id.label("account_id"),
    account.c.window,
    account.c.starts_us,
    account.c.ends_us,
    *(account.c[f"limit_{name}"].label(f"window_limit_{name}") for name in DIMENSIONS),
    *(account.c[f"{side}_{name}"] for side in ("posted", "held") for name in DIMENSIONS),
).select_from(pot.outerjoin(account, _NOW))
"""Pots with the account of the window that holds `:now`; its columns are NULL until the window is first used."""


class Standing(NamedTuple):
    """A pot and the account of its present window: all that a reserve needs to know of them, in column order."""

    id: int
    path: str
    kind: Kind
    parent: str | None
    per: Period
    zone: str
    mode: str
    overdraft_percent: int
    alerts: str | None
    epoch: int | None
    cancelled_us: int | None
    paused_by: str | None
    seconds_us: int | None
    used_us: int
    held_since_us: int | None
    until_us: int | None
    stopped: str | None
    final_call: str | None
    account_id: int | None
    window: str
    ends_us: int
    grants_end_us: int | None
    window_limit_nanousd: int | None
    window_limit_tokens: int | None
    window_limit_steps: int | None
    window_limit_tool_calls: int | None
    posted_nanousd: int
    posted_tokens: int
    posted_steps: int
    posted_tool_calls: int
    held_nanousd: int
    held_tokens: int
    held_steps: int
    held_tool_calls: int

    @property
    def balance(self) -> Balance:
        """What admission sees."""
        limit: Any = self[_WINDOW_LIMIT]
        ends_us = None if self.ends_us >= FOREVER_US else self.ends_us
        posted: Any = self[_POSTED]
        held: Any = self[_HELD]
        return Balance(self.kind, self.path, limit, posted, held, self.per, self.window, ends_us, self.zone)


def _columns(first: str) -> slice:
    start = Standing._fields.index(first)
    return slice(start, start + len(DIMENSIONS))


_WINDOW_LIMIT = _columns("window_limit_nanousd")
_POSTED = _columns("posted_nanousd")
_HELD = _columns("held_nanousd")

_OF_ACCOUNT = {
    "account_id": account.c.id,
    **{f"window_limit_{name}": account.c[f"limit_{name}"] for name in DIMENSIONS},
    **{column.name: column for column in account.c if not column.name.startswith(("limit_", "id"))},
}
_STANDING = select(*(_OF_ACCOUNT[name] if name in _OF_ACCOUNT else pot.c[name] for name in Standing._fields))


@lru_cache
def _of_paths(count: int) -> Positional:
    names: list[BindParameter[str]] = [bindparam(f"path_{place}") for place in range(count)]
    standing = _STANDING.select_from(pot.outerjoin(account, _NOW))
    return Positional(standing.where(pot.c.path.in_(names)), ("now", "now", *(one.key for one in names)))


@lru_cache
def _of_accounts(count: int) -> Positional:
    ids: list[BindParameter[int]] = [bindparam(f"id_{place}") for place in range(count)]
    standing = _STANDING.select_from(pot.join(account, account.c.pot_id == pot.c.id))
    return Positional(standing.where(account.c.id.in_(ids)), [one.key for one in ids])


_ROLLED = Prepared(
    select(
        func.min(account.c.starts_us),
        *(func.sum(account.c[f"{side}_{name}"]) for side in ("posted", "held") for name in DIMENSIONS),
    ).where(account.c.pot_id == bindparam("of_pot"), account.c.ends_us > bindparam("since"))
)


def current(connection: Connection, paths: tuple[str, ...], now: int) -> list[Standing]:
    """The pots of these paths with their present windows, opened where needed, and expired grants taken back."""
    query = _of_paths(len(paths))
    asked = (now, now, *paths)
    standings = _in_order(paths, query(connection, asked).fetchall())
    stale = [row for row in standings if row.account_id is None or (row.grants_end_us or FOREVER_US) <= now]
    for row in stale:
        if row.account_id is None:
            found = connection.execute(select(pot).where(pot.c.id == row.id)).mappings().one()
            open_window(connection, found, now)
        else:
            end_expired(connection, row.account_id, row.path, now)
    if stale:
        standings = _in_order(paths, query(connection, asked).fetchall())
    return _in_full(connection, standings, now)


def drawn_on(connection: Connection, accounts: Sequence[int], now: int) -> list[Standing]:
    """The accounts of these ids with their pots, in this order, also those of windows that are over. Reads only."""
    rows = _of_accounts(len(accounts))(connection, accounts).fetchall()
    standings = sorted(map(Standing._make, rows), key=lambda row: accounts.index(row.account_id or 0))
    return _in_full(connection, standings, now)


def rolled(connection: Connection, pot_id: int, per: Period, now: int) -> tuple[int, Amounts, Amounts] | None:
    """What counts in a rolling window now: since when (in us), posted and held; None where nothing does."""
    since = now - (rolling_us(per) or 0)
    row = _ROLLED(connection, {"of_pot": pot_id, "since": since}).fetchall()[0]
    sums = list(map(int, row[1:])) if row[0] is not None else []
    return (row[0], Amounts(*sums[:4]), Amounts(*sums[4:])) if sums else None


def open_window(connection: Connection, row: Record, now: int, *, journaled: bool = True) -> int:
    """The account of a pot's window that holds `now`, made when it is first needed.

    What the last window left, or owes, comes into it as a grant, where the pot's policy says so.
    """
    window = window_at(row["per"], row["zone"], from_us(now))
    span = {"starts_us": window.starts_us, "ends_us": window.ends_us}
    its_own = account.c.pot_id == row["id"]
    # The same hour has another name in another zone, and is the same hour.
    same = or_(account.c.window == window.name, and_(*(account.c[edge] == at for edge, at in span.items())))
    found = connection.execute(select(account).where(its_own, same)).mappings().first()
    if rolling_us(row["per"]) is None:  # buckets never cross, and a clock that goes back must not free what they hold
        # The zone was changed, or the clock: a window keeps its account by its name, and no two hold the same time.
        others = account.c.id != (found["id"] if found is not None else 0)
        connection.execute(update(account).where(its_own, others, account.c.ends_us > now).values(ends_us=now))
    limit = {name: row[f"limit_{name}"] for name in DIMENSIONS}
    if found is not None:
        if any(found[edge] != at for edge, at in span.items()):
            connection.execute(update(account).where(account.c.id == found["id"]).values(span))
            limit_window(connection, row, found["id"])
            _tell(connection, found["id"], row["path"], limit, window.name, now)
        return int(found["id"])
    made = insert(account).values(
        pot_id=row["id"],
        window=window.name,
        overdraft_percent=row["overdraft_percent"],
        **span,
        **{f"limit_{name}": of for name, of in limit.items()},
    )
    account_id = _inserted(connection.execute(made).inserted_primary_key)
    path = row["path"]
    if journaled:
        _tell(connection, account_id, path, limit, window.name, now)
    if carried := _carried(connection, row, window.starts_us, now):
        note = f"left of or owed by the window before {window.name}"
        give(connection, account_id, path, carried, author="policy", note=note, now=now, kind="carry")
    if row["alerts"] is not None:
        arm(connection, account_id, now)
    return account_id


def limit_window(connection: Connection, row: Record, account_id: int) -> None:
    """Bring a pot's limits into a window, which keeps what it was granted."""
    more = granted(connection, account_id)
    limits = {
        f"limit_{name}": None if (of := row[f"limit_{name}"]) is None else of + getattr(more, name)
        for name in DIMENSIONS
    }
    most = case(
        (account.c.overdraft_percent < row["overdraft_percent"], row["overdraft_percent"]),
        else_=account.c.overdraft_percent,
    )
    changed = update(account).where(account.c.id == account_id).values(**limits, overdraft_percent=most)
    connection.execute(changed)


def create_pot(connection: Connection, values: Mapping[str, Any], now: int) -> int:
    """A new pot with its present window, which the caller journals; returns the account's id."""
    pot_id = _inserted(connection.execute(insert(pot).values(**values)).inserted_primary_key)
    nothing = {
        "alerts": None,
        "rollover_percent": 0,
        "overdraft_percent": 0,
        **{f"limit_{name}": None for name in DIMENSIONS},
    }
    return open_window(connection, {**nothing, **values, "id": pot_id}, now, journaled=False)


def within(path: str, column: ColumnElement[str] = pot.c.path) -> ColumnElement[bool]:
    """Whether a column names a path or one below it; not by LIKE, to which `Acme` and `acme` are the same."""
    return or_(column == path, func.substr(column, 1, len(path) + 1) == f"{path}/")


def _in_order(paths: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> list[Standing]:
    """The widest scope first, so that it is the one which a refusal names."""
    return sorted(map(Standing._make, rows), key=lambda row: (paths.index(row.path), row.id))


def _in_full(connection: Connection, standings: list[Standing], now: int) -> list[Standing]:
    """With overdrafts, and with all that counts in a rolling window."""
    if any(row.overdraft_percent or row.per.startswith("rolling") for row in standings):
        return [_rolled(connection, _overdrawn(connection, row), now) for row in standings]
    return standings


def _overdrawn(connection: Connection, row: Standing) -> Standing:
    """With an overdraft as room above the limit."""
    if not row.overdraft_percent:
        return row
    base = connection.execute(select(pot).where(pot.c.id == row.id)).mappings().one()
    raised: dict[str, Any] = {}
    for name in DIMENSIONS:
        column = f"window_limit_{name}"
        limit: int | None = getattr(row, column)
        raised[column] = None if limit is None else limit + (base[f"limit_{name}"] or 0) * row.overdraft_percent // 100
    return row._replace(**raised)


def _rolled(connection: Connection, row: Standing, now: int) -> Standing:
    length = rolling_us(row.per)
    found = rolled(connection, row.id, row.per, now) if length else None
    if length is None or found is None:
        return row
    since, posted, held = found
    return row._replace(
        window=row.per,
        ends_us=since + length,  # when the oldest of it begins to be freed
        posted_nanousd=posted.nanousd,
        posted_tokens=posted.tokens,
        posted_steps=posted.steps,
        posted_tool_calls=posted.tool_calls,
        held_nanousd=held.nanousd,
        held_tokens=held.tokens,
        held_steps=held.steps,
        held_tool_calls=held.tool_calls,
    )


def _tell(
    connection: Connection, account_id: int, path: str, limit: Mapping[str, int | None], window: str, now: int
) -> None:
    journal(
        connection,
        chain=chain_of(path),
        kind="window",
        at_us=now,
        accounts=json.dumps([account_id]),
        path=path,
        limit=limit,
        note=window,
    )


def _carried(connection: Connection, row: Record, starts_us: int, now: int) -> Amounts:
    """What the window before left, up to `rollover_percent` of the limit; below zero what it owes.

    A window in which nothing was called has no account: it pays what the one before it owed, and leaves the rest.
    """
    if row["per"] == "total" or rolling_us(row["per"]) is not None:
        return NOTHING
    others = select(account).where(account.c.pot_id == row["id"], account.c.starts_us < starts_us)
    newest = others.order_by(account.c.ends_us.desc()).limit(1)
    last = connection.execute(newest).mappings().first()
    if last is None:
        return NOTHING
    if (last["grants_end_us"] or FOREVER_US) <= now:  # nobody called since
        end_expired(connection, last["id"], row["path"], now)
        last = connection.execute(newest).mappings().one()
    # What is still in flight counts as used: it may come to that.
    owes = bool(row["overdraft_percent"] or last["overdraft_percent"])
    used = {name: last[f"posted_{name}"] + last[f"held_{name}"] for name in DIMENSIONS}
    limits = {name: last[f"limit_{name}"] for name in DIMENSIONS}
    carried = _left_of(row, {name: None if of is None else of - used[name] for name, of in limits.items()}, owes=owes)
    ends_us, before = last["ends_us"], None
    while ends_us < starts_us and carried != before:
        before, ends_us = carried, window_at(row["per"], row["zone"], from_us(ends_us)).ends_us
        limits = {name: row[f"limit_{name}"] for name in DIMENSIONS}
        left = {name: None if of is None else of + getattr(before, name) for name, of in limits.items()}
        carried = _left_of(row, left, owes=owes)
    return carried


def _left_of(row: Record, left: Mapping[str, int | None], *, owes: bool) -> Amounts:
    """What of an amount comes into the next window."""
    carried = {}
    for name, amount in left.items():
        if amount is None or row[f"limit_{name}"] is None:
            continue
        most = row[f"limit_{name}"] * row["rollover_percent"] // 100
        carried[name] = min(amount, most) if amount >= 0 else amount * owes
    return Amounts(**carried)


def _inserted(key: object) -> int:
    if not key:
        raise LedgerError("the store gave no id for a new row")
    return int(key[0])  # type: ignore[index]  # SQLAlchemy's Row is not typed as a sequence here
