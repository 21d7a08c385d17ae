"""What may be spent: limits of tenants, agents and runs, and grants on top of them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import Connection, RowMapping, select, update

from bursar.budget.accounts import CURRENT, create_pot, limit_window, open_window, rolled, within
from bursar.budget.alerts.thresholds import arm
from bursar.budget.allocation import check_parts, parent_of
from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import NotFoundError, UsageError
from bursar.budget.gate import reopen
from bursar.budget.grants import end, give
from bursar.budget.journal import amounts_in, claim, journal
from bursar.budget.money import NANOUSD_MAX
from bursar.budget.schema import FOREVER_US, account, grant, pot
from bursar.budget.scope import Kind, budget_kind, chain_of
from bursar.budget.stores.store import Store
from bursar.budget.windows import Period, check_period, from_us, rolling_us, to_us, window_at

__all__ = ["BudgetLine", "Budgets", "GrantLine", "Mode", "grant_more"]

Mode = Literal["hard", "soft"]

PERCENT_MAX = 100
"""The most of a limit that may roll over into the next window, or be overdrawn."""

ALERT_PERCENT_MAX = 1_000

POLICY = (
    *("per", "zone", "mode", "rollover_percent", "overdraft_percent", "oversubscribed", "alerts", "parent", "source"),
)
"""The columns of a pot that are set together with its limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """One pot with its present window, for people and for JSON."""

    path: str
    kind: Kind
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

    mode: Mode = "hard"
    rollover_percent: int = 0
    overdraft_percent: int = 0
    oversubscribed: bool = False
    alerts: tuple[int, ...] = ()
    parent: str | None = None
    """The budget above, of which it is a part; of a tenant, its organisation's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantLine:
    """One grant, for people and for JSON."""

    id: int
    path: str
    per: Period
    window: str
    amount: Amounts
    taken: Amounts
    """What was taken back, because it was not used."""

    author: str
    note: str
    granted_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None


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
        mode: Mode | None = None,
        rollover_percent: int | None = None,
        overdraft_percent: int | None = None,
        oversubscribed: bool | None = None,
        alerts: Sequence[int] | None = None,
        organisation: str | None = None,
    ) -> BudgetLine:
        """Set the limits of a scope (`acme`, `acme/support`, `acme/team:red`, `org:globex`, ...) for a period.

        `limit` is by dimension; a dimension left out keeps its limit, None takes it away. So does every other argument
        that is left out; at first a budget is hard, in UTC, without rollover, overdraft or alerts. A `soft` limit
        refuses nothing. `rollover_percent` of the limit, where unused, comes into the next window, and
        `overdraft_percent` of it may be used in advance, owed to the next. `alerts` are percents of the limit.
        `oversubscribed` lets the budgets below it sum up to more than it has. `organisation` is the one that a tenant
        belongs to with all its budgets, or "" for none: from then on, every call of the tenant has to name it in its
        scope.

        What was used stays used, and the next call meets the new limit; a zone in which it is another day, week or
        month already has a window of its own for it. What the command set is not changed by the configuration later.
        Raises UsageError for a path, period, zone, amount or percent that cannot be, and for a hard limit that is more
        than the free part of the budget above it for the same period, unless that one is oversubscribed.
        """
        kind = budget_kind(path)
        policy = _checked_policy(per, mode, rollover_percent, overdraft_percent, oversubscribed, alerts)
        _check(per, zone, limit)
        new = {
            "path": path,
            "kind": kind,
            "tenant": chain_of(path),
            "per": per,
            "zone": "UTC",
            "mode": "hard",
            "rollover_percent": 0,
            "overdraft_percent": 0,
            "oversubscribed": 0,
            "alerts": None,
        }
        changed = {f"limit_{name}": value for name, value in limit.items()} | policy
        changed |= {} if zone is None else {"zone": zone}
        if organisation is not None and kind != "tenant":
            raise UsageError(f"organisation {organisation!r}: only a tenant belongs to one, not {path}")
        now = to_us(self._clock())
        with self._store.write(durable=True) as connection:
            changed["parent"] = _parent(connection, path, organisation)
            claim(connection, {chain_of(path), chain_of(changed["parent"] or path)})
            if organisation is not None:
                _join(connection, path, changed["parent"], author, now)
            row = _find(connection, path, per)
            if row is not None and source == "config" and (row["source"] == "command" or _holds(row, changed)):
                return _line(connection, path, per, now)
            wanted = {**(row or new), **changed, "source": source, "set_by": author, "set_us": now}
            if source == "command":  # a configuration is checked as a whole, before anything of it is set
                check_parts(connection, wanted, row)
            _put(connection, wanted, new=row is None, note=note or _described(per, policy))
            return _line(connection, path, per, now)

    def grant(
        self,
        path: str,
        amount: Amounts,
        *,
        author: str,
        note: str,
        per: Period | None = None,
        key: str | None = None,
        expires_at: datetime | None = None,
    ) -> BudgetLine:
        """Give a scope or a run more, in its present window; runs that this scope stopped may go on.

        `per` names the budget where a scope has several. A second grant with the same `key` changes nothing. What is
        unused when it expires is taken back.
        Raises NotFoundError where the scope has no budget, UsageError where it has several and none is named, where
        it is a rolling one, which has no window to give to, or where the amount is not positive or no whole number.
        """
        now = to_us(self._clock())
        expires_us = _checked_grant(amount, expires_at, now)
        with self._store.write(durable=True) as connection:
            return grant_more(
                connection, path, amount, author=author, note=note, now=now, per=per, key=key, expires_us=expires_us
            )

    def revoke(self, grant_id: int, *, author: str, note: str) -> Amounts:
        """Take back what a grant gave and nobody used; returns how much that was.

        Raises NotFoundError for an unknown grant, UsageError for one that has ended.
        """
        now = to_us(self._clock())
        with self._store.write(durable=True) as connection:
            row = connection.execute(_GRANTS.where(grant.c.id == grant_id)).mappings().first()
            if row is None:
                raise NotFoundError(f"there is no grant {grant_id}", next_step="bursar budget grants")
            claim(connection, [chain_of(row["path"])])
            row = connection.execute(_GRANTS.where(grant.c.id == grant_id)).mappings().one()
            if row["ended_us"] is not None:
                at = from_us(row["ended_us"]).isoformat(timespec="seconds")
                raise UsageError(f"grant {grant_id} ended at {at} already", next_step="bursar budget grants")
            return end(connection, row, row["path"], author=author, note=note, now=now)

    def grants(self, path: str | None = None) -> list[GrantLine]:
        """Every grant, or those at and below `path`, the newest first."""
        query = _GRANTS.order_by(grant.c.id.desc())
        if path is not None:
            query = query.where(within(path))
        with self._store.read() as connection:
            return [_as_grant(row) for row in connection.execute(query).mappings()]

    def ls(self, path: str | None = None, *, runs: bool = False) -> list[BudgetLine]:
        """Every tenant's and agent's budget with its present window, or those at and below `path`; runs if asked."""
        now = to_us(self._clock())
        with self._store.read() as connection:
            query = CURRENT.order_by(pot.c.path, pot.c.id)
            if path is not None:
                query = query.where(within(path))
            if not runs:
                query = query.where(pot.c.run_id.is_(None))
            return [_as_line(connection, row, now) for row in connection.execute(query, {"now": now}).mappings().all()]


def grant_more(
    connection: Connection,
    path: str,
    amount: Amounts,
    *,
    author: str,
    note: str,
    now: int,
    per: Period | None = None,
    key: str | None = None,
    expires_us: int | None = None,
) -> BudgetLine:
    """`Budgets.grant` within a transaction, of an amount above zero."""
    claim(connection, [chain_of(path)])
    row = _pot_to_grant(connection, path, per)
    before = connection.execute(_GRANTS.where(grant.c.key == key)).mappings().first() if key else None
    if before is not None and before["path"] != path:
        raise UsageError(f"grant {key!r} was given to {before['path']}, and cannot be given to {path}")
    if before is not None:
        return _line(connection, path, row["per"], now)
    account_id = open_window(connection, row, now)
    give(connection, account_id, path, amount, author=author, note=note, now=now, key=key, expires_us=expires_us)
    reopen(connection, path)
    line = _line(connection, path, row["per"], now)
    if any(value is not None and value > NANOUSD_MAX for value in line.limit.values()):
        raise UsageError(f"a grant to {path} must not raise a limit above {NANOUSD_MAX}")
    return line


def _line(connection: Connection, path: str, per: Period, now: int) -> BudgetLine:
    query = CURRENT.where(pot.c.path == path, pot.c.per == per)
    return _as_line(connection, connection.execute(query, {"now": now}).mappings().one(), now)


def _checked_grant(amount: Amounts, expires_at: datetime | None, now: int) -> int | None:
    """When a grant expires, in microseconds; raises UsageError for one that gives nothing, or that has expired."""
    for name in DIMENSIONS:
        _check_amount(f"grant {name}", getattr(amount, name))
    if not amount:
        raise UsageError("a grant needs an amount above zero", next_step="--usd 5, --tokens 100000 or --steps 10")
    if expires_at is None:
        return None
    if expires_at.tzinfo is None:
        raise UsageError(f"a grant expires at a time with a zone, not at {expires_at}")
    if to_us(expires_at) <= now:
        raise UsageError(f"a grant cannot expire at {expires_at}, which is past", next_step="--expires 2h")
    return to_us(expires_at)


_GRANTS = (
    select(grant, pot.c.path, pot.c.per, account.c.window)
    .join(account, account.c.id == grant.c.account_id)
    .join(pot, pot.c.id == account.c.pot_id)
)


def _find(connection: Connection, path: str, per: Period) -> RowMapping | None:
    return connection.execute(select(pot).where(pot.c.path == path, pot.c.per == per)).mappings().first()


def _parent(connection: Connection, path: str, organisation: str | None) -> str | None:
    """The budget above; all budgets of a tenant have its organisation's."""
    if organisation is not None:
        return f"org:{organisation}" if organisation else None
    found = connection.execute(select(pot.c.parent).where(pot.c.path == path)).scalars().first()
    return found or parent_of(path)


def _join(connection: Connection, path: str, parent: str | None, author: str, now: int) -> None:
    """Bring a tenant's budgets of all periods into its organisation, whoever set them."""
    elsewhere = select(pot).where(pot.c.path == path, pot.c.parent.is_distinct_from(parent)).order_by(pot.c.id)
    for row in connection.execute(elsewhere).mappings().all():
        wanted = {**row, "parent": parent, "set_by": author, "set_us": now}
        _put(connection, wanted, new=False, note=f"organisation {parent[4:]}" if parent else "no organisation")


def _put(connection: Connection, wanted: Mapping[str, Any], *, new: bool, note: str) -> None:
    """Write a pot as it is wanted, with its present window, and journal it."""
    now = wanted["set_us"]
    account_id = create_pot(connection, wanted, now) if new else _change(connection, wanted, now)
    arm(connection, account_id, now)
    journal(
        connection,
        chain=chain_of(wanted["path"]),
        kind="limit",
        at_us=now,
        accounts=json.dumps([account_id]),
        path=wanted["path"],
        limit={name: wanted.get(f"limit_{name}") for name in DIMENSIONS},
        author=wanted["set_by"],
        note=note,
        detail={name: wanted.get(name) for name in POLICY},
    )


def _holds(row: RowMapping, changed: Mapping[str, Any]) -> bool:
    return all(row[name] == value for name, value in changed.items())


def _change(connection: Connection, wanted: Mapping[str, Any], now: int) -> int:
    """Set new limits; the present window keeps what was used and what was granted. Returns its account's id."""
    connection.execute(update(pot).where(pot.c.id == wanted["id"]).values(**wanted))
    account_id = open_window(connection, wanted, now)
    limit_window(connection, wanted, account_id)
    return account_id


def _pot_to_grant(connection: Connection, path: str, per: Period | None) -> RowMapping:
    query = select(pot).where(pot.c.path == path).order_by(pot.c.id)
    rows = [row for row in connection.execute(query).mappings() if per in (None, row["per"])]
    if not rows:
        raise NotFoundError(f"there is no budget for {path}", next_step="bursar budget ls")
    if len(rows) > 1:
        raise UsageError(
            f"{path} has several budgets: {', '.join(row['per'] for row in rows)}",
            next_step=f"bursar budget grant {path} --per {rows[0]['per']} ...",
        )
    if rolling_us(rows[0]["per"]) is not None:
        raise UsageError(
            f"the budget of {path} per {rows[0]['per']} is rolling: it has no window to give to",
            next_step=f"bursar budget set {path} --per {rows[0]['per']} --usd ...",
        )
    return rows[0]


def _check(per: str, zone: str | None, limit: Mapping[str, int | None]) -> None:
    check_period(per)
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


def _checked_policy(
    per: Period,
    mode: str | None,
    rollover_percent: int | None,
    overdraft_percent: int | None,
    oversubscribed: bool | None,
    alerts: Sequence[int] | None,
) -> dict[str, Any]:
    """What was said of a budget's policy, as columns of its pot."""
    policy: dict[str, Any] = {}
    if mode is not None:
        if mode not in ("hard", "soft"):
            raise UsageError(f"mode {mode!r}: expected hard or soft")
        policy["mode"] = mode
    for name, percent in (("rollover_percent", rollover_percent), ("overdraft_percent", overdraft_percent)):
        if percent is None:
            continue
        _check_percent(name, percent, 0, PERCENT_MAX)
        if percent and (per == "total" or rolling_us(per) is not None):
            raise UsageError(f"{name}: a budget per {per} has no next window", next_step="--per month")
        policy[name] = percent
    if oversubscribed is not None:
        policy["oversubscribed"] = int(oversubscribed)
    if alerts is not None:
        for percent in alerts:
            _check_percent("alerts", percent, 1, ALERT_PERCENT_MAX)
        policy["alerts"] = json.dumps(sorted(set(alerts))) if alerts else None
    return policy


def _check_percent(name: str, percent: object, low: int, high: int) -> None:
    if type(percent) is not int or not low <= percent <= high:
        raise UsageError(f"{name} {percent!r}: expected a whole percent from {low} to {high}")


def _described(per: Period, policy: Mapping[str, Any]) -> str:
    said = [f"{name.removesuffix('_percent')} {value}" for name, value in policy.items() if value]
    return ", ".join([per, *said])


def _check_amount(what: str, value: object, otherwise: str = "") -> None:
    if type(value) is not int or not 0 <= value <= NANOUSD_MAX:
        raise UsageError(f"{what} {value!r}: expected a whole number from 0 to {NANOUSD_MAX}{otherwise}")


def _as_line(connection: Connection, row: RowMapping, now: int) -> BudgetLine:
    opened = row["account_id"] is not None
    window = window_at(row["per"], row["zone"], from_us(now))
    limit_prefix = "window_limit" if opened else "limit"
    posted, held = (amounts_in("posted", row), amounts_in("held", row)) if opened else (Amounts(), Amounts())
    name, ends_us = window.name, window.ends_us
    if (length := rolling_us(row["per"])) is not None:
        name = row["per"]
        found = rolled(connection, row["id"], row["per"], now)
        since, posted, held = found or (now, Amounts(), Amounts())
        ends_us = since + length
    return BudgetLine(
        path=row["path"],
        kind=row["kind"],
        per=row["per"],
        zone=row["zone"],
        window=name,
        resets_at=from_us(ends_us) if ends_us < FOREVER_US else None,
        limit={name: row[f"{limit_prefix}_{name}"] for name in DIMENSIONS},
        posted=posted,
        held=held,
        source=row["source"],
        mode=row["mode"],
        rollover_percent=row["rollover_percent"],
        overdraft_percent=row["overdraft_percent"],
        oversubscribed=bool(row["oversubscribed"]),
        alerts=tuple(json.loads(row["alerts"] or "[]")),
        parent=row["parent"],
    )


def _as_grant(row: RowMapping) -> GrantLine:
    return GrantLine(
        id=row["id"],
        path=row["path"],
        per=row["per"],
        window=row["window"],
        amount=amounts_in("amount", row),
        taken=amounts_in("taken", row),
        author=row["author"],
        note=row["note"],
        granted_at=from_us(row["granted_us"]),
        expires_at=None if row["expires_us"] is None else from_us(row["expires_us"]),
        ended_at=None if row["ended_us"] is None else from_us(row["ended_us"]),
    )
