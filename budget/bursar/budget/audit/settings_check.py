"""Checks what was set by somebody - budgets, grants, policies and prices - against the entries that say so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, select

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.audit.links import Finding
from bursar.budget.audit.tally import LIMIT, account_ids
from bursar.budget.budgets import POLICY
from bursar.budget.journal import hash_of
from bursar.budget.schema import grant, listed_price, policy, pot, price
from bursar.budget.stores.prepared import Record

__all__ = ["Settings"]

_AMOUNT = tuple(f"amount_{name}" for name in DIMENSIONS)
_TAKEN = tuple(f"taken_{name}" for name in DIMENSIONS)

Row = dict[str, Any]


class Settings:
    """What the journal says of budgets, grants, policies and prices, as far as it was read."""

    def __init__(self) -> None:
        self._said: dict[Table, dict[str, Row]] = {table: {} for table in _KEYS}

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
        for table, said in self._said.items():
            query = select(table).where(pot.c.source != "run") if table is pot else select(table)
            rows = connection.execution_options(yield_per=1_000).execute(query).mappings()
            what = _NAMES.get(table, table.name)
            for row in rows:
                key = " ".join(str(row[name]) for name in _KEYS[table])
                for problem in _differences(said.pop(key, None), row):
                    yield Finding(what=f"{what} {key}", problem=problem)
            for key in said:
                yield Finding(what=f"{what} {key}", problem="is missing; the journal says that it was set")

    def _limit(self, row: Record, detail: Mapping[str, Any]) -> None:
        set_with = {name: detail[name] for name in POLICY}
        limits = {name: row[name] for name in LIMIT}
        self._said[pot][f"{row['path']} {set_with['per']}"] = {
            **set_with,
            **limits,
            "path": row["path"],
            "set_by": row["author"],
            "set_us": row["at_us"],
        }

    def _grant(self, row: Record, detail: Mapping[str, Any]) -> None:
        (account_id,) = account_ids(row["accounts"])
        self._said[grant][str(detail["grant"])] = {
            "account_id": account_id,
            **{amount: row[limit] or 0 for amount, limit in zip(_AMOUNT, LIMIT, strict=True)},
            "key": detail["key"],
            "author": row["author"],
            "note": row["note"],
            "granted_us": row["at_us"],
            "expires_us": detail["expires_us"],
            "ended_us": None,
            **dict.fromkeys(_TAKEN, 0),
        }

    def _take_back(self, row: Record, detail: Mapping[str, Any]) -> None:
        said = self._said[grant][str(detail["grant"])]
        taken = {name: said[name] + (row[limit] or 0) for name, limit in zip(_TAKEN, LIMIT, strict=True)}
        said |= {"expires_us": detail["expires_us"], "ended_us": detail["ended_us"], **taken}

    def _policy(self, row: Record, detail: Mapping[str, Any]) -> None:
        by = {"set_by": row["author"], "set_us": row["at_us"]}
        self._said[policy][row["path"]] = {"unpriced": detail["unpriced"], "ceiling": detail["ceiling"], **by}

    def _price(self, row: Record, detail: Mapping[str, Any]) -> None:
        if "sha256" in detail:  # of a price that calls are charged at, when it is first used
            self._said[price][str(detail["price"])] = {"record": detail["sha256"]}
            return
        by = {"author": row["author"], "note": row["note"], "set_us": row["at_us"]}
        name = row["path"].removeprefix("price:")
        self._said[listed_price][f"{name} {detail['effective']}"] = {"record": detail, **by}


_READERS = {
    "limit": Settings._limit,
    "grant": Settings._grant,
    "carry": Settings._grant,
    "take_back": Settings._take_back,
    "policy": Settings._policy,
    "price": Settings._price,
}
_KEYS: dict[Table, tuple[str, ...]] = {
    pot: ("path", "per"),
    grant: ("id",),
    policy: ("path",),
    price: ("id",),
    listed_price: ("name", "effective"),
}
_NAMES = {pot: "budget", grant: "grant", listed_price: "listed price"}


def _differences(due: Row | None, row: RowMapping) -> Iterator[str]:
    if due is None:
        yield "the journal does not say that it was set"
        return
    for name, value in due.items():
        if not _agrees(row[name], value):
            yield f"{name} is {row[name]}; its entry says {value}"


def _agrees(kept: Any, said: Any) -> bool:
    """Whether a column says what its entry does: the same, the text of the same JSON, or what has its digest."""
    if kept == said:
        return True
    if isinstance(said, Mapping) and isinstance(kept, str):
        record = _record(kept)
        return said in (record, record.get("price"))
    return isinstance(kept, str) and said == hash_of("", kept)


def _record(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
