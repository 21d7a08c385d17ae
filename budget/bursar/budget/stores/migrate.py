"""Bring a room's tables in a store to this version, once, whoever comes first."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from bursar.budget.errors import LedgerVersionError
from bursar.budget.stores.store import Store

__all__ = ["SCRIPTS", "migrate"]

SCRIPTS = Path(__file__).parent / "migrations"
"""The ledger's own migrations; another room hands in its own folder of the same shape."""

# Alembic's environment keeps its proxies in module globals, so two threads must not run it at once.
_one_at_a_time = threading.Lock()

_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('bursar migrate'))")
_NO_HURRY = text("SET LOCAL statement_timeout TO 0")


def migrate(
    store: Store, *, scripts: Path = SCRIPTS, head: str = "0001", version_table: str = "bursar_version"
) -> None:
    """Create or upgrade the tables, all in one transaction; does nothing where they are up to date.

    `head` is the newest migration in `scripts`: knowing it here spares every start the import of Alembic.
    Raises LedgerVersionError where a newer version of Bursar wrote the store; LedgerUnavailable where it cannot be
    used.
    """
    with store.read() as connection:
        if _version(connection, version_table) == head:
            return
    with _one_at_a_time, store.write(durable=True) as connection:
        if store.dialect == "postgresql":  # SQLite has one writer at a time anyway
            connection.execute(_LOCK)
            connection.execute(_NO_HURRY)
        found = _version(connection, version_table)
        if found != head:
            _upgrade(connection, found, store, scripts, version_table)


def _upgrade(connection: Connection, found: str | None, store: Store, scripts: Path, version_table: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=version_table)
    directory = ScriptDirectory.from_config(config)
    if found is not None and found not in {script.revision for script in directory.walk_revisions()}:
        raise LedgerVersionError(
            f"{store.name} has version {found}, and this Bursar knows versions up to {directory.get_current_head()}",
            next_step="pip install --upgrade bursar",
        )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    command.upgrade(config, "head")


def _version(connection: Connection, version_table: str) -> str | None:
    if not inspect(connection).has_table(version_table):
        return None
    row = connection.execute(text(f"SELECT version_num FROM {version_table}")).first()  # noqa: S608 - our own names
    return str(row[0]) if row else None
