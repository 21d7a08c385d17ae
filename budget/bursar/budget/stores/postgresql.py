"""A PostgreSQL database as the ledger's store: pooled connections, timeouts, and what to say when it cannot be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TypeVar, cast

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import IntLoader
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoneFree
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from bursar.budget.errors import BursarError, ConfigError, LedgerUnavailable, LedgerVersionError, UsageError
from bursar.budget.stores.backend import StoreBusy
from bursar.budget.stores.prepared import driver_of

__all__ = ["Postgresql"]

CONNECTIONS_MAX = 8
"""Of one process; a thread beyond these waits for one to come free."""

STATEMENT_S_MAX = 60
"""How long one statement may take: a server that hangs must not hang its callers."""

IDLE_S_MAX = 60
"""How long a transaction may do nothing, so that a process that was stopped midway gives its locks back."""

GONE_S_MAX = 1
"""How long a statement goes on for a process that was killed: in a queue for a lock it would keep its connection."""

NETWORK: Mapping[str, int] = {
    "connect_timeout": 10,  # seconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds without an acknowledgement
}
"""After what time a server that no longer answers counts as gone; the URL may say otherwise."""

# Each is sent as one message, so it costs one round trip.
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit TO off"
_WRITE_DURABLE = "BEGIN ISOLATION LEVEL READ COMMITTED"

T = TypeVar("T")


class Postgresql:
    """Transactions on one database; see `bursar.budget.stores.store.Store`."""

    def __init__(self, url: URL, name: str, locked_s_max: float) -> None:
        """`locked_s_max` is how long to wait for a lock, and for a free connection."""
        self._name = name
        self._locked_s_max = locked_s_max
        self._engine = _engine(url, locked_s_max)

    def write(self, *, durable: bool, wait: bool) -> AbstractContextManager[Connection]:
        """One writing transaction, beside others; a server is always waited for."""
        return self._transaction(_WRITE_DURABLE if durable else _WRITE, wait=wait)

    def read(self, *, wait: bool) -> AbstractContextManager[Connection]:
        """One reading transaction; a server is always waited for."""
        return self._transaction(_READ, wait=wait)

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, begin: str, *, wait: bool) -> Iterator[Connection]:
        if not wait:
            raise StoreBusy
        # Begun and ended on the driver: SQLAlchemy's own round for each would cost more than the driver's.
        with _explained(self._name), self._begun(begin) as connection:
            driver = _driver(connection)
            try:
                yield connection
                self._commit(driver)
            finally:
                if driver.pgconn.transaction_status != TransactionStatus.IDLE:
                    _roll_back(connection, driver)

    def _begun(self, begin: str) -> Connection:
        try:
            return self._begin(begin)
        except psycopg.OperationalError:
            return self._begin(begin)  # what lay in the pool was ended by the server since, and nothing was done yet

    def _begin(self, begin: str) -> Connection:
        connection = self._patiently(self._engine.connect)
        try:
            _driver(connection).execute(begin)
        except BaseException as error:
            if isinstance(error, psycopg.OperationalError):
                # By a statement of its own SQLAlchemy notices, and uses no connection that is as old any more.
                with suppress(DBAPIError):
                    connection.exec_driver_sql(begin)
            connection.invalidate()
            connection.close()
            raise
        return connection

    def _commit(self, driver: psycopg.Connection) -> None:
        try:
            ended = driver.execute("COMMIT").statusmessage
        except psycopg.OperationalError as error:
            if not driver.broken:
                raise
            raise LedgerUnavailable(
                f"the ledger {self._name} was cut off during a commit: what was written may be there or not",
                next_step="see that the server is up, then look at `bursar budget why RUN`",
                in_doubt=True,
            ) from error
        if ended == "ROLLBACK":
            raise psycopg.errors.InFailedSqlTransaction("a statement failed and its error was passed over")

    def _patiently(self, operation: Callable[[], T]) -> T:
        """Do it, again and again while the server starts."""
        try:
            return operation()
        except DBAPIError as error:
            if not _is_starting(error):
                raise
        return Retrying(
            retry=retry_if_exception(_is_starting),
            wait=wait_random_exponential(multiplier=0.02, max=0.5),
            stop=stop_after_delay(self._locked_s_max),
            reraise=True,
        )(operation)


def _engine(url: URL, locked_s_max: float) -> Engine:
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=locked_s_max,
        pool_use_lifo=True,
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
        connect_args={name: value for name, value in NETWORK.items() if name not in url.query},
    )
    settings = _settings(locked_s_max)

    @event.listens_for(engine, "connect")
    def prepare(connection: psycopg.Connection, _record: object) -> None:
        # The sum of whole numbers comes as a numeric, and is a whole number all the same.
        connection.adapters.register_loader("numeric", IntLoader)
        connection.autocommit = True
        connection.execute(settings)

    return engine


def _settings(locked_s_max: float) -> str:
    """What a session of ours has, in one round trip."""
    return f"""
        SET client_encoding TO 'UTF8';
        SET lock_timeout TO {round(locked_s_max * 1000)};
        SET statement_timeout TO '{STATEMENT_S_MAX}s';
        SET idle_in_transaction_session_timeout TO '{IDLE_S_MAX}s';
        SET client_connection_check_interval TO '{GONE_S_MAX}s';
        SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
    """


def _driver(connection: Connection) -> psycopg.Connection:
    return cast("psycopg.Connection", driver_of(connection))


def _roll_back(connection: Connection, driver: psycopg.Connection) -> None:
    """End what was begun; a connection on which that fails is not used again."""
    try:
        driver.execute("ROLLBACK")
    except psycopg.Error:
        if not connection.invalidated:  # SQLAlchemy has noticed by itself where a statement of its own failed
            connection.invalidate()


# --- What to say when it cannot be used -------------------------------------------------------------------------------

_BUSY_NEXT = "SELECT * FROM pg_stat_activity WHERE state <> 'idle'  -- shows who is at it"

# By SQLSTATE, or by its class of two letters.
_WORDS: Mapping[str, tuple[str, str]] = {
    "08": ("was cut off", "see that the server is up, then do it again"),
    "25006": ("is read-only", "name the primary server under `database:`"),
    "25P03": ("was cut off after a transaction that did nothing for too long", "do it again"),
    "3F": ("has no schema to make its tables in", "create the schema that search_path names"),
    "40": ("was in use by others in a way that did not go together", "do it again"),
    "42501": ("may not be used by this user", "give the user rights on the schema and its tables"),
    "53100": ("cannot grow: the disk is full", "free some space on the server"),
    "53": ("has nothing left to serve with", "see the server's log"),
    "54": ("was asked for more than the server can do", "see the server's log"),
    "55P03": ("is locked by another transaction", _BUSY_NEXT),
    "57014": (f"did not answer within {STATEMENT_S_MAX} s", _BUSY_NEXT),
    "57": ("was cut off", "see that the server is up, then do it again"),
    "58": ("cannot be read or written", "see the server's log and its disk"),
    "XX": ("is damaged", "see the server's log; restore it from a backup"),
}

_OTHER_VERSION = {
    "42P01",  # undefined_table
    "42703",  # undefined_column
    "42883",  # undefined_function
}

# A connection that was refused has no SQLSTATE here, only words.
_STARTING = re.compile(r"the database system is (starting up|shutting down|not yet accepting|in recovery)")
_NONE_FREE = re.compile(r"too many (clients|connections)|remaining connection slots")
_NO_DATABASE = re.compile(r'database ".*" does not exist')
_NOT_LET_IN = re.compile(r"password|authentication failed|role \".*\"|pg_hba\.conf")


def _cause(error: BaseException) -> psycopg.Error | None:
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error):
        return error.orig
    return error if isinstance(error, psycopg.Error) else None


def _is_starting(error: BaseException) -> bool:
    return _STARTING.search(str(_cause(error))) is not None


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the driver says of the store's state into words; errors of our own making pass."""
    try:
        yield
    except NoneFree as error:
        raise _unavailable(name, "has no connection free in this process", "do it again later") from error
    except UnicodeEncodeError as error:
        raise UsageError(f"the ledger {name} cannot keep a text: {error}") from error
    except (DBAPIError, psycopg.Error) as error:
        cause = cast("psycopg.Error", _cause(error))
        said = _of_a_state(name, cause) if cause.sqlstate else _of_a_connection(name, cause)
        if said is None:
            raise
        raise said from error


def _of_a_state(name: str, cause: psycopg.Error) -> BursarError | None:
    state = cause.sqlstate or ""
    detail = cause.diag.message_primary
    if state in _OTHER_VERSION:
        return LedgerVersionError(
            f"the ledger {name} was made by another version of Bursar ({detail})", next_step="bursar db upgrade"
        )
    if state == "42P07":  # duplicate_table
        return LedgerVersionError(
            f"{name} holds tables that are not Bursar's ({detail})",
            next_step="give Bursar a schema of its own: docs/postgresql.md",
        )
    found = _WORDS.get(state) or _WORDS.get(state[:2])
    return _unavailable(name, f"{found[0]} ({detail})", found[1]) if found else None


def _of_a_connection(name: str, cause: psycopg.Error) -> BursarError | None:
    said = " ".join(str(cause).split())
    if _NO_DATABASE.search(said):
        return ConfigError(f"{name}: there is no such database", key="database", next_step="createdb DATABASE")
    if _NOT_LET_IN.search(said):
        return ConfigError(
            f"{name}: the server does not let this user in ({said})",
            key="database",
            next_step="check the user under `database:` and the variable under `database_password_env:`",
        )
    if _NONE_FREE.search(said):
        return _unavailable(name, "has no connection free", "raise max_connections, or run fewer processes")
    if isinstance(cause, psycopg.DataError):
        return UsageError(f"the ledger {name} cannot keep a text: {said}")
    if isinstance(cause, psycopg.OperationalError):
        return _unavailable(name, f"cannot be reached ({said})", "see that the server is up, then do it again")
    return None


def _unavailable(name: str, words: str, next_step: str) -> LedgerUnavailable:
    return LedgerUnavailable(f"the ledger {name} {words}; nothing was reserved", next_step=next_step)
