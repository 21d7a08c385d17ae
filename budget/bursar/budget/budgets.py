"""What may be spent: limits of tenants, agents and runs, and grants on top of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import Connection, RowMapping, insert, select, update

from bursar.budget.accounts import CURRENT, create_pot, open_window, within
from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import NotFoundError, UsageError
from bursar.budget.gate import reopen
from bursar.budget.journal import amounts_in, columns_of, journal
from bursar.budget.money import NANOUSD_MAX
from bursar.budget.schema import FOREVER_US, account, grant, pot
from bursar.budget.store import Store
from bursar.budget.windows import PERIODS, Period, from_us, to_us, window_at

__all__ = ["BudgetLine", "Budgets"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """One pot with its present window, for people and for JSON."""

    path: str
    kind: Literal["tenant", "agent", "run"]
    per: Period
    zone: str
    window: str
    resets_at: datetime | None
    limit: Mapping[str, int | None]
    """By dimension, grants of this window included; None = no limit."""

    posted: Amounts
    held: Amounts
    source: str
    """`config` or `command`."""


class Budgets:
    """Sets, grants and lists what may be spent."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def set(
        self,
        path: str,
        *,
        per: Period = "total",
        zone: str | None = None,
        limit: Mapping[str, int | None],
        author: str,
        note: str = "",
        source: Literal["config", "command"] = "command",
    ) -> BudgetLine:
        """Set the limits of a tenant (`acme`) or an agent (`acme/support`) for a period.

        `limit` is by dimension; a dimension left out keeps its limit, None takes it away. A zone left out stays as it
        is, UTC at first. What was used stays used, and the next call meets the new limit; a zone in which it is another
        day, week or month already has a window of its own for it. What the command set is not changed by the
        configuration later. Raises UsageError for a path, period, zone or amount that cannot be.
        """
        new = {"path": path, "kind": _checked(path, per, zone, limit), "tenant": path.split("/")[0], "per": per}
        changed = {f"limit_{name}": value for name, value in limit.items()} | ({} if zone is None else {"zone": zone})
        now = to_us(self._clock())
        with self._store.write(durable=True) as connection:
            row = _find(connection, path, per)
            if row is not None and source == "config" and (row["source"] == "command" or _holds(row, changed)):
                return self._line(connection, path, per, now)
            wanted = {**(row or {**new, "zone": "UTC"}), **changed, "source": source, "set_by": author, "set_us": now}
            account_id = create_pot(connection, wanted, now) if row is None else _change(connection, wanted, now)
            journal(
                connection,
                kind="limit",
                at_us=now,
                account_id=account_id,
                path=path,
                limit={name: wanted.get(f"limit_{name}") for name in DIMENSIONS},
                author=author,
                note=note or per,
            )
            return self._line(connection, path, per, now)

    def grant(
        self,
        path: str,
        amount: Amounts,
        *,
        author: str,
        note: str,
        per: Period | None = None,
        key: str | None = None,
    ) -> BudgetLine:
        """Give a tenant, an agent or a run more, in its present window; runs that this scope stopped may go on.

        `per` names the budget where a scope has several. A second grant with the same `key` changes nothing.
        Raises NotFoundError where the scope has no budget, UsageError where it has several and none is named, or where
        the amount is not positive or no whole number.
        """
        for name in DIMENSIONS:
            _check_amount(f"grant {name}", getattr(amount, name))
        if not amount:
            raise UsageError("a grant needs an amount above zero", next_step="--usd 5, --tokens 100000 or --steps 10")
        now = to_us(self._clock())
        with self._store.write(durable=True) as connection:
            query = select(pot).where(pot.c.path == path).order_by(pot.c.id)
            rows = [row for row in connection.execute(query).mappings() if per in (None, row["per"])]
            if not rows:
                raise NotFoundError(f"there is no budget for {path}", next_step="bursar budget ls")
            if len(rows) > 1:
                raise UsageError(
                    f"{path} has several budgets: {', '.join(row['per'] for row in rows)}",
                    next_step=f"bursar budget grant {path} --per {rows[0]['per']} ...",
                )
            if key is not None and connection.execute(select(grant.c.id).where(grant.c.key == key)).first():
                return self._line(connection, path, rows[0]["per"], now)
            account_id = open_window(connection, rows[0], now)
            _raise_limit(connection, account_id, amount)
            connection.execute(
                insert(grant).values(
                    account_id=account_id,
                    key=key,
                    author=author,
                    note=note,
                    granted_us=now,
                    **columns_of("amount", amount),
                )
            )
            granted = {name: getattr(amount, name) or None for name in DIMENSIONS}
            journal(
                connection,
                kind="grant",
                at_us=now,
                account_id=account_id,
                path=path,
                limit=granted,
                author=author,
                note=note,
            )
            reopen(connection, path)
            line = self._line(connection, path, rows[0]["per"], now)
            if any(value is not None and value > NANOUSD_MAX for value in line.limit.values()):
                raise UsageError(f"a grant to {path} must not raise a limit above {NANOUSD_MAX}")
            return line

    def ls(self, path: str | None = None, *, runs: bool = False) -> list[BudgetLine]:
        """Every tenant's and agent's budget with its present window, or those at and below `path`; runs if asked."""
        now = to_us(self._clock())
        with self._store.read() as connection:
            query = CURRENT.order_by(pot.c.path, pot.c.id)
            if path is not None:
                query = query.where(within(path))
            if not runs:
                query = query.where(pot.c.kind != "run")
            return [_as_line(row, now) for row in connection.execute(query, {"now": now}).mappings()]

    def _line(self, connection: Connection, path: str, per: Period, now: int) -> BudgetLine:
        query = CURRENT.where(pot.c.path == path, pot.c.per == per)
        return _as_line(connection.execute(query, {"now": now}).mappings().one(), now)


def _find(connection: Connection, path: str, per: Period) -> RowMapping | None:
    return connection.execute(select(pot).where(pot.c.path == path, pot.c.per == per)).mappings().first()


def _holds(row: RowMapping, changed: Mapping[str, Any]) -> bool:
    return all(row[name] == value for name, value in changed.items())


def _change(connection: Connection, wanted: Mapping[str, Any], now: int) -> int:
    """Set new limits; the present window keeps what was used and what was granted. Returns its account's id."""
    connection.execute(update(pot).where(pot.c.id == wanted["id"]).values(**wanted))
    account_id = open_window(connection, wanted, now)
    granted = _granted(connection, account_id)
    base = {name: wanted[f"limit_{name}"] for name in DIMENSIONS}
    limits = {f"limit_{name}": None if base[name] is None else base[name] + granted[name] for name in DIMENSIONS}
    connection.execute(update(account).where(account.c.id == account_id).values(**limits))
    return account_id


def _granted(connection: Connection, account_id: int) -> dict[str, int]:
    rows = connection.execute(select(grant).where(grant.c.account_id == account_id)).mappings()
    total = sum((amounts_in("amount", row) for row in rows), Amounts())
    return {name: getattr(total, name) for name in DIMENSIONS}


def _raise_limit(connection: Connection, account_id: int, amount: Amounts) -> None:
    # NULL + n is NULL: a dimension without a limit stays without one.
    raised = {f"limit_{name}": account.c[f"limit_{name}"] + getattr(amount, name) for name in DIMENSIONS}
    connection.execute(update(account).where(account.c.id == account_id).values(**raised))


def _checked(path: str, per: str, zone: str | None, limit: Mapping[str, int | None]) -> Literal["tenant", "agent"]:
    parts = path.split("/")
    if len(parts) > 2 or not all(parts):
        raise UsageError(f"a budget belongs to a tenant or an agent, not to {path!r}", next_step="acme or acme/support")
    if per not in PERIODS:
        raise UsageError(f"per {per!r}: expected one of {', '.join(PERIODS)}")
    try:
        ZoneInfo("UTC" if zone is None else zone)
    except (KeyError, ValueError, OSError):
        near = difflib.get_close_matches(str(zone), available_timezones(), 3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UsageError(f"zone {zone!r}: expected an IANA name such as Europe/Paris{hint}") from None
    for name, value in limit.items():
        if name not in DIMENSIONS:
            raise UsageError(f"limit {name!r}: expected one of {', '.join(DIMENSIONS)}")
        if value is not None:
            _check_amount(f"limit {name}", value, otherwise=", or None for none")
    return "tenant" if len(parts) == 1 else "agent"


def _check_amount(what: str, value: object, otherwise: str = "") -> None:
    if type(value) is not int or not 0 <= value <= NANOUSD_MAX:
        raise UsageError(f"{what} {value!r}: expected a whole number from 0 to {NANOUSD_MAX}{otherwise}")


def _as_line(row: RowMapping, now: int) -> BudgetLine:
    opened = row["account_id"] is not None
    window = window_at(row["per"], row["zone"], from_us(now))
    limit_prefix = "window_limit" if opened else "limit"
    return BudgetLine(
        path=row["path"],
        kind=row["kind"],
        per=row["per"],
        zone=row["zone"],
        window=window.name,
        resets_at=from_us(window.ends_us) if window.ends_us < FOREVER_US else None,
        limit={name: row[f"{limit_prefix}_{name}"] for name in DIMENSIONS},
        posted=amounts_in("posted", row) if opened else Amounts(),
        held=amounts_in("held", row) if opened else Amounts(),
        source=row["source"],
    )
