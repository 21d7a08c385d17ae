"""The table of effects, in the ledger's own store."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import BigInteger, CheckConstraint, Column, MetaData, PrimaryKeyConstraint, Table, Text

__all__ = ["MIGRATIONS", "effect", "metadata"]

MIGRATIONS = Path(__file__).parent / "migrations"

metadata = MetaData()

# One row for each call of a tool that changes something. A call has one row however often its task is run again: that
# is what makes it the same call.
effect = Table(
    "effect",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("key", Text, nullable=False),  # of the call in its run
    Column("tool", Text, nullable=False),
    Column("digest", Text, nullable=False),  # of the tool and its arguments
    Column("given", Text, nullable=False),  # the idempotency key that the tool was given
    Column("state", Text, nullable=False),  # intent | done | not_done | in_doubt
    Column("attempt", Text, nullable=False),  # who acts, or did: nobody else may write how it ended
    Column("result", Text),  # JSON: what the model is told
    Column("settled_by", Text),  # tool | check | a person
    Column("begun_us", BigInteger, nullable=False),
    Column("settled_us", BigInteger),
    PrimaryKeyConstraint("tenant", "run_id", "key"),
    CheckConstraint("(state = 'done') = (result IS NOT NULL)", name="effect_done_has_a_result"),
)
