"""A thread's rows in one transaction: what is read and written there, and by whom it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import ormsgpack
from sqlalchemy import Connection, Table, and_, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert  # SQLite understands it as well

from bursar.budget.stores.prepared import Prepared
from bursar.memory.errors import CheckpointFenced, CheckpointRefused
from bursar.memory.rows import Kept, Row, opened, sealed
from bursar.memory.schema import checkpoint, segment, thread, write
from bursar.memory.strands import Beginning, Strands, digest_of, joined

__all__ = ["Held", "Place", "Rows", "WriteRow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a checkpoint lies, or is to lie."""

    tenant: str
    thread_id: str
    ns: str = ""
    id: str | None = None
    """None for the newest."""

    epoch: int | None = None
    """With which the writer holds the thread; None where it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRow:
    """A pending write."""

    task: str
    idx: int
    path: str
    channel: str
    value: Kept


def _matches(table: Table, *names: str) -> Any:
    return and_(*(table.c[name] == bindparam(name) for name in names))


_THREAD: Final = Prepared(select(thread.c.id).where(_matches(thread, "tenant", "thread_id")))
_HOLD: Final = Prepared(
    select(thread.c.id, thread.c.epoch, thread.c.strands)
    .where(_matches(thread, "tenant", "thread_id"))
    .with_for_update()
)
_BEGIN: Final = Prepared(
    insert(thread).values(tenant=bindparam("tenant"), thread_id=bindparam("thread_id")).on_conflict_do_nothing()
)
_SAVE: Final = Prepared(update(thread).where(thread.c.id == bindparam("thread")).values(strands=bindparam("state")))
_FENCE: Final = Prepared(update(thread).where(thread.c.id == bindparam("thread")).values(epoch=bindparam("fence")))
_APPEND: Final = Prepared(
    insert(segment).values({name: bindparam(name) for name in ("thread", "strand", "start", "content")})
)
_ROW: Final = Prepared(select(checkpoint.c.body).where(_matches(checkpoint, "thread", "ns", "id")))
_NEWEST: Final = Prepared(select(func.max(checkpoint.c.id)).where(_matches(checkpoint, "thread", "ns")))
_WRITES: Final = Prepared(
    select(write.c.task, write.c.idx, write.c.path, write.c.channel, write.c.body).where(
        _matches(write, "thread", "ns", "checkpoint")
    )
)
_SEGMENTS: Final = Prepared(
    select(segment.c.content)
    .where(_matches(segment, "thread", "strand"), segment.c.start < bindparam("length"))
    .order_by(segment.c.start)
)


def _put(table: Table, names: Sequence[str], key: Sequence[str], changed: Sequence[str]) -> Prepared:
    made = insert(table).values({name: bindparam(name) for name in names})
    if not changed:
        return Prepared(made.on_conflict_do_nothing())
    return Prepared(
        made.on_conflict_do_update(index_elements=key, set_={name: made.excluded[name] for name in changed})
    )


_WRITE_KEY = ("thread", "ns", "checkpoint", "task", "idx")
_WRITE = (*_WRITE_KEY, "path", "channel", "body")
_PUT: Final = _put(checkpoint, ("thread", "ns", "id", "run_id", "body"), ("thread", "ns", "id"), ("run_id", "body"))
_PUT_FIRST: Final = _put(write, _WRITE, _WRITE_KEY, ())
_PUT_LAST: Final = _put(write, _WRITE, _WRITE_KEY, ("path", "channel", "body"))


class Rows:
    """What is read of one thread in one transaction."""

    def __init__(self, connection: Connection, place: Place, number: int) -> None:
        """`number` is the thread's own."""
        self.connection = connection
        self.number = number
        self._names = place.tenant, place.thread_id
        self._strands: dict[Beginning, bytes] = {}

    @classmethod
    def of(cls, connection: Connection, place: Place) -> Rows | None:
        """Those of a place's thread, if there is one."""
        found = _THREAD(connection, {"tenant": place.tenant, "thread_id": place.thread_id}).fetchone()
        return cls(connection, place, found[0]) if found else None

    def newest(self, ns: str) -> str | None:
        """The id of the newest checkpoint."""
        row = _NEWEST(self.connection, {"thread": self.number, "ns": ns}).fetchone()
        return row[0] if row else None

    def row(self, ns: str, checkpoint_id: str) -> Row | None:
        """A checkpoint; raises CheckpointRefused where its row is damaged."""
        found = _ROW(self.connection, {"thread": self.number, "ns": ns, "id": checkpoint_id}).fetchone()
        return Row.unpacked(opened(found[0], *self._names, ns, checkpoint_id)) if found else None

    def writes(self, ns: str, checkpoint_id: str) -> list[WriteRow]:
        """A checkpoint's pending writes, in LangGraph's order; raises CheckpointRefused where one is damaged."""
        values = {"thread": self.number, "ns": ns, "checkpoint": checkpoint_id}
        found = [self._write(ns, checkpoint_id, *row) for row in _WRITES(self.connection, values).fetchall()]
        return sorted(found, key=lambda row: (row.path, row.task, row.idx))

    def content(self, value: Kept) -> tuple[str, bytes]:
        """A value as the serializer reads it; raises CheckpointRefused where a part of it is missing or damaged."""
        return value.kind, joined(value.parts, self._beginning)

    def _write(
        self, ns: str, checkpoint_id: str, task: str, idx: int, path: str, channel: str, body: bytes
    ) -> WriteRow:
        content = opened(body, *self._names, ns, checkpoint_id, task, idx, path, channel)
        return WriteRow(task=task, idx=idx, path=path, channel=channel, value=Kept.of(ormsgpack.unpackb(content)))

    def _beginning(self, wanted: Beginning) -> bytes:
        if wanted not in self._strands:
            values = {"thread": self.number, "strand": wanted.strand, "length": wanted.length}
            found = [row[0] for row in _SEGMENTS(self.connection, values).fetchall()]
            content = b"".join(one for one in found if isinstance(one, bytes))
            if digest_of(content) != wanted.digest:
                raise CheckpointRefused(
                    f"a part of thread {self._names[1]} is missing or damaged",
                    next_step="restore the checkpoints from a backup, or start the run anew",
                )
            self._strands[wanted] = content
        return self._strands[wanted]


class Held(Rows):
    """A thread that nobody else writes to until the transaction ends."""

    def __init__(self, connection: Connection, place: Place) -> None:
        """Begin the thread where there is none; raises CheckpointFenced where the writer lost it to another."""
        number, self.epoch, state = _hold(connection, place)
        if place.epoch is not None and self.epoch is not None and self.epoch > place.epoch:
            raise CheckpointFenced(
                f"{place.thread_id} was taken over by another worker (epoch {self.epoch}, here {place.epoch}); "
                "nothing was written",
                next_step="leave it to that worker",
            )
        super().__init__(connection, place, number)
        self.strands = Strands(opened(state, *self._names) if state else None)

    def save(self) -> None:
        """Store what the strands have grown by."""
        for number, start, content in self.strands.segments:
            values = {"thread": self.number, "strand": number, "start": start, "content": content}
            _APPEND(self.connection, values)
        if self.strands.segments:
            self.save_state()

    def save_state(self) -> None:
        """Store what has to be known of the strands the next time."""
        _SAVE(self.connection, {"thread": self.number, "state": sealed(self.strands.state, *self._names)})

    def fence(self, epoch: int) -> None:
        """Refuse writers of a lower epoch from now on."""
        if self.epoch is None or self.epoch < epoch:
            _FENCE(self.connection, {"thread": self.number, "fence": epoch})

    def put(self, ns: str, checkpoint_id: str, run_id: str | None, row: Row) -> None:
        """Store a checkpoint, in place of one of the same id."""
        body = sealed(row.packed(), *self._names, ns, checkpoint_id)
        values = {"thread": self.number, "ns": ns, "id": checkpoint_id, "run_id": run_id, "body": body}
        _PUT(self.connection, values)

    def put_write(self, ns: str, checkpoint_id: str, row: WriteRow) -> None:
        """Store a pending write; one that is there already stays, but for LangGraph's own channels."""
        place = (ns, checkpoint_id, row.task, row.idx, row.path, row.channel)
        names = ("ns", "checkpoint", "task", "idx", "path", "channel")
        body = sealed(ormsgpack.packb(row.value.plain()), *self._names, *place)
        values = {"thread": self.number, "body": body, **dict(zip(names, place, strict=True))}
        (_PUT_FIRST if row.idx >= 0 else _PUT_LAST)(self.connection, values)


def _hold(connection: Connection, place: Place) -> tuple[int, int | None, bytes | None]:
    values = {"tenant": place.tenant, "thread_id": place.thread_id}
    while (found := _HOLD(connection, values).fetchone()) is None:
        _BEGIN(connection, values)
    number, epoch, state = found
    return number, epoch, state
