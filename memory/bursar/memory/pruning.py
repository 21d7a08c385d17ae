"""What may go of a thread, and what going on with it needs."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import ormsgpack
from sqlalchemy import Connection, delete, func, select
from sqlalchemy.engine import make_url

from bursar.budget.stores.store import Store
from bursar.memory.rows import Row
from bursar.memory.schema import checkpoint, segment, thread, write
from bursar.memory.strands import Beginning
from bursar.memory.threads import Held

__all__ = [
    "STRATEGIES",
    "delete_all",
    "delete_runs",
    "give_back",
    "keep_latest",
    "sweep",
    "threads_of",
    "threads_of_runs",
]

LOCKED_S_MAX: Final = 30.0
"""How long giving space back waits while others write."""


def delete_all(held: Held) -> None:
    """Delete a thread."""
    for table in (write, checkpoint, segment):
        held.connection.execute(delete(table).where(table.c.thread == held.number))
    if held.epoch is None:
        held.connection.execute(delete(thread).where(thread.c.id == held.number))
    else:  # whoever lost the thread still must not write to it
        held.strands.forget({})
        held.save_state()


def keep_latest(held: Held) -> None:
    """Delete all that going on with a thread does not need."""
    of_thread = checkpoint.c.thread == held.number
    ids = defaultdict(list)
    for ns, found in held.connection.execute(select(checkpoint.c.ns, checkpoint.c.id).where(of_thread)):
        ids[ns].append(found)
    for ns, found in ids.items():
        newest = max(found)
        if gone := set(found).difference(_needed(held, ns, newest)):
            _delete_checkpoints(held, ns, gone)
    if any(len(found) > 1 for found in ids.values()):
        sweep(held)


def threads_of_runs(connection: Connection, tenant: str, run_ids: Sequence[str]) -> Sequence[str]:
    """The threads of a tenant that have checkpoints of these runs."""
    of_thread = checkpoint.c.thread == thread.c.id
    found = select(thread.c.thread_id).join(checkpoint, of_thread).distinct()
    return connection.scalars(found.where(thread.c.tenant == tenant, checkpoint.c.run_id.in_(run_ids))).all()


def threads_of(connection: Connection, tenant: str, *, with_history: bool) -> Sequence[str]:
    """See `CheckpointSaver.threads`."""
    found = select(thread.c.thread_id).join(checkpoint, checkpoint.c.thread == thread.c.id)
    found = found.where(thread.c.tenant == tenant).order_by(thread.c.thread_id)
    if not with_history:
        return connection.scalars(found.distinct()).all()
    several = found.group_by(thread.c.thread_id, checkpoint.c.ns).having(func.count() > 1)
    return sorted(set(connection.scalars(several)))


def delete_runs(held: Held, run_ids: Sequence[str]) -> None:
    """Delete a thread's checkpoints of these runs."""
    found = select(checkpoint.c.ns, checkpoint.c.id).where(checkpoint.c.thread == held.number)
    for ns, gone in held.connection.execute(found.where(checkpoint.c.run_id.in_(run_ids))).all():
        _delete_checkpoints(held, ns, {gone})
    sweep(held)


def sweep(held: Held) -> None:
    """Delete what no checkpoint and no pending write of the thread has a part in."""
    used: dict[int, Beginning] = {}
    for part in _beginnings(held):
        if part.strand not in used or used[part.strand].length < part.length:
            used[part.strand] = part
    of_thread = delete(segment).where(segment.c.thread == held.number)
    held.connection.execute(of_thread.where(segment.c.strand.not_in(used)))
    for part in used.values():
        held.connection.execute(of_thread.where(segment.c.strand == part.strand, segment.c.start >= part.length))
    held.strands.forget(used)
    held.save_state()


def _delete_checkpoints(held: Held, ns: str, ids: Collection[str]) -> None:
    for table, column in ((write, write.c.checkpoint), (checkpoint, checkpoint.c.id)):
        held.connection.execute(delete(table).where(table.c.thread == held.number, table.c.ns == ns, column.in_(ids)))


def _needed(held: Held, ns: str, newest: str) -> Iterator[str]:
    """The newest checkpoint, and those before it that its DeltaChannels are made of."""
    sought: set[str] | None = None
    following: str | None = newest
    while following is not None and (row := held.row(ns, following)) is not None:
        yield following
        if sought is None:
            sought = _deltas(row)
        sought -= row.values.keys()
        following = row.parent if sought else None


def _deltas(row: Row) -> set[str]:
    _, facts = ormsgpack.unpackb(row.said, ext_hook=lambda _code, _data: None)
    return set(facts.get("counters_since_delta_snapshot") or ())


def _beginnings(held: Held) -> Iterator[Beginning]:
    for ns, found in _keys(held, checkpoint.c.id):
        row = held.row(ns, found)
        for _, value in row.values.values() if row else ():
            yield from (part for part in value.parts if isinstance(part, Beginning))
    for ns, found in _keys(held, write.c.checkpoint):
        for one in held.writes(ns, found):
            yield from (part for part in one.value.parts if isinstance(part, Beginning))


def _keys(held: Held, column: Any) -> Sequence[Any]:
    table = column.table
    return held.connection.execute(select(table.c.ns, column).where(table.c.thread == held.number).distinct()).all()


def give_back(store: Store) -> None:
    """See `CheckpointSaver.give_back`."""
    if store.dialect == "sqlite":  # not within a transaction, as every other statement is
        with closing(sqlite3.connect(str(make_url(store.url).database), timeout=LOCKED_S_MAX)) as connection:
            connection.execute("VACUUM")


STRATEGIES: Final[Mapping[str, Callable[[Held], None]]] = {"keep_latest": keep_latest, "delete": delete_all}
"""What pruning a thread can mean, by LangGraph's names."""
