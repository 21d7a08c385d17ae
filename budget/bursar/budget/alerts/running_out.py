"""Alerts when a limit will be used up before its window ends: once for each dimension and window."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select

from bursar.budget.alerts.outbox import Alert, known
from bursar.budget.alerts.thresholds import Watched, facts, limit_text, watched
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.schema import FOREVER_US, account, pot, reservation
from bursar.budget.whatif.forecast import Forecast, forecast
from bursar.budget.windows import from_us

__all__ = ["running_out"]

HOUR_US = 3_600_000_000
HOURS = 24
"""How much of the past is looked at hour by hour, and how old a window must be for a forecast."""

_Hourly = Mapping[int, Mapping[str, Sequence[int]]]
"""What was posted in each of the last hours, by account and dimension."""


def running_out(connection: Connection, now: int) -> list[Alert]:
    """The limits with alerts that their window will not get by with, and of which nobody was told yet.

    The method is `bursar.budget.whatif.forecast`: the window so far is one stretch and each of its last 24 hours
    another, so that a burst early in the window or late in it is no pace. It is told only where even the late end of
    the forecast's interval lies within the window. Windows of two days and more are looked at, from their second day
    on.
    """
    at_risk = [(row, name) for row in _open(connection, now) for name in DIMENSIONS if _at_risk(row, name, now)]
    keys = {_key(row, name): (row, name) for row, name in at_risk}
    for key in known(connection, keys):
        del keys[key]
    if not keys:
        return []
    hourly = _hourly(connection, {row["id"] for row, _ in keys.values()}, now)
    found = []
    for key, (row, name) in keys.items():
        expected = _forecast(row, name, hourly.get(row["id"], {}).get(name, [0] * HOURS), now)
        if expected.runs_out_at and expected.runs_out_earliest and expected.runs_out_latest:
            found.append(_alert(key, row, name, expected))
    return found


def _open(connection: Connection, now: int) -> list[Watched]:
    return watched(
        connection,
        pot.c.alerts.is_not(None),
        pot.c.kind.not_in(["run", "node"]),
        account.c.starts_us <= now - HOURS * HOUR_US,
        account.c.ends_us > now,
        account.c.ends_us < FOREVER_US,
    )


def _at_risk(row: Watched, dimension: str, now: int) -> bool:
    """Whether the mean pace of the window so far uses the limit up: without that, no forecast can."""
    limit, posted = row[f"limit_{dimension}"], row[f"posted_{dimension}"]
    if limit is None or not 0 < posted < limit:
        return False
    elapsed, whole = now - row["starts_us"], row["ends_us"] - row["starts_us"]
    return bool(posted * whole >= limit * elapsed)


def _hourly(connection: Connection, account_ids: set[int], now: int) -> _Hourly:
    """Summed by the accounts that calls were posted to, of which there are as many as there were runs."""
    since = now - HOURS * HOUR_US
    hour = ((reservation.c.reserved_us - since) // HOUR_US).label("hour")
    sums = [func.sum(reservation.c[f"posted_{name}"]).label(name) for name in DIMENSIONS]
    query = (
        select(reservation.c.accounts, hour, *sums)
        .where(reservation.c.reserved_us >= since, reservation.c.reserved_us < now)
        .group_by(reservation.c.accounts, hour)
    )
    found: dict[int, dict[str, list[int]]] = defaultdict(lambda: {name: [0] * HOURS for name in DIMENSIONS})
    for row in connection.execute(query).mappings():
        for account_id in account_ids.intersection(json.loads(row["accounts"])):
            for name in DIMENSIONS:
                found[account_id][name][row["hour"]] += int(row[name])
    return found


def _forecast(row: Watched, dimension: str, last_hours: Sequence[int], now: int) -> Forecast:
    spent, since = row[f"posted_{dimension}"], from_us(now - HOURS * HOUR_US)
    before = (from_us(row["starts_us"]), max(0, spent - sum(last_hours)))
    hours = [(since + timedelta(hours=place), amount) for place, amount in enumerate(last_hours)]
    return forecast(
        [before, *hours] if before[0] < since else hours,
        limit=row[f"limit_{dimension}"],
        spent=spent,
        now=from_us(now),
        window_end=from_us(row["ends_us"]),
    )


def _key(row: Watched, dimension: str) -> str:
    return f"limit.forecast:{row['id']}:{dimension}"


def _alert(key: str, row: Watched, dimension: str, expected: Forecast) -> Alert:
    on, earliest, latest = (
        _day(at, row) for at in (expected.runs_out_at, expected.runs_out_earliest, expected.runs_out_latest)
    )
    return Alert(
        key=key,
        kind="limit.forecast",
        tenant=row["tenant"],
        path=row["path"],
        message=f"{row['path']} is on pace to run out of {limit_text(row, dimension)} on {on}",
        data={
            **facts(row, dimension),
            "runs_out_on": on,
            "earliest": earliest,
            "latest": latest,
        },
    )


def _day(at: datetime | None, row: Watched) -> str | None:
    return at.astimezone(ZoneInfo(row["zone"])).date().isoformat() if at else None
