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
    text,
)

__all__ = [
    "account",
    "alert",
    "chain",
    "delivery",
    "entry",
    "grant",
    "listed_price",
    "metadata",
    "policy",
    "pot",
    "price",
    "rate",
    "reservation",
    "rollup",
    "summary",
    "token_margin",
]

# Time is kept in whole microseconds since 1970 UTC, money in nano-USD: both exact, both compared as integers.
metadata = MetaData()

# Only a column of the type INTEGER numbers its rows by itself in SQLite, where it has 64 bits all the same.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

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
    Column("id", _NUMBER, primary_key=True),
    Column("path", Text, nullable=False),  # see `bursar.budget.scope`
    Column("kind", Text, nullable=False),  # organisation | tenant | team | user | agent | run | node
    Column("tenant", Text, nullable=False),  # for an organisation, its own path
    Column("parent", Text),  # the budget above, of which this is a part; of a run, another that pays for it too
    Column("per", Text, nullable=False),  # hour | day | week | month | total | rolling-24h, ...
    Column("zone", Text, nullable=False, server_default="UTC"),
    *_amounts("limit", nullable=True),
    Column("mode", Text, nullable=False, server_default="hard"),  # hard | soft: a soft limit refuses nothing
    Column("rollover_percent", Integer, nullable=False, server_default="0"),  # of the limit, unused, to the next window
    Column("overdraft_percent", Integer, nullable=False, server_default="0"),  # of the limit, owed to the next window
    Column(
        "oversubscribed", Integer, nullable=False, server_default="0"
    ),  # 1: children may be given more than there is
    Column("alerts", Text),  # percents of the limit at which to tell somebody, as a JSON list
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
    Column("until_us", BigInteger),  # the run's limit in wall time
    Column("cancelled_us", BigInteger),
    Column("paused_us", BigInteger),  # since when a person holds the run up
    Column("paused_by", Text),
    Column("stopped", Text),  # the refusal that stopped the run, as JSON; sticky until more is granted
    Column("stopped_by", Text),  # the path that refused
    Column("final_call", Text),  # the call that is the last answer; there is one for each stop
    UniqueConstraint("path", "per", name="pot_path_per"),
    Index("pot_holder", "holder"),
    Index("pot_run", "run_id"),
    Index(  # a run's id belongs to one tenant: replies are kept by it
        "pot_own_run",
        "run_id",
        unique=True,
        sqlite_where=text("epoch IS NOT NULL"),
        postgresql_where=text("epoch IS NOT NULL"),
    ),
    Index(  # the runs that a scope stopped
        "pot_stopped",
        "stopped_by",
        sqlite_where=text("stopped_by IS NOT NULL"),
        postgresql_where=text("stopped_by IS NOT NULL"),
    ),
    Index(  # the last runs of an agent, whose name is in `set_by`
        "pot_agent",
        *("tenant", "set_by", "id"),
        sqlite_where=text("epoch IS NOT NULL"),
        postgresql_where=text("epoch IS NOT NULL"),
    ),
    Index("pot_parent", "parent", sqlite_where=text("parent IS NOT NULL"), postgresql_where=text("parent IS NOT NULL")),
)

# The balance of one pot in one window. posted + held <= limit is kept by `reserve` alone, and not by a CHECK:
# a provider that bills more than the enforced bound is booked in full, and a limit may be lowered below what is used.
account = Table(
    "account",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("pot_id", ForeignKey("pot.id"), nullable=False),
    Column("window", Text, nullable=False),  # 2026-11, 2026-11-20, ..., or empty for total
    Column("starts_us", BigInteger, nullable=False),
    Column("ends_us", BigInteger, nullable=False),
    *_amounts("limit", nullable=True),  # the pot's limit, the grants of this window, and what the last one left or owes
    *_amounts("posted"),
    *_amounts("held"),
    *_amounts("alert", nullable=True),  # what is posted when the next alert is due
    Column("grants_end_us", BigInteger),  # when the next grant of this window expires
    Column("overdraft_percent", Integer, nullable=False, server_default="0"),  # the most that it had in this window
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
    Column("id", _NUMBER, primary_key=True),
    Column("call", Text, nullable=False),  # thread:task:digest:ordinal
    Column("attempt", Integer, nullable=False),
    Column("kind", Text, nullable=False),  # model | tool | slice
    Column("state", Text, nullable=False),  # reserved | dispatched | settled | released
    Column("outcome", Text),  # exact | estimated | unknown, once settled
    Column("organisation", Text),
    Column("tenant", Text, nullable=False),
    Column("team", Text),
    Column("user", Text),
    Column("agent", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("node", Text, nullable=False),
    Column("slice_id", Integer),  # the slice that it was admitted by; its amounts moved with that slice's entries
    Column("digest", Text),  # of the request: the same call made again has the same
    Column("tier", Text),
    Column("model", Text),
    Column("reason", Text),  # why this tier and this model
    Column("price_id", ForeignKey("price.id")),
    Column("max_output_tokens", Integer),  # the bound that was sent
    Column("capped", Integer, nullable=False, server_default="0"),  # 1 where the bound was lowered to fit
    Column("accounts", Text, nullable=False),  # ids, as a JSON list
    *_amounts("held"),  # as reserved, less what a call under way gave back; kept after the settle
    *_amounts("posted"),
    Column("usage", Text),  # of an unknown call, what it can have used at most
    Column("note", Text),  # what went wrong, or why it was released
    Column("replays", Integer, nullable=False, server_default="0"),  # how often the reply was given again, for free
    Column("reserved_us", BigInteger, nullable=False),
    Column("dispatched_us", BigInteger),
    Column("closed_us", BigInteger),
    Column("deadline_us", BigInteger, nullable=False),
    Column("reply", Text),  # last, since it is long: whoever reads the others need not read past it
    UniqueConstraint("run_id", "call", "attempt", name="reservation_attempt"),
    Index("reservation_time", "reserved_us"),
)
Index(
    "reservation_open",
    reservation.c.deadline_us,
    sqlite_where=reservation.c.state.in_(["reserved", "dispatched"]),
    postgresql_where=reservation.c.state.in_(["reserved", "dispatched"]),
)

# Every change of a balance, a limit, a policy or a gate, in order, never edited: balances follow from it alone.
# The rows of one chain are hashed one onto the other, so that a changed, missing or reordered row is found.
entry = Table(
    "entry",
    metadata,
    Column("chain", Text, primary_key=True),  # the tenant, or the organisation: org:globex
    Column("number", _NUMBER, primary_key=True, autoincrement=False),  # from 1 in each chain, without a gap
    Column("at_us", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reservation_id", _NUMBER),
    Column("accounts", Text),  # ids of the accounts that were changed, as a JSON list
    Column("path", Text),
    *_amounts("held"),  # change of what is held, in each of the accounts
    *_amounts("posted"),
    *_amounts("limit", nullable=True),  # what was granted to the account, or the new limit of its pot
    Column("author", Text),
    Column("note", Text),
    Column("detail", Text),  # what the other columns have no room for, as JSON: a budget's policy, a grant's expiry
    Column("hash", Text, nullable=False),
    sqlite_with_rowid=False,  # one tree for the rows and their key: every call writes a page of each tree
)
Index(
    "entry_reservation",
    entry.c.reservation_id,
    sqlite_where=entry.c.reservation_id.is_not(None),
    postgresql_where=entry.c.reservation_id.is_not(None),
)
Index("entry_path", entry.c.path, sqlite_where=entry.c.path.is_not(None), postgresql_where=entry.c.path.is_not(None))

# The end of each chain. Its row is also the tenant's lock: whoever changes a tenant's ledger takes it first.
chain = Table(
    "chain",
    metadata,
    Column("name", Text, primary_key=True),
    Column("number", _NUMBER, nullable=False),
    Column("hash", Text, nullable=False),
)

# What stands for entries that were rolled up: where they began and ended, and all that would follow from them.
summary = Table(
    "summary",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("chain", Text, nullable=False),
    Column("first_number", _NUMBER, nullable=False),
    Column("last_number", _NUMBER, nullable=False),
    Column("first_hash", Text, nullable=False),  # the hash before the first entry
    Column("last_hash", Text, nullable=False),
    Column("balances", Text, nullable=False),  # what they changed in each account, as JSON
    Column("reservations", Text, nullable=False),  # those kept, with what was held and posted, and those rolled up
    Column("changes", Text, nullable=False),  # the entries that say who changed what, as they were, as JSON
    Column("author", Text, nullable=False),
    Column("made_us", BigInteger, nullable=False),
    Column("signature", Text, nullable=False),  # over this row and its rollups
    UniqueConstraint("chain", "last_number", name="summary_chain"),
)

# What reports need of reservations that were rolled up: a row for each day and combination, and for each summary.
rollup = Table(
    "rollup",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("summary_id", ForeignKey("summary.id"), nullable=False),
    Column("day_us", BigInteger, nullable=False),  # the UTC midnight at which the day begins
    Column("organisation", Text),
    Column("tenant", Text, nullable=False),
    Column("team", Text),
    Column("user", Text),
    Column("agent", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("tier", Text),
    Column("model", Text),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text),
    Column("price_id", Text),
    Column("calls", Integer, nullable=False),
    # Parts of these calls that bought less than they could have; see `bursar.budget.reports.spend`.
    Column("retries", Integer, nullable=False),
    Column("retries_nanousd", BigInteger, nullable=False),
    Column("aborted", Integer, nullable=False),
    Column("aborted_nanousd", BigInteger, nullable=False),
    Column("overage", Integer, nullable=False),
    Column("overage_nanousd", BigInteger, nullable=False),
    Column("replayed", Integer, nullable=False, server_default="0"),
    Column("replayed_nanousd", BigInteger, nullable=False, server_default="0"),
    *_amounts("posted"),
    Column("usage", Text),  # the sums of the counts, as JSON
    Index("rollup_day", "tenant", "day_us"),
    Index("rollup_summary", "summary_id"),
)

grant = Table(
    "grant_",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    *_amounts("amount"),
    Column("key", Text, unique=True),  # of the decision that it carries out, which is carried out once
    Column("author", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("granted_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Column("ended_us", BigInteger),  # when it expired or was revoked
    *_amounts("taken"),  # what was taken back then, because it was not used
    Index("grant_account", "account_id"),
)

# The price rows that postings were made with, so that any old bill can be computed again.
price = Table("price", metadata, Column("id", Text, primary_key=True), Column("record", Text, nullable=False))

# Prices that somebody imported or set, each from a day on; they go before the built-in book.
listed_price = Table(
    "listed_price",
    metadata,
    Column("name", Text, primary_key=True),  # provider/model
    Column("effective", Text, primary_key=True),  # 2026-11-20
    Column("record", Text, nullable=False),  # the price row, the context window and the output cap, as JSON
    Column("author", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("set_us", BigInteger, nullable=False),
)

# What a tenant decided once for all its budgets.
policy = Table(
    "policy",
    metadata,
    Column("path", Text, primary_key=True),
    Column("unpriced", Text, nullable=False, server_default="refuse"),  # refuse | ceiling_price | allow_and_alert
    Column("ceiling", Text),  # the price row of ceiling_price, as JSON
    Column("source", Text, nullable=False),  # config | command
    Column("set_by", Text, nullable=False),
    Column("set_us", BigInteger, nullable=False),
)

# What somebody has to be told, once: the key says what "once" means.
alert = Table(
    "alert",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("at_us", BigInteger, nullable=False),
    Column(
        "kind", Text, nullable=False
    ),  # limit.percent | limit.forecast | run.burn_rate | run.loop | price.missing, ...
    Column("tenant", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("run_id", Text),
    Column("people", Text),  # `,dana,lee,`: whose mailboxes it is for; NULL = everybody's
    Column("payload", Text, nullable=False),
    Index("alert_time", "at_us"),
)

# One attempt after the other to tell one endpoint of one alert.
delivery = Table(
    "delivery",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("alert_id", ForeignKey("alert.id"), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("state", Text, nullable=False),  # waiting | delivered | failed
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_us", BigInteger, nullable=False),  # when it may be tried again; while one tries, when it gave up
    Column("done_us", BigInteger),
    Column("note", Text),
    UniqueConstraint("alert_id", "endpoint", name="delivery_once"),
    Index("delivery_endpoint", "endpoint", "done_us"),
)
Index(
    "delivery_waiting",
    delivery.c.next_us,
    sqlite_where=delivery.c.state == "waiting",
    postgresql_where=delivery.c.state == "waiting",
)

# How far a provider's own input count lies above ours, per model.
token_margin = Table(
    "token_margin",
    metadata,
    Column("model", Text, primary_key=True),
    Column("samples", Integer, nullable=False),
    Column("ratio_ppm", Integer, nullable=False),  # the highest ratio seen, slowly forgotten; parts per million
    Column("constant_tokens", Integer, nullable=False),  # what it adds to any request, however short
)

# Of each rate when all that was taken is paid off; see `bursar.budget.rates`. Nothing is lost with it but a minute.
rate = Table(
    "rate",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paid_us", BigInteger, nullable=False),
)
