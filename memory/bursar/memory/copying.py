"""A thread copied to another, whole or up to one of its checkpoints."""

from __future__ import annotations

from sqlalchemy import Connection, insert, literal, select

from bursar.budget.errors import ConflictError, NotFoundError
from bursar.memory.pruning import sweep
from bursar.memory.rows import opened, sealed
from bursar.memory.schema import checkpoint, segment, write
from bursar.memory.strands import Strands
from bursar.memory.threads import Held, Place

__all__ = ["copy_thread"]


def copy_thread(connection: Connection, source: Place, target: Place, until: str | None) -> None:
    """See `CheckpointSaver.copy_thread`."""
    # In one order whichever is the source, so that two that copy crosswise do not wait for each other.
    held = {place: Held(connection, place) for place in sorted((source, target), key=lambda place: place.thread_id)}
    old, new = held[source], held[target]
    if new.newest("") is not None:
        raise ConflictError(f"thread {target.thread_id} has checkpoints already", next_step="copy to another thread")
    if (until or old.newest("")) is None or (until is not None and old.row("", until) is None):
        what = f"checkpoint {until} of thread {source.thread_id}" if until else f"thread {source.thread_id}"
        raise NotFoundError(f"{what}: not found")
    _copy_checkpoints(old, new, source, target, until)
    _copy_writes(old, new, source, target, until)
    names = ("strand", "start", "content")
    columns = [segment.c[name] for name in names]
    segments = select(literal(new.number), *columns).where(segment.c.thread == old.number)
    connection.execute(insert(segment).from_select(["thread", *names], segments))
    new.strands = Strands(old.strands.state)
    sweep(new)


def _copy_checkpoints(old: Held, new: Held, source: Place, target: Place, until: str | None) -> None:
    names = (checkpoint.c.ns, checkpoint.c.id)
    found = select(checkpoint).where(checkpoint.c.thread == old.number)
    if until is not None:
        found = found.where(checkpoint.c.id <= until)
    for row in old.connection.execute(found).mappings().all():
        place = [row[name] for name in names]
        content = opened(row["body"], source.tenant, source.thread_id, *place)
        body = sealed(content, target.tenant, target.thread_id, *place)
        new.connection.execute(insert(checkpoint).values(**{**row, "thread": new.number, "body": body}))


def _copy_writes(old: Held, new: Held, source: Place, target: Place, until: str | None) -> None:
    names = (write.c.ns, write.c.checkpoint, write.c.task, write.c.idx, write.c.path, write.c.channel)
    found = select(write).where(write.c.thread == old.number)
    if until is not None:
        found = found.where(write.c.checkpoint < until)
    for row in old.connection.execute(found).mappings().all():
        place = [row[name] for name in names]
        content = opened(row["body"], source.tenant, source.thread_id, *place)
        body = sealed(content, target.tenant, target.thread_id, *place)
        new.connection.execute(insert(write).values(**{**row, "thread": new.number, "body": body}))
