"""Retention: entries older than a cutoff are rolled up into signed summaries, and the calls of old runs into sums.

Balances, limits and reports stay what they were, and `verify` still passes. What may be needed again is kept: calls in
flight, calls of unknown outcome, and every call of a run that was touched since the cutoff, that somebody executes or
that the caller names. A run whose calls are rolled up is closed: it could only pay for them again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, func, insert, or_, select, update

from bursar.budget.audit.changes import ROUTINE
from bursar.budget.audit.rollups import rollups_of
from bursar.budget.audit.summaries import Kept, check_key, signature_of
from bursar.budget.audit.tally import MOVED, tallied
from bursar.budget.errors import LedgerError, UsageError
from bursar.budget.journal import body_of, claim, hash_of, journal
from bursar.budget.schema import chain, entry, pot, reservation, rollup, summary
from bursar.budget.stores.store import Store
from bursar.budget.windows import to_us

__all__ = ["BATCH", "Compacted", "compact", "old_entries"]

BATCH = 1_000
"""How many entries one transaction rolls up: so long, at most, does anybody wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What was rolled up."""

    entries: int = 0
    reservations: int = 0
    runs: int = 0
    """Runs that were closed, because calls of theirs are gone."""

    summaries: int = 0

    def __add__(self, other: Compacted) -> Compacted:
        return Compacted(
            entries=self.entries + other.entries,
            reservations=self.reservations + other.reservations,
            runs=self.runs + other.runs,
            summaries=self.summaries + other.summaries,
        )


def compact(
    store: Store,
    *,
    before: datetime,
    key: bytes | None,
    author: str,
    clock: Callable[[], datetime],
    keep: Collection[str] = (),
    progress: Callable[[Compacted], None] = lambda _done: None,
) -> Compacted:
    """Roll up what is older than `before`, in small transactions: it may be ended at any time, and gone on with.

    Verify first: calls are summed up as their rows are. `key` is the secret that signs. `keep` are the ids of runs that
    may still be resumed. Any number of processes may do this at once. Raises UsageError for a missing or short key and
    a time that is not past, LedgerError where a chain is broken: what was tampered with is not rolled up.
    """
    secret, cutoff = check_key(key), to_us(before)
    if before > clock():
        raise UsageError(f"entries before {before} cannot be rolled up: that is not past", next_step="--older-than 90d")
    with store.read() as connection:
        names = list(connection.execute(select(chain.c.name).order_by(chain.c.name)).scalars())
    done = Compacted()
    for name in names:
        late = _late(store, name)
        while True:
            with store.write() as connection:
                batch = _Batch(connection, name, cutoff, frozenset(keep))
                if not batch.entries:
                    break
                done += batch.roll_up(late[:BATCH], secret, author, to_us(clock()))
            late = [*late[BATCH:], *batch.kept]
            progress(done)
    return done


def old_entries(store: Store, before: datetime) -> int:
    """How many entries are older than this, and not rolled up yet."""
    with store.read() as connection:
        counted = select(func.count()).select_from(entry).where(entry.c.at_us < to_us(before))
        return int(connection.execute(counted).scalar_one())


class _Batch:
    """The oldest entries of a chain that are not rolled up yet, in one transaction."""

    def __init__(self, connection: Connection, name: str, cutoff: int, keep: frozenset[str]) -> None:
        claim(connection, [name])
        self._connection, self._chain, self._cutoff, self._keep = connection, name, cutoff, keep
        self._number, self._hash = self._end_of_summaries()
        self.entries = list(self._old_entries())
        self.kept: list[int] = []
        """Reservations of these entries whose rows stay."""

    def roll_up(self, late: Iterable[int], key: bytes, author: str, now: int) -> Compacted:
        """Put a signed summary in the place of these entries, and sums in the place of calls that nobody needs.

        `late` are reservations whose entries were rolled up earlier.
        """
        moved = _moved(self.entries)
        gone = self._closed({*moved, *late})
        self.kept = [one for one in moved if one not in {row["id"] for row in gone}]
        runs = sorted({row["run_id"] for row in gone})
        self._summarize(moved, gone, key, author, now)
        self._connection.execute(delete(reservation).where(reservation.c.id.in_([row["id"] for row in gone])))
        closing = update(pot).where(pot.c.run_id.in_(runs), pot.c.epoch.is_not(None), pot.c.cancelled_us.is_(None))
        closed = self._connection.execute(closing.values(cancelled_us=now)).rowcount
        done = Compacted(entries=len(self.entries), reservations=len(gone), runs=closed, summaries=1)
        detail = {"first": self._number + 1, "last": self._last, "reservations": len(gone), "runs": closed}
        journal(
            self._connection,
            chain=self._chain,
            kind="compact",
            at_us=now,
            path=self._chain,
            author=author,
            detail=detail,
        )
        return done

    @property
    def _last(self) -> int:
        return int(self.entries[-1]["number"])

    def _end_of_summaries(self) -> tuple[int, str]:
        ends = select(summary.c.last_number, summary.c.last_hash).where(summary.c.chain == self._chain)
        row = self._connection.execute(ends.order_by(summary.c.last_number.desc()).limit(1)).first()
        return (0, "") if row is None else (row.last_number, row.last_hash)

    def _old_entries(self) -> Iterator[RowMapping]:
        of_chain = select(entry).where(entry.c.chain == self._chain, entry.c.number > self._number)
        number, before = self._number, self._hash
        for row in self._connection.execute(of_chain.order_by(entry.c.number).limit(BATCH)).mappings().all():
            if row["at_us"] >= self._cutoff:
                return
            if row["number"] != number + 1 or row["hash"] != hash_of(before, body_of(row)):
                raise LedgerError(
                    f"the journal of {self._chain} is broken at entry {row['number']}, so it is not rolled up",
                    next_step="bursar budget verify",
                )
            number, before = row["number"], row["hash"]
            yield row

    def _closed(self, ids: Collection[int]) -> list[RowMapping]:
        """The reservations among these that nobody needs any more, and what has to go with them.

        Attempts at one call go together, so that it stays known which of them were retries; where a run took slices,
        so do all of its calls, since those of a slice have no entries of their own.
        """
        found = self._rows(reservation.c.id.in_(ids))
        runs = {row["run_id"] for row in found}
        idle = runs - self._keep - self._active(runs)
        sliced = {row["run_id"] for row in self._rows(self._of(idle, reservation.c.kind == "slice"))}
        calls = reservation.c.call.in_({row["call"] for row in found})
        groups: dict[tuple[str, str], list[RowMapping]] = defaultdict(list)
        for row in self._rows(self._of(idle, or_(calls, reservation.c.run_id.in_(sliced)))):
            groups[row["run_id"], "" if row["run_id"] in sliced else row["call"]].append(row)
        moving = self._have_later_entries([row["id"] for group in groups.values() for row in group])
        return [row for group in groups.values() if not {one["id"] for one in group} & moving for row in group]

    def _of(self, runs: Collection[str], which: ColumnElement[bool]) -> ColumnElement[bool]:
        return and_(reservation.c.run_id.in_(runs), which)

    def _rows(self, which: ColumnElement[bool]) -> list[RowMapping]:
        return list(self._connection.execute(select(reservation).where(which)).mappings())

    def _have_later_entries(self, ids: Collection[int]) -> set[int]:
        later = select(entry.c.reservation_id).where(entry.c.reservation_id.in_(ids), entry.c.number > self._last)
        return set(self._connection.execute(later).scalars())

    def _active(self, runs: Collection[str]) -> set[str]:
        """Those of the runs that something is left of, or that were touched since the cutoff."""
        since = self._cutoff
        calls = select(reservation.c.run_id).where(
            reservation.c.run_id.in_(runs),
            or_(
                reservation.c.state.in_(["reserved", "dispatched"]),
                reservation.c.outcome == "unknown",
                reservation.c.reserved_us >= since,
                reservation.c.closed_us >= since,
            ),
        )
        held = select(pot.c.run_id).where(pot.c.run_id.in_(runs), pot.c.lease_until_us >= since)
        changed = (select(pot.c.run_id).join(entry, entry.c.path == pot.c.path).where(pot.c.run_id.in_(runs))).where(
            entry.c.at_us >= since
        )
        return {run for query in (calls, held, changed) for run in self._connection.execute(query).scalars()}

    def _summarize(
        self, moved: dict[int, list[int]], gone: Sequence[RowMapping], key: bytes, author: str, now: int
    ) -> None:
        kept: dict[int, list[int] | None] = {**moved, **{row["id"]: None for row in gone}}
        row = {
            "chain": self._chain,
            "first_number": self._number + 1,
            "last_number": self._last,
            "first_hash": self._hash,
            "last_hash": self.entries[-1]["hash"],
            "balances": json.dumps(tallied(self.entries)),
            "reservations": json.dumps(kept),
            "changes": json.dumps([dict(one) for one in self.entries if _says_who(one)]),
            "author": author,
            "made_us": now,
        }
        sums = rollups_of(gone)
        made = insert(summary).values(**row, signature=signature_of(key, row, sums)).returning(summary.c.id)
        summary_id = self._connection.execute(made).scalar_one()
        if sums:
            self._connection.execute(insert(rollup), [{**one, "summary_id": summary_id} for one in sums])
        of_chain = and_(entry.c.chain == self._chain, entry.c.number > self._number, entry.c.number <= self._last)
        self._connection.execute(delete(entry).where(of_chain))


def _late(store: Store, name: str) -> list[int]:
    """Reservations of which entries were rolled up earlier, and whose rows were still needed then."""
    kept = Kept()
    records = select(summary.c.reservations).where(summary.c.chain == name).order_by(summary.c.last_number)
    with store.read() as connection:
        for record in connection.execute(records).scalars():
            kept.add(record)
    return list(kept.sums)


def _moved(entries: Iterable[RowMapping]) -> dict[int, list[int]]:
    """What these entries held and posted for each reservation."""
    found: dict[int, list[int]] = defaultdict(lambda: [0] * len(MOVED))
    for row in entries:
        if row["reservation_id"] is not None:
            sums = found[row["reservation_id"]]
            sums[:] = [sums[at] + row[name] for at, name in enumerate(MOVED)]
    return dict(found)


def _says_who(row: RowMapping) -> bool:
    """Whether an entry is one that people ask for years later: who changed what, and why."""
    return row["detail"] is not None or (row["path"] is not None and row["kind"] not in ROUTINE)
