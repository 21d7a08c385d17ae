"""Walks the journal from its first entry to its last and finds where a chain is broken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping, func, select, tuple_

from bursar.budget.audit.tally import LIMIT, MOVED
from bursar.budget.errors import UsageError
from bursar.budget.journal import body_of, hash_of
from bursar.budget.schema import chain, entry, summary

__all__ = ["Finding", "Head", "Links", "entry_count", "is_whole", "pages"]

PAGE = 2_000
"""How many rows are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in the ledger that is not as its journal says."""

    what: str
    """`entry 17`, `reservation 5`, `account 3 (acme per month 2026-11)`, `summary 1 to 2000`, `price house`, ..."""

    problem: str
    chain: str | None = None
    """The tenant, or the organisation."""


class Head(NamedTuple):
    """The end of a chain at some time: whoever keeps it elsewhere can show later that nothing before was changed."""

    chain: str
    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.chain}:{self.number}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The head that `str` wrote; raises UsageError."""
        name, _, rest = text.rpartition(":")[0].rpartition(":")
        hashed = text.rpartition(":")[2]
        if not (name and rest.isascii() and rest.isdigit() and len(hashed) == 64):
            raise UsageError(
                f"head {text!r}: expected CHAIN:NUMBER:HASH, as verify prints it", next_step="acme:12:9f..."
            )
        return cls(name, int(rest), hashed)


def pages(connection: Connection) -> Iterator[Sequence[RowMapping]]:
    """All entries, one chain after the other, each in its order."""
    place = tuple_(*entry.primary_key)
    query = select(entry).order_by(*entry.primary_key).limit(PAGE)
    rows = connection.execute(query).mappings().all()
    while rows:
        yield rows
        rows = connection.execute(query.where(place > (rows[-1]["chain"], rows[-1]["number"]))).mappings().all()


class Links:
    """How far each chain was followed, and what was wrong on the way."""

    def __init__(self, heads: Iterable[Head] = ()) -> None:
        """`heads` are earlier ends of chains, which must still lie on them."""
        self._ends: dict[str, tuple[int, str]] = {}
        self._heads = {(head.chain, head.number): head.hash for head in heads}

    def skip(self, row: RowMapping) -> Iterator[Finding]:
        """Go on after a summary, in the place of the entries for which it stands."""
        name = row["chain"]
        number, hashed = self._ends.get(name, (0, ""))
        if (row["first_number"], row["first_hash"]) != (number + 1, hashed):
            yield Finding(chain=name, what=_span(row), problem=f"does not follow entry {number}")
        self._ends[name] = (row["last_number"], row["last_hash"])
        yield from self._compare(name, row["last_number"], row["last_hash"])
        for of, at in list(self._heads):
            if of == name and row["first_number"] <= at < row["last_number"]:
                del self._heads[of, at]
                problem = f"entry {at} was rolled up: keep the head {name}:{row['last_number']}:{row['last_hash']}"
                yield Finding(chain=name, what=f"head {at}", problem=problem)

    def follow(self, row: RowMapping) -> Iterator[Finding]:
        """Check the next entry; the one after it is checked against what this one says."""
        name, number = row["chain"], row["number"]
        last, hashed = self._ends.get(name, (0, ""))
        what = f"entry {number}"
        if type(number) is not int:
            yield Finding(chain=name, what=what, problem=f"stands after entry {last}, without a number")
            number = last + 1
        elif number > last + 1:
            yield Finding(chain=name, what=what, problem=f"{_entries(last + 1, number - 1)} missing before it")
        elif number <= last:
            yield Finding(chain=name, what=what, problem=f"stands after entry {last}: it was moved, or made up")
        elif row["hash"] != hash_of(hashed, body_of(row)):
            yield Finding(chain=name, what=what, problem="was changed: its hash does not follow from what it says")
        self._ends[name] = (number, row["hash"])
        yield from self._compare(name, number, row["hash"])

    def end(self, connection: Connection) -> Iterator[Finding]:
        """Check where each chain ends, and that every head was found."""
        kept = {row.name: (row.number, row.hash) for row in connection.execute(select(chain)) if row.number}
        for name in sorted(kept.keys() | self._ends.keys()):
            (number, hashed), (last, found) = kept.get(name, (0, "")), self._ends.get(name, (0, ""))
            if type(number) is int and number > last:
                yield Finding(chain=name, what="end", problem=f"{_entries(last + 1, number)} missing")
            elif (number, hashed) != (last, found):
                yield Finding(chain=name, what="end", problem=f"should be entry {last}, and is said to be {number}")
        for name, number in self._heads:
            yield Finding(chain=name, what=f"head {number}", problem="there is no such entry")

    def heads(self) -> list[Head]:
        """Where each chain ended."""
        return [Head(name, *self._ends[name]) for name in sorted(self._ends)]

    def _compare(self, name: str, number: int, hashed: str) -> Iterator[Finding]:
        head = self._heads.pop((name, number), hashed) if self._heads else hashed
        if head != hashed:
            yield Finding(chain=name, what=f"head {number}", problem=f"entry {number} has another hash: {hashed}")


def entry_count(connection: Connection) -> int:
    """How many entries there should be."""
    rolled_up = select(func.sum(summary.c.last_number - summary.c.first_number + 1)).scalar_subquery()
    numbered, gone = connection.execute(select(func.sum(chain.c.number), rolled_up)).one()
    return int(numbered or 0) - int(gone or 0)


def is_whole(row: Mapping[str, object] | RowMapping) -> bool:
    """Whether an entry's amounts are numbers, so that they can be added up; SQLite keeps anything in any column."""
    return all(type(row[name]) is int for name in MOVED) and all(type(row[name]) in (int, type(None)) for name in LIMIT)


def _span(row: RowMapping) -> str:
    return f"summary {row['first_number']} to {row['last_number']}"


def _entries(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"
