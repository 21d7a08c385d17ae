"""The first tables of checkpoints: threads, checkpoints, pending writes and segments."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Only a column of the type INTEGER numbers its rows by itself in SQLite, where it has 64 bits all the same.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """The first tables of checkpoints: threads, checkpoints, pending writes and segments."""

    op.create_table(
        "checkpoint_thread",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=True),
        sa.Column("strands", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "thread_id"),
    )
    op.create_table(
        "checkpoint",
        _thread(),
        sa.Column("ns", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("thread", "ns", "id"),
    )
    op.create_table(
        "checkpoint_write",
        _thread(),
        sa.Column("ns", sa.Text(), nullable=False),
        sa.Column("checkpoint", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("thread", "ns", "checkpoint", "task", "idx"),
    )
    op.create_table(
        "checkpoint_segment",
        _thread(),
        sa.Column("strand", sa.Integer(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("thread", "strand", "start"),
    )


def _thread() -> sa.Column[int]:
    return sa.Column("thread", sa.BigInteger(), sa.ForeignKey("checkpoint_thread.id"), nullable=False)
