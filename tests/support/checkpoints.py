"""What lies in a store of checkpoints, looked at and damaged past the saver."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from sqlalchemy import text

from bursar.budget.stores.store import Store
from bursar.memory import CheckpointSaver

__all__ = ["TABLES", "bytes_in", "content", "execute", "growing", "written"]

TABLES = ("checkpoint_thread", "checkpoint", "checkpoint_write", "checkpoint_segment")


def execute(url: str, statement: str, **values: Any) -> list[Any]:
    """Run one statement; a list is a parameter's values for IN."""
    with closing(Store(url)) as store, store.write() as connection:
        done = connection.execute(text(statement), values)
        return list(done.all()) if done.returns_rows else []


def content(url: str) -> list[Any]:
    """Every row of every table."""
    return [execute(url, f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in TABLES]


def written(url: str) -> list[tuple[str, str]]:
    """The thread and the task of each pending write."""
    rows = "checkpoint_write JOIN checkpoint_thread ON thread = id"
    return [tuple(row) for row in execute(url, f"SELECT thread_id, task FROM {rows} ORDER BY thread_id, task, idx")]


def bytes_in(url: str) -> int:
    """What the store takes."""
    if url.startswith("sqlite"):
        return int(execute(url, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")[0][0])
    return sum(int(execute(url, f"SELECT pg_total_relation_size('{table}')")[0][0]) for table in TABLES)


def growing(saver: CheckpointSaver, thread_id: str, name: str, times: int) -> None:
    """Put checkpoints of a list that grows, as if nobody else wrote to the thread."""
    parent: str | None = None
    values: list[str] = []
    for number in range(times):
        values = [*values, f"{name} {number} " * 80]
        checkpoint: Any = {
            **empty_checkpoint(),
            "id": str(uuid6()),
            "channel_values": {"messages": values},
            "channel_versions": {"messages": number},
        }
        named = {"thread_id": thread_id, "checkpoint_ns": ""} | ({"checkpoint_id": parent} if parent else {})
        config: Any = {"configurable": named}
        saver.put(config, checkpoint, {"step": number, "source": name}, {"messages": number})  # type: ignore[typeddict-item]
        parent = checkpoint["id"]
