"""A SQLite file in WAL mode as the ledger's store: one writer at a time, and what to say when it cannot be used."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, NoReturn, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from bursar.budget.errors import LedgerUnavailable, LedgerVersionError, UsageError
from bursar.budget.stores.backend import StoreBusy
from bursar.budget.stores.prepared import driver_of

__all__ = ["Sqlite"]

BUSY_TIMEOUT_MS = 0
"""SQLite's own wait for a lock is unfair between processes, so there is none: what is locked is retried with jitter."""

PAGE_BYTES = 2048
"""Of a new file. A call changes a few rows in each of a dozen pages, and writes these pages whole."""

WAL_PAGES = 4_000
"""After how many pages the WAL is folded into the file, which takes milliseconds: fewer than one call in 100 waits."""

T = TypeVar("T")


class Sqlite:
    """Transactions on one file; see `bursar.budget.stores.store.Store`."""

    def __init__(self, url: URL, name: str, locked_s_max: float) -> None:
        """`locked_s_max` is how long to wait for other processes."""
        self._name = name
        self._locked_s_max = locked_s_max
        self._lock = threading.Lock()
        self._engine = _engine(url)
        self._writer: Connection | None = None

    @contextmanager
    def write(self, *, durable: bool, wait: bool) -> Iterator[Connection]:
        """One writing transaction, after every other."""
        if (not wait and (durable or self._writer is None)) or not self._lock.acquire(blocking=wait):
            raise StoreBusy
        # One context manager and not three, begun and ended on the driver: this is on every call's way, twice.
        try:
            connection = self._writer = self._writer or self._connect()
            driver = _driver(connection)
            if durable:
                driver.execute("PRAGMA synchronous=FULL")
            try:
                self._begin(driver, wait=wait)
                yield connection
                driver.execute("COMMIT")
            except BaseException:
                if driver.in_transaction:  # SQLite has rolled back by itself after some errors
                    driver.execute("ROLLBACK")
                raise
            finally:
                if durable:
                    driver.execute("PRAGMA synchronous=NORMAL")
        except (DatabaseError, sqlite3.Error, UnicodeEncodeError) as error:
            _raise_in_words(error, self._name)
        finally:
            self._lock.release()

    @contextmanager
    def read(self, *, wait: bool) -> Iterator[Connection]:
        """One reading transaction, beside the writer: it waits for nobody, so `wait` makes no difference."""
        with _explained(self._name), self._connect() as connection:
            self._patiently(lambda: _driver(connection).execute("BEGIN"))
            try:
                yield connection
            finally:
                _driver(connection).execute("ROLLBACK")

    def close(self) -> None:
        """Give every connection back; the last one folds the WAL into the file."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            self._engine.dispose()

    def _begin(self, driver: sqlite3.Connection, *, wait: bool) -> None:
        def begin() -> None:
            driver.execute("BEGIN IMMEDIATE")

        if wait:
            self._patiently(begin)
            return
        try:
            begin()
        except sqlite3.OperationalError as error:
            raise StoreBusy from error

    def _connect(self) -> Connection:
        # The first to open a store turns WAL on and the last to close it folds the WAL in: both lock everybody out.
        return self._patiently(self._engine.connect)

    def _patiently(self, operation: Callable[[], T]) -> T:
        """Do it, again and again while other processes are in the way."""
        try:
            return operation()
        except (DatabaseError, sqlite3.Error) as error:
            if not _is_locked(error):
                raise
        return Retrying(
            retry=retry_if_exception(_is_locked),
            wait=wait_random_exponential(multiplier=0.002, max=0.1),
            stop=stop_after_delay(self._locked_s_max),
            reraise=True,
        )(operation)


def _engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000, "factory": _OneCursor},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA page_size={PAGE_BYTES}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()
        connection.create_function("bursar_sha256", 1, _sha256, deterministic=True)

    return engine


class _OneCursor(sqlite3.Connection):
    """Runs what is sent on the driver on one cursor: whoever reads rows has read them all before the next statement."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute = self.cursor().execute  # type: ignore[method-assign]  # making one costs as much as a statement


def _sha256(text: str) -> str:
    """What PostgreSQL has a function of the same name for; the journal's chain is hashed in SQL."""
    return sha256(text.encode()).hexdigest()


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", driver_of(connection))


def _sqlite_error(error: BaseException) -> sqlite3.Error | None:
    if isinstance(error, DatabaseError) and isinstance(error.orig, sqlite3.Error):
        return error.orig
    return error if isinstance(error, sqlite3.Error) else None


def _is_locked(error: BaseException) -> bool:
    cause = _sqlite_error(error)
    return cause is not None and getattr(cause, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


_WORDS = {
    sqlite3.SQLITE_BUSY: ("is locked by another process", "wait for it, or end the process that holds it"),
    sqlite3.SQLITE_LOCKED: ("is locked by another process", "wait for it, or end the process that holds it"),
    sqlite3.SQLITE_READONLY: ("is read-only", "make the file and its folder writable"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check that its folder exists and is writable"),
    sqlite3.SQLITE_FULL: ("cannot grow: the disk is full", "free some space"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "check the disk"),
    sqlite3.SQLITE_NOTADB: ("is not a Bursar ledger", "name another file under `database:`"),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "restore it from a backup"),
    sqlite3.SQLITE_PERM: ("may not be used by this user", "change its permissions"),
}

_TAKEN = re.compile(r"table \w+ already exists")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the driver says of the store's state into words; errors of our own making pass."""
    try:
        yield
    except (DatabaseError, sqlite3.Error, UnicodeEncodeError) as error:
        _raise_in_words(error, name)


def _raise_in_words(error: DatabaseError | sqlite3.Error | UnicodeEncodeError, name: str) -> NoReturn:
    if isinstance(error, UnicodeEncodeError):
        raise UsageError(f"the ledger {name} cannot keep a text: {error}") from error
    cause = _sqlite_error(error)
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if "no such table" in str(cause) or "no such column" in str(cause):
        raise LedgerVersionError(
            f"the ledger {name} was made by another version of Bursar ({cause})", next_step="bursar db upgrade"
        ) from error
    if _TAKEN.fullmatch(str(cause)):
        raise LedgerVersionError(
            f"{name} holds tables that are not Bursar's ({cause})", next_step="name another file under `database:`"
        ) from error
    if code not in _WORDS:
        raise error
    words, next_step = _WORDS[code]
    raise LedgerUnavailable(f"the ledger {name} {words}; nothing was reserved", next_step=next_step) from error
