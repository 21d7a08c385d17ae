"""The tables of runs, escalations, the gateway's keys and models that are passed by, in the ledger's own store."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

__all__ = [
    "cascade",
    "escalation",
    "escalation_event",
    "gateway_key",
    "metadata",
    "model_health",
    "run",
    "run_event",
]

metadata = MetaData()

# Only a column of the type INTEGER numbers its rows by itself in SQLite, where it has 64 bits all the same.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

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
    Column("context", Text),  # of a graph that declares one, as JSON
    Column("forked_from", Text),  # the run of which this is a fork
    Column("fork", Text),  # JSON: whose calls and effects are its own, too
    Column("tier", Text),  # which answers all of its calls
    Column("takeovers", Integer, nullable=False, server_default="0"),  # in a row, without any progress
    Column("taken_over_at", Text),  # the checkpoint from which it was last: another one is progress
    Column("deadline_us", BigInteger),  # in wall time; the working time is the ledger's
    Column("queued_us", BigInteger),  # since when it waits for a worker
    Column("pruned_us", BigInteger),  # when its checkpoints were deleted: it cannot go on any more
    Column("created_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
)
Index("run_tenant", run.c.tenant, run.c.created_us)
Index("run_status", run.c.status, run.c.queued_us)
Index(
    "run_deadline",
    run.c.deadline_us,
    sqlite_where=run.c.deadline_us.is_not(None),
    postgresql_where=run.c.deadline_us.is_not(None),
)

run_event = Table(
    "run_event",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("cause", Text),
    Column("author", Text),
    Index("run_event_run", "run_id"),
)

# What a person has to decide. Made in the transaction that lets its run wait, decided by compare-and-set on `status`.
escalation = Table(
    "escalation",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("interrupt_id", Text, nullable=False),  # by which the run is resumed; `ID:0`, `ID:1` of several
    Column("kind", Text, nullable=False),  # in which shape the graph asked, and so is answered
    Column("agent", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("reason", Text, nullable=False),  # approval | budget | guard | in_doubt | question | failures | doubt
    Column("words", Text, nullable=False),
    Column("payload", Text, nullable=False),  # JSON: the exact action or question
    Column("digest", Text, nullable=False),  # of the payload; a decision is bound to it
    Column("allowed", Text, nullable=False),  # JSON list of decisions; empty = any answer that fits the form
    Column("form", Text),  # JSON Schema of an answer or of edited arguments
    Column("amount_nanousd", BigInteger),  # the money that is decided on, where it is known
    Column("cost_nanousd", BigInteger, nullable=False),  # what the run had cost when it asked
    Column("finish_nanousd", BigInteger),  # what it may cost more, if it goes on; NULL = no estimate
    Column("evidence", Text, nullable=False, server_default="[]"),  # JSON
    Column("priority", Integer, nullable=False, server_default="0"),  # higher comes first
    Column("requester", Text),  # the run's user, who may not decide on a matter for two
    Column("rule", Text, nullable=False),  # JSON: the tenant's rule as it was when this was made
    Column("level", Integer, nullable=False, server_default="0"),  # of the rule's levels
    Column("assignee", Text),
    Column("claimed_by", Text),
    Column("claimed_until_us", BigInteger),
    Column("due_us", BigInteger),  # the next reminder, level or deadline; NULL = none comes
    Column("expires_us", BigInteger),  # its deadline; NULL = it waits for ever
    Column("status", Text, nullable=False),  # open | decided | expired | withdrawn
    Column("first_decision", Text),  # JSON: of two people who must agree, what the first has decided
    Column("first_by", Text),
    Column("decision", Text),  # JSON; final
    Column("decided_by", Text),
    Column("decided_us", BigInteger),
    Column("taken_us", BigInteger),  # when the run was handed the decision
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("run_id", "interrupt_id"),
    Index("escalation_due", "status", "due_us"),
    Index("escalation_tenant", "tenant", "status"),
)

escalation_event = Table(
    "escalation_event",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("escalation_id", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("author", Text),
    Column("detail", Text),
    Index("escalation_event_of", "escalation_id"),
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
