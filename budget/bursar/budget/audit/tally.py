"""What the entries of the journal come to in each account, from nothing but the entries."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from operator import add
from typing import Any, NamedTuple, Self

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.stores.prepared import Record

__all__ = ["LIMIT", "MOVED", "Tallies", "Tally", "account_ids", "tallied"]

MOVED = tuple(f"{side}_{name}" for side in ("held", "posted") for name in DIMENSIONS)
"""The columns of an entry that change a balance, and of an account that hold it."""

LIMIT = tuple(f"limit_{name}" for name in DIMENSIONS)
"""The columns of an entry that set or grant a limit, and of an account that hold it."""

ACCOUNTS_MAX = 20_000
"""How many accounts are kept in memory; more are kept in a file."""

_SETS = ("open", "limit", "retune", "window")
_GRANTS = {"grant": 1, "carry": 1, "take_back": -1}

Amount = tuple[int | None, ...]


class Tally(NamedTuple):
    """What some entries, in their order, did to one account."""

    path: str | None = None
    """The scope whose account it is, where one of the entries says so."""

    moved: tuple[int, ...] = (0,) * len(MOVED)
    """Changes of what is held and posted, in the order of `MOVED`."""

    base: Amount | None = None
    """The limit that was set last, before grants; None where none of the entries set one."""

    granted: tuple[int, ...] = (0,) * len(DIMENSIONS)
    """What grants gave, less what was taken back."""

    @property
    def limit(self) -> Amount:
        """The limits that follow: a dimension without a limit stays without one, whatever is granted."""
        base = self.base or (None,) * len(DIMENSIONS)
        return tuple(None if of is None else of + more for of, more in zip(base, self.granted, strict=True))

    def then(self, later: Tally) -> Tally:
        """What these entries and later ones did together."""
        return Tally(
            later.path or self.path,
            tuple(map(add, self.moved, later.moved)),
            self.base if later.base is None else later.base,
            tuple(map(add, self.granted, later.granted)),
        )

    @classmethod
    def of_record(cls, record: Iterable[Any]) -> Self:
        """The tally that was written as JSON."""
        path, moved, base, granted = record
        return cls(path, tuple(moved), None if base is None else tuple(base), tuple(granted))


def tallied(entries: Iterable[Record]) -> dict[int, Tally]:
    """What these entries did to each account, by its id."""
    found: dict[int, Tally] = {}
    moves: dict[str, tuple[int, ...]] = defaultdict(lambda: (0,) * len(MOVED))
    for row in entries:
        if row["reservation_id"] is not None:  # nearly all are: those of one run name the same accounts
            moves[row["accounts"]] = tuple(map(add, moves[row["accounts"]], (row[name] for name in MOVED)))
            continue
        change = _change(row)
        for key in account_ids(row["accounts"]) if change is not None else ():
            found[key] = found.get(key, _NOTHING).then(change or _NOTHING)
    for accounts, moved in moves.items():
        for key in account_ids(accounts):
            found[key] = found.get(key, _NOTHING).then(Tally(moved=moved))
    return found


def account_ids(accounts: str | None) -> list[int]:
    """The accounts that an entry names; none where the text is not what the ledger writes."""
    try:
        ids = json.loads(accounts or "[]")
    except ValueError:
        return []
    return ids if isinstance(ids, list) and all(type(key) is int for key in ids) else []


class Tallies:
    """Tallies of any number of accounts, of which a bounded number is in memory."""

    def __init__(self) -> None:
        self._recent: dict[int, Tally] = {}
        self._file = sqlite3.connect("")  # in a file without a name, once it has grown
        self._file.execute("CREATE TABLE tally (account INTEGER PRIMARY KEY, record TEXT)")

    def add(self, later: Mapping[int, Tally]) -> None:
        """Take in what later entries did."""
        for key, tally in later.items():
            self._recent[key] = self._recent.get(key, _NOTHING).then(tally)
        if len(self._recent) > ACCOUNTS_MAX:
            self._put_away()

    def between(self, after: int, last: int | None) -> dict[int, Tally]:
        """The accounts with `after < id <= last`, or with all ids above `after`."""
        self._put_away()
        rows = self._file.execute(
            "SELECT account, record FROM tally WHERE account > ? AND account <= coalesce(?, account)", (after, last)
        )
        return {key: Tally.of_record(json.loads(record)) for key, record in rows}

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def _put_away(self) -> None:
        self._file.executemany("REPLACE INTO tally VALUES (?, ?)", list(self._merged()))
        self._recent.clear()

    def _merged(self) -> Iterator[tuple[int, str]]:
        for key, later in self._recent.items():
            kept = self._file.execute("SELECT record FROM tally WHERE account = ?", (key,)).fetchone()
            earlier = Tally.of_record(json.loads(kept[0])) if kept else _NOTHING
            yield key, json.dumps(earlier.then(later))


_NOTHING = Tally()


def _change(row: Record) -> Tally | None:
    """What an entry that belongs to no call did to its account."""
    amounts = tuple(row[name] for name in LIMIT)
    if row["kind"] in _SETS:
        return Tally(path=row["path"], base=amounts)
    if (sign := _GRANTS.get(row["kind"])) is not None:
        return Tally(granted=tuple(sign * (amount or 0) for amount in amounts))
    return None
