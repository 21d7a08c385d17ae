"""How checkpoints are read: one, or page by page those that match."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple
from sqlalchemy import Connection, select, tuple_

from bursar.budget.stores.store import Store
from bursar.memory.rows import Row, opened
from bursar.memory.schema import checkpoint, thread
from bursar.memory.strict import StrictSerializer
from bursar.memory.threads import Place, Rows

__all__ = ["TENANT_KEY", "Wanted", "as_tuple", "config_of", "pages"]

TENANT_KEY: Final = "bursar_tenant"
"""In a config's `configurable`: whose thread it is. Under another tenant the same id names another thread."""

PAGE: Final = 16
"""How many checkpoints are read in one transaction."""


_Found = tuple[str, str, str, int, bytes]
"""Checkpoint id, namespace, thread id, the thread's number and the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which checkpoints to list; None where it does not matter."""

    tenant: str
    thread_id: str | None
    ns: str | None
    id: str | None
    before: str | None
    """Only those of a lower id."""

    facts: Mapping[str, Any]
    """What their metadata have to say."""


def as_tuple(rows: Rows, place: Place, row: Row, serde: StrictSerializer) -> CheckpointTuple:
    """A checkpoint as LangGraph knows it; raises CheckpointRefused where a part of it cannot be read."""
    bare, facts = serde.loads_typed(("msgpack", row.said))
    values = {name: serde.loads_typed(rows.content(value)) for name, (_, value) in row.values.items()}
    written = rows.writes(place.ns, bare["id"])
    return CheckpointTuple(
        config=config_of(place, bare["id"]),
        checkpoint=cast("Checkpoint", {**bare, "channel_values": values}),
        metadata=facts,
        parent_config=config_of(place, row.parent) if row.parent else None,
        pending_writes=[(one.task, one.channel, serde.loads_typed(rows.content(one.value))) for one in written],
    )


def config_of(place: Place, checkpoint_id: str) -> RunnableConfig:
    """What names a checkpoint beside the one at `place`."""
    named = {"thread_id": place.thread_id, "checkpoint_ns": place.ns, "checkpoint_id": checkpoint_id}
    return {"configurable": named | {TENANT_KEY: place.tenant} if place.tenant else named}


def pages(store: Store, serde: StrictSerializer, wanted: Wanted) -> Iterator[Sequence[CheckpointTuple]]:
    """The checkpoints that match, newest first; nothing is held open between two pages."""
    after: _Found | None = None
    while True:
        with store.read() as connection:
            found = _found(connection, wanted, after)
            read = [_read(connection, wanted.tenant, one) for one in found]
            page = [as_tuple(*one, serde) for one in read if _says(one[2], wanted.facts, serde)]
        yield page
        if len(found) < PAGE:
            return
        after = found[-1]


def _read(connection: Connection, tenant: str, found: _Found) -> tuple[Rows, Place, Row]:
    checkpoint_id, ns, thread_id, number, body = found
    place = Place(tenant=tenant, thread_id=thread_id, ns=ns, id=checkpoint_id)
    return Rows(connection, place, number), place, Row.unpacked(opened(body, tenant, thread_id, ns, checkpoint_id))


def _says(row: Row, wanted: Mapping[str, Any], serde: StrictSerializer) -> bool:
    if not wanted:
        return True
    _, facts = serde.loads_typed(("msgpack", row.said))
    return all(facts.get(name) == value for name, value in wanted.items())


def _found(connection: Connection, wanted: Wanted, after: _Found | None) -> Sequence[_Found]:
    order = (checkpoint.c.id, checkpoint.c.ns, thread.c.thread_id)
    query = (
        select(*order, thread.c.id, checkpoint.c.body)
        .join_from(checkpoint, thread, checkpoint.c.thread == thread.c.id)
        .where(thread.c.tenant == wanted.tenant)
        .order_by(*(column.desc() for column in order))
        .limit(PAGE)
    )
    for column, value in ((thread.c.thread_id, wanted.thread_id), (checkpoint.c.ns, wanted.ns), (order[0], wanted.id)):
        if value is not None:
            query = query.where(column == value)
    if wanted.before is not None:
        query = query.where(order[0] < wanted.before)
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*after[:3]))
    return [tuple(row) for row in connection.execute(query)]
