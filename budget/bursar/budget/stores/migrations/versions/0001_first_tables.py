"""The first tables: budgets, reservations, the journal, prices, alerts and what becomes of old rows."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Only a column of the type INTEGER numbers its rows by itself in SQLite, where it has 64 bits all the same.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# A store of SQLite has a function of this name from Python.
_SHA256 = """
    CREATE FUNCTION bursar_sha256(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN encode(sha256(convert_to($1, 'UTF8')), 'hex')
"""


def upgrade() -> None:
    """The first tables: budgets, reservations, the journal, prices, alerts and what becomes of old rows."""

    op.create_table(
        "alert",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("people", sa.Text(), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("alert_time", "alert", ["at_us"], unique=False)
    op.create_table(
        "chain",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "entry",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reservation_id", _NUMBER, nullable=True),
        sa.Column("accounts", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("held_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_steps", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_steps", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("limit_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("limit_steps", sa.BigInteger(), nullable=True),
        sa.Column("limit_tool_calls", sa.BigInteger(), nullable=True),
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("chain", "number"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "entry_path",
        "entry",
        ["path"],
        unique=False,
        sqlite_where=sa.text("path IS NOT NULL"),
        postgresql_where=sa.text("path IS NOT NULL"),
    )
    op.create_index(
        "entry_reservation",
        "entry",
        ["reservation_id"],
        unique=False,
        sqlite_where=sa.text("reservation_id IS NOT NULL"),
        postgresql_where=sa.text("reservation_id IS NOT NULL"),
    )
    op.create_table(
        "listed_price",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("effective", sa.Text(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("set_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "effective"),
    )
    op.create_table(
        "policy",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("unpriced", sa.Text(), server_default="refuse", nullable=False),
        sa.Column("ceiling", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("set_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("path"),
    )
    op.create_table(
        "pot",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("per", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("limit_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("limit_steps", sa.BigInteger(), nullable=True),
        sa.Column("limit_tool_calls", sa.BigInteger(), nullable=True),
        sa.Column("mode", sa.Text(), server_default="hard", nullable=False),
        sa.Column("rollover_percent", sa.Integer(), server_default="0", nullable=False),
        sa.Column("overdraft_percent", sa.Integer(), server_default="0", nullable=False),
        sa.Column("oversubscribed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("alerts", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("set_us", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=True),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=True),
        sa.Column("seconds_us", sa.BigInteger(), nullable=True),
        sa.Column("used_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_since_us", sa.BigInteger(), nullable=True),
        sa.Column("until_us", sa.BigInteger(), nullable=True),
        sa.Column("cancelled_us", sa.BigInteger(), nullable=True),
        sa.Column("paused_us", sa.BigInteger(), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.Column("stopped", sa.Text(), nullable=True),
        sa.Column("stopped_by", sa.Text(), nullable=True),
        sa.Column("final_call", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("path", "per", name="pot_path_per"),
    )
    op.create_index("pot_holder", "pot", ["holder"], unique=False)
    op.create_index("pot_run", "pot", ["run_id"], unique=False)
    op.create_index(
        "pot_own_run",
        "pot",
        ["run_id"],
        unique=True,
        sqlite_where=sa.text("epoch IS NOT NULL"),
        postgresql_where=sa.text("epoch IS NOT NULL"),
    )
    op.create_index(
        "pot_stopped",
        "pot",
        ["stopped_by"],
        unique=False,
        sqlite_where=sa.text("stopped_by IS NOT NULL"),
        postgresql_where=sa.text("stopped_by IS NOT NULL"),
    )
    op.create_index(
        "pot_agent",
        "pot",
        ["tenant", "set_by", "id"],
        unique=False,
        sqlite_where=sa.text("epoch IS NOT NULL"),
        postgresql_where=sa.text("epoch IS NOT NULL"),
    )
    op.create_index(
        "pot_parent",
        "pot",
        ["parent"],
        unique=False,
        sqlite_where=sa.text("parent IS NOT NULL"),
        postgresql_where=sa.text("parent IS NOT NULL"),
    )
    op.create_table(
        "price",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "rate",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("paid_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "summary",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("first_number", _NUMBER, nullable=False),
        sa.Column("last_number", _NUMBER, nullable=False),
        sa.Column("first_hash", sa.Text(), nullable=False),
        sa.Column("last_hash", sa.Text(), nullable=False),
        sa.Column("balances", sa.Text(), nullable=False),
        sa.Column("reservations", sa.Text(), nullable=False),
        sa.Column("changes", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("made_us", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("chain", "last_number", name="summary_chain"),
    )
    op.create_table(
        "rollup",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("summary_id", _NUMBER, nullable=False),
        sa.Column("day_us", sa.BigInteger(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=True),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("price_id", sa.Text(), nullable=True),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("retries_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("aborted", sa.Integer(), nullable=False),
        sa.Column("aborted_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("overage", sa.Integer(), nullable=False),
        sa.Column("overage_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("replayed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("replayed_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_steps", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("usage", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["summary_id"],
            ["summary.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("rollup_day", "rollup", ["tenant", "day_us"], unique=False)
    op.create_index("rollup_summary", "rollup", ["summary_id"], unique=False)
    op.create_table(
        "token_margin",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("ratio_ppm", sa.Integer(), nullable=False),
        sa.Column("constant_tokens", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model"),
    )
    op.create_table(
        "account",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("pot_id", _NUMBER, nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("starts_us", sa.BigInteger(), nullable=False),
        sa.Column("ends_us", sa.BigInteger(), nullable=False),
        sa.Column("limit_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("limit_steps", sa.BigInteger(), nullable=True),
        sa.Column("limit_tool_calls", sa.BigInteger(), nullable=True),
        sa.Column("posted_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_steps", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_steps", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("alert_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("alert_tokens", sa.BigInteger(), nullable=True),
        sa.Column("alert_steps", sa.BigInteger(), nullable=True),
        sa.Column("alert_tool_calls", sa.BigInteger(), nullable=True),
        sa.Column("grants_end_us", sa.BigInteger(), nullable=True),
        sa.Column("overdraft_percent", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "held_nanousd >= 0 AND held_tokens >= 0 AND held_steps >= 0 AND held_tool_calls >= 0", name="account_held"
        ),
        sa.CheckConstraint(
            "posted_nanousd >= 0 AND posted_tokens >= 0 AND posted_steps >= 0 AND posted_tool_calls >= 0",
            name="account_posted",
        ),
        sa.ForeignKeyConstraint(
            ["pot_id"],
            ["pot.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("pot_id", "window", name="account_pot_window"),
    )
    op.create_index("account_window", "account", ["pot_id", "ends_us"], unique=False)
    op.create_table(
        "delivery",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("alert_id", _NUMBER, nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("done_us", sa.BigInteger(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["alert_id"],
            ["alert.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("alert_id", "endpoint", name="delivery_once"),
    )
    op.create_index("delivery_endpoint", "delivery", ["endpoint", "done_us"], unique=False)
    op.create_index(
        "delivery_waiting",
        "delivery",
        ["next_us"],
        unique=False,
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "reservation",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("call", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("organisation", sa.Text(), nullable=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=True),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("slice_id", sa.Integer(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("tier", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("price_id", sa.Text(), nullable=True),
        sa.Column("max_output_tokens", sa.Integer(), nullable=True),
        sa.Column("capped", sa.Integer(), server_default="0", nullable=False),
        sa.Column("accounts", sa.Text(), nullable=False),
        sa.Column("held_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_steps", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_steps", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("posted_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("usage", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("replays", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reserved_us", sa.BigInteger(), nullable=False),
        sa.Column("dispatched_us", sa.BigInteger(), nullable=True),
        sa.Column("closed_us", sa.BigInteger(), nullable=True),
        sa.Column("deadline_us", sa.BigInteger(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["price_id"],
            ["price.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "call", "attempt", name="reservation_attempt"),
    )
    op.create_index(
        "reservation_open",
        "reservation",
        ["deadline_us"],
        unique=False,
        sqlite_where=sa.text("state IN ('reserved', 'dispatched')"),
        postgresql_where=sa.text("state IN ('reserved', 'dispatched')"),
    )
    op.create_index("reservation_time", "reservation", ["reserved_us"], unique=False)
    op.create_table(
        "grant_",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("account_id", _NUMBER, nullable=False),
        sa.Column("amount_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_steps", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("granted_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("taken_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("taken_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("taken_steps", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("taken_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["account.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("grant_account", "grant_", ["account_id"], unique=False)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_SHA256)
