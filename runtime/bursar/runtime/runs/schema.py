"""The tables of runs, of the gateway's keys and of models that are passed by, in the same store as the ledger."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

__all__ = ["cascade", "gateway_key", "metadata", "model_health", "run", "run_event"]

metadata = MetaData()

# A run is a row before it is anything else: an accepted run is never lost.
run = Table(
    "run",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("team", Text),
    Column("user", Text),
    Column("agent", Text, nullable=False),
    Column("within", Text),  # the path of another run that pays for it too
    Column("target", Text),  # file.py:name, where another process can load the agent from
    Column("status", Text, nullable=False),
    Column("stop_reason", Text),
    Column("on_limit", Text, nullable=False),
    Column("max_output_tokens", Integer, nullable=False),
    Column("input_type", Text, nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("output", Text),
    Column("interrupts", Text, nullable=False, server_default="[]"),
    Column("decisions", Text, nullable=False, server_default="{}"),  # interrupt id -> decision; each is final
    Column("created_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
)
Index("run_tenant", run.c.tenant, run.c.created_us)

run_event = Table(
    "run_event",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("cause", Text),
    Column("author", Text),
    Index("run_event_run", "run_id"),
)

# Of a key only its keyed hash is kept: what is stored here opens nothing.
gateway_key = Table(
    "gateway_key",
    metadata,
    Column("id", Text, primary_key=True),  # also the id of the run that pays for its calls
    Column("hash", Text, nullable=False, unique=True),  # HMAC-SHA256, hexadecimal
    Column("hint", Text, nullable=False),  # its beginning, by which people tell it from others
    Column("name", Text),
    Column("tenant", Text, nullable=False),
    Column("agent", Text),
    Column("team", Text),
    Column("user", Text),
    Column("asks_for", Text),  # JSON list of tiers, models and agent:NAME; NULL = all of the tenant's
    Column("limits", Text, nullable=False),  # JSON, as they were given; the ledger holds them
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("revoked_by", Text),
)

# A model that is not here is well. Written when a breaker opens or closes, never by a call.
model_health = Table(
    "model_health",
    metadata,
    Column("model", Text, primary_key=True),  # its name in bursar.yaml
    Column("cause", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("times", Integer, nullable=False),  # how often in a row it opened
)

# What each cascade has come to, so that one that does not pay is left; see bursar.runtime.routing.tally.
cascade = Table(
    "cascade",
    metadata,
    *(Column(name, Text, primary_key=True) for name in ("tenant", "agent", "node", "first", "then", "verifier")),
    *(
        Column(name, BigInteger, nullable=False)
        for name in (
            *("tried", "accepted", "straight", "recent_tried", "recent_accepted"),
            *("first_nanousd", "verify_nanousd", "then_nanousd", "instead_nanousd"),
        )
    ),
)
