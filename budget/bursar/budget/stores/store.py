"""The ledger's store, a SQLite file or a PostgreSQL database, and its transactions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal, Self

from sqlalchemy import Connection
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from bursar.budget.errors import ConfigError
from bursar.budget.stores.backend import Backend

__all__ = ["Dialect", "Store"]

Dialect = Literal["sqlite", "postgresql"]

LOCKED_S_MAX = 10.0
"""How long a transaction waits while others hold a lock that it needs."""


class Store:
    """Opens a store and runs transactions on it. Safe to use from several threads.

    On SQLite one transaction writes at a time; on PostgreSQL as many as do not touch the same rows.
    """

    def __init__(self, url: str, *, locked_s_max: float = LOCKED_S_MAX) -> None:
        """`url` is `sqlite:///FILE` or `postgresql+psycopg://USER@HOST/DATABASE`; nothing is opened yet.

        `locked_s_max` is how long to wait for others. Raises ConfigError for another URL.
        """
        parsed = _parsed(url)
        self.url = url
        self.dialect: Dialect = "sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql"
        self.name = _name(parsed)
        """What errors call it: the file, or the URL without its password."""
        self._backend = _backend(parsed, self.name, locked_s_max)
        self._caller = threading.local()

    @classmethod
    def open(cls, url: str) -> Self:
        """The store at a URL."""
        return cls(url)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it, a transaction of this thread that would wait, for others, the disk or a server, raises StoreBusy.

        It raises before anything was done, so that the caller can do it again where waiting does no harm.
        """
        self._caller.at_once = True
        try:
            yield
        finally:
            self._caller.at_once = False

    def write(self, *, durable: bool = False) -> AbstractContextManager[Connection]:
        """One writing transaction; committed at the end, rolled back on an exception.

        `durable` waits until the commit, and so every commit before it, is on disk: a power loss cannot undo it.
        Without it a power loss may undo the last commits, but never a part of one. A crash of the process undoes none.
        Raises LedgerUnavailable while the store is locked, read-only, full or gone, and LedgerVersionError where it
        lacks a table. The yielded connection is for this `with` only.
        """
        return self._backend.write(durable=durable, wait=self._may_wait())

    def read(self) -> AbstractContextManager[Connection]:
        """One reading transaction that sees a single state of the store and never waits for a writer."""
        return self._backend.read(wait=self._may_wait())

    def close(self) -> None:
        """Give every connection back; the store must not be used afterwards."""
        self._backend.close()

    def _may_wait(self) -> bool:
        return not getattr(self._caller, "at_once", False)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = URL.create("unknown")  # the text may hold a password, so none of it is shown
    if parsed.drivername in ("postgresql", "postgresql+psycopg") and parsed.database:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    raise ConfigError(
        f"database {_name(parsed)!r}: expected sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE",
        key="database",
        next_step="database: sqlite:///bursar.db",
    )


def _name(url: URL) -> str:
    if url.get_backend_name() == "sqlite" and url.database:
        return str(Path(url.database))
    return url.set(query={}).render_as_string()


def _backend(url: URL, name: str, locked_s_max: float) -> Backend:
    if url.get_backend_name() == "sqlite":
        from bursar.budget.stores.sqlite import Sqlite

        return Sqlite(url, name, locked_s_max)
    from bursar.budget.stores.postgresql import Postgresql  # with the driver

    return Postgresql(url, name, locked_s_max)
