"""Checks what was set by somebody - budgets, grants and the prices of calls - against the entries that say so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, select

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.budgets import POLICY
from bursar.budget.journal import hash_of
from bursar.budget.links import Finding
from bursar.budget.prepared import Record
from bursar.budget.schema import grant, pot, price
from bursar.budget.tally import account_ids

__all__ = ["Settings"]

_LIMIT = tuple(f"limit_{name}" for name in DIMENSIONS)
_AMOUNT = tuple(f"amount_{name}" for name in DIMENSIONS)
_TAKEN = tuple(f"taken_{name}" for name in DIMENSIONS)

Row = dict[str, Any]


class Settings:
    """What the journal says of budgets, grants and prices, as far as it was read."""

    def __init__(self) -> None:
        self._pots: dict[str, Row] = {}
        self._grants: dict[str, Row] = {}
        self._prices: dict[str, Row] = {}

    def add(self, entries: Iterable[Record]) -> None:
        """Take in the next entries; those that set nothing are passed over."""
        for row in entries:
            if row["detail"] is None or row["kind"] not in _READERS:
                continue
            try:
                detail = json.loads(row["detail"])
                _READERS[row["kind"]](self, row, detail)
            except (ValueError, TypeError, KeyError, IndexError):  # its hash says that it was changed
                continue

    def check(self, connection: Connection) -> Iterator[Finding]:
        """Compare every row with what was said of it."""
        pots = select(pot).where(pot.c.kind != "run")
        yield from _compared("budget", self._pots, _by(connection, pots, lambda row: f"{row['path']} {row['per']}"))
        yield from _compared("grant", self._grants, _by(connection, select(grant), lambda row: str(row["id"])))
        yield from _compared("price", self._prices, _by(connection, select(price), lambda row: str(row["id"])))

    def _limit(self, row: Record, detail: Mapping[str, Any]) -> None:
        policy = {name: detail[name] for name in POLICY}
        limits = {name: row[name] for name in _LIMIT}
        self._pots[f"{row['path']} {policy['per']}"] = {
            **policy,
            **limits,
            "path": row["path"],
            "set_by": row["author"],
            "set_us": row["at_us"],
        }

    def _grant(self, row: Record, detail: Mapping[str, Any]) -> None:
        (account_id,) = account_ids(row["accounts"])
        self._grants[str(detail["grant"])] = {
            "account_id": account_id,
            **{amount: row[limit] or 0 for amount, limit in zip(_AMOUNT, _LIMIT, strict=True)},
            "key": detail["key"],
            "author": row["author"],
            "note": row["note"],
            "granted_us": row["at_us"],
            "expires_us": detail["expires_us"],
            "ended_us": None,
            **dict.fromkeys(_TAKEN, 0),
        }

    def _take_back(self, row: Record, detail: Mapping[str, Any]) -> None:
        taken = {name: row[limit] or 0 for name, limit in zip(_TAKEN, _LIMIT, strict=True)}
        self._grants[str(detail["grant"])] |= {"ended_us": row["at_us"], **taken}

    def _price(self, row: Record, detail: Mapping[str, Any]) -> None:
        self._prices[str(detail["price"])] = {"sha256": detail["sha256"]}


_READERS = {
    "limit": Settings._limit,
    "grant": Settings._grant,
    "carry": Settings._grant,
    "take_back": Settings._take_back,
    "price": Settings._price,
}


def _by(connection: Connection, query: Any, key: Any) -> Iterator[tuple[str, Row]]:
    for row in connection.execution_options(yield_per=1_000).execute(query).mappings():
        found = dict(row)
        if "record" in found:
            found["sha256"] = hash_of("", found["record"])
        yield key(row), found


def _compared(what: str, said: dict[str, Row], rows: Iterable[tuple[str, Row]]) -> Iterator[Finding]:
    for key, row in rows:
        due = said.pop(key, None)
        if due is None:
            yield Finding(what=f"{what} {key}", problem="the journal does not say that it was set")
            continue
        for name, value in due.items():
            if row[name] != value:
                yield Finding(what=f"{what} {key}", problem=f"{name} is {row[name]}; its entry says {value}")
    for key in said:
        yield Finding(what=f"{what} {key}", problem="is missing; the journal says that it was set")
