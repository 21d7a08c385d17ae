"""The tables of checkpoints: threads, checkpoints, pending writes, and the segments that values are kept in."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

__all__ = ["checkpoint", "metadata", "segment", "thread", "write"]

metadata = MetaData()

# Only a column of the type INTEGER numbers its rows by itself in SQLite, where it has 64 bits all the same.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")


def _thread() -> Column[int]:
    return Column("thread", BigInteger, ForeignKey("checkpoint_thread.id"), primary_key=True)


# Whoever writes to a thread locks its row: two writers never see the same strands, and none passes a new fence.
thread = Table(
    "checkpoint_thread",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("thread_id", Text, nullable=False),
    Column("epoch", BigInteger),  # writers that name a lower one are refused; NULL = nobody is
    Column("strands", LargeBinary),  # what its strands have grown to: bursar.memory.strands
    UniqueConstraint("tenant", "thread_id"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    _thread(),
    Column("ns", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("run_id", Text),  # as its metadata have it, for delete_for_runs
    Column("body", LargeBinary, nullable=False),  # sealed: bursar.memory.rows
)

write = Table(
    "checkpoint_write",
    metadata,
    _thread(),
    Column("ns", Text, primary_key=True),
    Column("checkpoint", Text, primary_key=True),  # may come to lie here before its checkpoint does
    Column("task", Text, primary_key=True),
    Column("idx", Integer, primary_key=True),  # its place among the task's; below zero for LangGraph's own channels
    Column("path", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),  # sealed
)

segment = Table(
    "checkpoint_segment",
    metadata,
    _thread(),
    Column("strand", Integer, primary_key=True),
    Column("start", BigInteger, primary_key=True),  # in bytes from the strand's beginning
    Column("content", LargeBinary, nullable=False),
)
