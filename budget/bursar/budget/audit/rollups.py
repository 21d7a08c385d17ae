"""Sums of calls by day and by all that reports tell apart, for calls whose own rows are no longer needed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.stores.prepared import Record

__all__ = ["rollups_of"]

DAY_US = 86_400_000_000

_BY = (
    "organisation",
    "tenant",
    "team",
    "user",
    "agent",
    "node",
    "tier",
    "model",
    "kind",
    "state",
    "outcome",
    "price_id",
)
_SUMS = (
    *("calls", "retries", "retries_nanousd", "aborted", "aborted_nanousd", "overage", "overage_nanousd"),
    *("replayed", "replayed_nanousd"),
    *(f"posted_{name}" for name in DIMENSIONS),
)


def rollups_of(reservations: Sequence[Record]) -> list[dict[str, Any]]:
    """A row of the table `rollup` for each day and combination, without the summary that it belongs to.

    All attempts at a call are to be among the reservations, or none.
    """
    sums: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    usage: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    charged_first = _charged_first(reservations)
    for row in reservations:
        key = (row["reserved_us"] // DAY_US * DAY_US, *(row[name] for name in _BY))
        sums[key].update(
            _sums(row, is_retry=row["attempt"] > charged_first.get((row["run_id"], row["call"]), row["attempt"]))
        )
        counts = json.loads(row["usage"] or "{}") if row["outcome"] != "unknown" else {}
        usage[key].update({name: count for name, count in counts.items() if type(count) is int})
    return [
        {
            **dict(zip(("day_us", *_BY), key, strict=True)),
            **{name: of[name] for name in _SUMS},
            "usage": json.dumps(usage[key]) if usage[key] else None,
        }
        for key, of in sums.items()
    ]


def _charged_first(reservations: Iterable[Record]) -> dict[tuple[str, str], int]:
    """The first attempt at each call that was charged: the others after it are retries."""
    first: dict[tuple[str, str], int] = {}
    for row in reservations:
        if row["state"] == "settled":
            call = (row["run_id"], row["call"])
            first[call] = min(first.get(call, row["attempt"]), row["attempt"])
    return first


def _sums(row: Record, *, is_retry: bool) -> dict[str, int]:
    posted, held = row["posted_nanousd"], row["held_nanousd"]
    found = {"calls": 1, **{f"posted_{name}": row[f"posted_{name}"] for name in DIMENSIONS}}
    if row["state"] != "settled":
        return found
    parts = {
        "retries": (is_retry, posted),
        "aborted": (row["kind"] == "model" and row["reply"] is None and row["outcome"] != "unknown", posted),
        "overage": (posted > held, posted - held),
    }
    for name, (counts, nanousd) in parts.items():
        if counts:
            found |= {name: 1, f"{name}_nanousd": nanousd}
    return found | {"replayed": row["replays"], "replayed_nanousd": row["replays"] * posted}
