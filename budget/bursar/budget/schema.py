"""The ledger's tables, as SQLAlchemy Core; migrations make the same tables step by step."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["account", "entry", "grant", "metadata", "pot", "price", "reservation", "token_margin"]

# Time is kept in whole microseconds since 1970 UTC, money in nano-USD: both exact, both compared as integers.
metadata = MetaData()

FOREVER_US = 2**62
"""The end of a window that never ends."""


def _amounts(prefix: str, *, nullable: bool = False) -> list[Column[int]]:
    return [
        Column(
            f"{prefix}_{name}",
            BigInteger,
            nullable=nullable,
            server_default=None if nullable else "0",
        )
        for name in ("nanousd", "tokens", "steps", "tool_calls")
    ]


# What may be spent: one row for each scope and kind of window. A run's pot also carries the gate that `reserve`
# checks in its own transaction, so that a worker that lost its run cannot spend for it.
pot = Table(
    "pot",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("path", Text, nullable=False),  # acme, acme/support, acme/support/run_1, acme/support/run_1/researcher.2
    Column("kind", Text, nullable=False),  # tenant | agent | run
    Column("tenant", Text, nullable=False),
    Column("per", Text, nullable=False),  # hour | day | week | month | total
    Column("zone", Text, nullable=False, server_default="UTC"),
    *_amounts("limit", nullable=True),
    Column("source", Text, nullable=False),  # config | command | run
    Column("set_by", Text, nullable=False),
    Column("set_us", BigInteger, nullable=False),
    Column("run_id", Text),  # the run that this pot belongs to, also for an agent used as a tool
    Column(
        "epoch", Integer
    ),  # of the run's own pot: rises with each take-over; an older one may neither reserve nor send
    Column("holder", Text),  # who executes the run now
    Column("lease_until_us", BigInteger),  # until when the holder is believed without a sign of life
    Column("seconds_us", BigInteger),  # the run's limit in working time; waiting for people does not count
    Column("used_us", BigInteger, nullable=False, server_default="0"),  # working time of earlier holders
    Column("held_since_us", BigInteger),
    Column("cancelled_us", BigInteger),
    Column("stopped", Text),  # the refusal that stopped the run, as JSON; sticky until more is granted
    Column("stopped_by", Text),  # the path that refused
    Column("final_call", Text),  # the call that is the last answer; there is one for each stop
    UniqueConstraint("path", "per", name="pot_path_per"),
    Index("pot_holder", "holder"),
    Index("pot_run", "run_id"),
)

# The balance of one pot in one window. posted + held <= limit is kept by `reserve` alone, and not by a CHECK:
# a provider that bills more than the enforced bound is booked in full, and a limit may be lowered below what is used.
account = Table(
    "account",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pot_id", ForeignKey("pot.id"), nullable=False),
    Column("window", Text, nullable=False),  # 2026-11, 2026-11-20, ..., or empty for total
    Column("starts_us", BigInteger, nullable=False),
    Column("ends_us", BigInteger, nullable=False),
    *_amounts("limit", nullable=True),  # the pot's limit and the grants of this window together
    *_amounts("posted"),
    *_amounts("held"),
    UniqueConstraint("pot_id", "window", name="account_pot_window"),
    CheckConstraint(
        "held_nanousd >= 0 AND held_tokens >= 0 AND held_steps >= 0 AND held_tool_calls >= 0", name="account_held"
    ),
    CheckConstraint(
        "posted_nanousd >= 0 AND posted_tokens >= 0 AND posted_steps >= 0 AND posted_tool_calls >= 0",
        name="account_posted",
    ),
    Index("account_window", "pot_id", "ends_us"),  # so that the windows of the past are not read again
)

# One attempt at one call. UNIQUE(run_id, call, attempt) is what makes a call idempotent over crashes and resumes;
# the run is part of it, so that no run is ever given the reply of another.
reservation = Table(
    "reservation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("call", Text, nullable=False),  # thread:task:digest:ordinal
    Column("attempt", Integer, nullable=False),
    Column("kind", Text, nullable=False),  # model | tool
    Column("state", Text, nullable=False),  # reserved | dispatched | settled | released
    Column("outcome", Text),  # exact | estimated | unknown, once settled
    Column("tenant", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("node", Text, nullable=False),
    Column("tier", Text),
    Column("model", Text),
    Column("reason", Text),  # why this tier and this model
    Column("price_id", ForeignKey("price.id")),
    Column("max_output_tokens", Integer),  # the bound that was sent
    Column("capped", Integer, nullable=False, server_default="0"),  # 1 where the bound was lowered to fit
    Column("accounts", Text, nullable=False),  # ids, as a JSON list
    *_amounts("held"),  # as reserved; kept after the settle
    *_amounts("posted"),
    Column("usage", Text),
    Column("reply", Text),
    Column("note", Text),  # what went wrong, or why it was released
    Column("reserved_us", BigInteger, nullable=False),
    Column("dispatched_us", BigInteger),
    Column("closed_us", BigInteger),
    Column("deadline_us", BigInteger, nullable=False),
    UniqueConstraint("run_id", "call", "attempt", name="reservation_attempt"),
)
Index(
    "reservation_open",
    reservation.c.deadline_us,
    sqlite_where=reservation.c.state.in_(["reserved", "dispatched"]),
    postgresql_where=reservation.c.state.in_(["reserved", "dispatched"]),
)

# Every change of a balance, a limit or a gate, in order, never edited: balances can be rebuilt from it.
entry = Table(
    "entry",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reservation_id", ForeignKey("reservation.id")),
    Column("account_id", ForeignKey("account.id")),
    Column("path", Text),
    *_amounts("held"),  # change of what is held, in every account of the reservation
    *_amounts("posted"),
    *_amounts("limit", nullable=True),  # what was granted to the account, or the new limit of its pot
    Column("author", Text),
    Column("note", Text),
    sqlite_autoincrement=True,
)
Index("entry_path", entry.c.path, sqlite_where=entry.c.path.is_not(None), postgresql_where=entry.c.path.is_not(None))

grant = Table(
    "grant_",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    *_amounts("amount"),
    Column("key", Text, unique=True),  # of the decision that it carries out, which is carried out once
    Column("author", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("granted_us", BigInteger, nullable=False),
)

# The price rows that postings were made with, so that any old bill can be computed again.
price = Table("price", metadata, Column("id", Text, primary_key=True), Column("record", Text, nullable=False))

# How far a provider's own input count lies above ours, per model.
token_margin = Table(
    "token_margin",
    metadata,
    Column("model", Text, primary_key=True),
    Column("samples", Integer, nullable=False),
    Column("ratio_ppm", Integer, nullable=False),  # the highest ratio seen, slowly forgotten; parts per million
    Column("constant_tokens", Integer, nullable=False),  # what it adds to any request, however short
)
