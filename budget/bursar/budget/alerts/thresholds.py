"""Alerts when a percent of a limit is used up: once for each percent, dimension and window.

Every account carries in `alert_*` what is posted when its next alert is due, so that a settle needs no more than a
comparison to know that there is nothing to tell. In a rolling window each bucket carries a share of the way that is
left to the next percent: the window cannot get there before one of its buckets has used up its share.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, update

from bursar.budget.alerts.outbox import Alert, amount_json, known, tell
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.money import format_usd
from bursar.budget.refusal import Refusal
from bursar.budget.schema import FOREVER_US, account, alert, pot
from bursar.budget.windows import from_us, rolling_us

__all__ = ["Watched", "arm", "facts", "fire", "limit_text", "next_alerts", "refused", "watched"]

Watched = dict[str, Any]
"""A pot joined to the account of a window; of a rolling one, to its newest bucket with the balance of all."""

_WATCHED = select(
    account, *(pot.c[name] for name in ("path", "kind", "tenant", "per", "zone", "mode", "alerts"))
).join_from(account, pot)


def next_alerts(
    limit: Mapping[str, int | None], percents: Iterable[int], fired: Collection[tuple[str, int]] = ()
) -> dict[str, int | None]:
    """What is posted when the next alert of each dimension is due; None where nothing is left to tell.

    `limit` is by dimension, None for no limit; `fired` are the dimensions and percents of which this window was told.
    """
    left = {name: [percent for percent in percents if (name, percent) not in fired] for name in DIMENSIONS}
    return {
        name: min((_threshold(bound, percent) for percent in left[name]), default=None)
        if (bound := limit.get(name)) is not None
        else None
        for name in DIMENSIONS
    }


def fire(connection: Connection, account_ids: Collection[int], now: int, *, run_id: str | None = None) -> int:
    """Tell what these accounts have reached, and arm what comes next; returns the number of alerts.

    To be called in the transaction that posts to accounts of which some `posted_*` then is at its `alert_*` or above.
    `run_id` is the run whose call did it.
    """
    rows = watched(connection, account.c.id.in_(account_ids))
    return sum(_look(connection, row, now, run_id) for row in rows)


def arm(connection: Connection, account_id: int, now: int) -> None:
    """Set what is posted when the next alerts of an account are due; what is due already is told at once.

    To be called in the transaction that opens an account, changes its limit, or its pot's percents.
    """
    fire(connection, (account_id,), now)


def refused(connection: Connection, account_id: int, dimension: str, now: int, *, run_id: str | None = None) -> int:
    """Tell that a hard limit refuses calls: it counts as the 100 % that it may never quite come to."""
    rows = watched(connection, account.c.id == account_id)
    return sum(_look(connection, row, now, run_id, refusing=dimension) for row in rows)


def facts(row: Watched, dimension: str) -> dict[str, Any]:
    """What every alert about a limit says in its data."""
    per, ends_us = row["per"], row["ends_us"]
    refusal = Refusal(cause="limit", kind=row["kind"], path=row["path"], dimension=dimension, per=per)
    return {
        "dimension": "usd" if dimension == "nanousd" else dimension,
        "limit": amount_json(dimension, row[f"limit_{dimension}"]),
        "spent": amount_json(dimension, row[f"posted_{dimension}"]),
        "held": amount_json(dimension, row[f"held_{dimension}"]),
        "mode": row["mode"],
        "per": per,
        "window": _window_name(row),
        "resets_at": from_us(ends_us).isoformat() if ends_us < FOREVER_US else None,
        "next": refusal.next_step,
    }


def limit_text(row: Watched, dimension: str) -> str:
    """A limit and its window for people: `$400.00 (2026-11)`, `2,000 steps`."""
    window = _window_name(row)
    return _shown(dimension, row[f"limit_{dimension}"]) + (f" ({window})" if window else "")


def watched(connection: Connection, *which: ColumnElement[bool]) -> list[Watched]:
    """The accounts of a condition, each joined to its pot."""
    # In one order for all, so that row locks never cross; of one pot, the oldest window first.
    query = _WATCHED.where(*which).order_by(account.c.pot_id, account.c.starts_us)
    return [dict(row) for row in connection.execute(query).mappings()]


def _threshold(limit: int, percent: int) -> int:
    """The least amount that is so many percent of a limit; of a limit of 0, the first that is spent at all."""
    return max(1, -(-limit * percent // 100))


def _look(connection: Connection, row: Watched, now: int, run_id: str | None, refusing: str = "") -> int:
    percents: list[int] = json.loads(row["alerts"] or "[]")
    if not percents and all(row[f"alert_{name}"] is None for name in DIMENSIONS):
        return 0
    window = _window(connection, row, now)
    whole = _as_one(window)
    fired = _fired(connection, whole, percents, now)
    new = [one for one in _reached(whole, percents, refusing) if one not in fired]
    _set(connection, window, whole, next_alerts(_limit(whole), percents, {*fired, *new}))
    return tell(connection, [_alert(whole, *one, run_id, refusing) for one in new], now)


def _window(connection: Connection, row: Watched, now: int) -> Sequence[Watched]:
    """The accounts of which a window is made, the oldest first."""
    length = rolling_us(row["per"])
    if length is None:
        return [row]
    buckets = and_(account.c.pot_id == row["pot_id"], account.c.ends_us > now - length)
    return watched(connection, buckets) or [row]


def _as_one(window: Sequence[Watched]) -> Watched:
    if rolling_us(window[0]["per"]) is None:
        return window[0]
    sums = {
        f"{side}_{name}": sum(row[f"{side}_{name}"] for row in window)
        for side in ("posted", "held")
        for name in DIMENSIONS
    }
    frees_us = window[0]["starts_us"] + rolling_us(window[0]["per"])
    return {**window[-1], **sums, "ends_us": frees_us}


def _limit(row: Watched) -> dict[str, int | None]:
    return {name: row[f"limit_{name}"] for name in DIMENSIONS}


def _reached(row: Watched, percents: Sequence[int], refusing: str) -> list[tuple[str, int]]:
    return [
        (name, percent)
        for name, limit in _limit(row).items()
        for percent in percents
        if limit is not None
        and (row[f"posted_{name}"] >= _threshold(limit, percent) or (name, percent) == (refusing, 100))
    ]


def _fired(connection: Connection, row: Watched, percents: Sequence[int], now: int) -> set[tuple[str, int]]:
    """Of which dimensions and percents this window was told; a rolling one, in the last of its lengths."""
    length = rolling_us(row["per"])
    if length is None:
        keys = {_key(row, name, percent): (name, percent) for name in DIMENSIONS for percent in percents}
        return {keys[key] for key in known(connection, keys)}
    told = select(alert.c.payload).where(
        alert.c.tenant == row["tenant"],
        alert.c.path == row["path"],
        alert.c.kind == "limit.percent",
        alert.c.at_us > now - length,
    )
    found = [json.loads(payload)["data"] for payload in connection.scalars(told)]
    return {
        ("nanousd" if data["dimension"] == "usd" else data["dimension"], data["percent"])
        for data in found
        if data["per"] == row["per"]
    }


def _set(connection: Connection, window: Sequence[Watched], whole: Watched, due: Mapping[str, int | None]) -> None:
    """Arm each account of a window with its share of the way to what is due next."""
    ways = {name: None if at is None else at - whole[f"posted_{name}"] for name, at in due.items()}
    for row in window:
        armed = {
            f"alert_{name}": None
            if way is None
            else row[f"posted_{name}"] + _share(way, len(window), row is window[-1])
            for name, way in ways.items()
        }
        if any(row[column] != at for column, at in armed.items()):
            connection.execute(update(account).where(account.c.id == row["id"]).values(**armed))


def _share(way: int, buckets: int, newest: bool) -> int:
    """Half of the way for the newest bucket, to which nearly all is posted, and the rest for the others.

    All shares together are at most the way: it cannot be gone while every bucket is below its share.
    """
    rest = way // 2 if buckets > 1 else 0
    return way - rest if newest else rest // (buckets - 1)


def _key(row: Watched, dimension: str, percent: int) -> str:
    return f"limit.percent:{row['id']}:{dimension}:{percent}"


def _alert(row: Watched, dimension: str, percent: int, run_id: str | None, refusing: str) -> Alert:
    spent = _shown(dimension, row[f"posted_{dimension}"])
    limit = limit_text(row, dimension)
    what = "refuses calls:" if refusing == dimension else f"has used {percent} %:"
    return Alert(
        key=_key(row, dimension, percent),
        kind="limit.percent",
        tenant=row["tenant"],
        path=row["path"],
        run_id=run_id,
        message=f"{row['path']} {what} {spent} of {limit}",
        data={**facts(row, dimension), "percent": percent},
    )


def _window_name(row: Watched) -> str:
    per, window = row["per"], row["window"]
    return str(window if rolling_us(per) is None else per)


def _shown(dimension: str, amount: int) -> str:
    if dimension == "nanousd":
        return format_usd(amount)
    unit = dimension.replace("_", " ")
    return f"{amount:,} {unit if amount != 1 else unit[:-1]}"
