"""What is PostgreSQL's own: writers side by side, what a commit waits for, and every way in which a server fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from bursar.budget.errors import ConfigError, LedgerUnavailable
from bursar.budget.stores import postgresql
from bursar.budget.stores.backend import StoreBusy
from bursar.budget.stores.prepared import driver_of
from bursar.budget.stores.store import Store
from tests.support.postgres import Postgres


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """A database with one table of numbers."""
    with postgres.database() as name:
        postgres.execute("CREATE TABLE number (n INTEGER PRIMARY KEY)", database=name)
        yield name


@pytest.fixture
def store(postgres: Postgres, database: str) -> Iterator[Store]:
    """A store that does not wait for others for long."""
    with closing(Store(postgres.url(database), locked_s_max=0.3)) as store:
        yield store


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A server that a test may stop."""
    with TemporaryDirectory(prefix="bursar-") as folder:
        server = Postgres(Path(folder) / "data")
        yield server
        server.close()


def write(store: Store, *numbers: int) -> None:
    with store.write() as connection:
        for number in numbers:
            connection.execute(text("INSERT INTO number VALUES (:n)"), {"n": number})


def numbers(store: Store) -> list[int]:
    with store.read() as connection:
        return list(connection.execute(text("SELECT n FROM number ORDER BY n")).scalars())


def setting(store: Store, name: str, *, durable: bool = False) -> str:
    with store.write(durable=durable) as connection:
        return str(connection.execute(text(f"SHOW {name}")).scalar_one())


# --- Transactions -----------------------------------------------------------------------------------------------------


def test_transactions_on_different_rows_write_at_the_same_time(store: Store) -> None:
    with store.write() as one:
        one.execute(text("INSERT INTO number VALUES (1)"))
        write(store, 2)
        assert numbers(store) == [2]
    assert numbers(store) == [1, 2]


def test_only_a_durable_transaction_waits_for_the_disk(store: Store) -> None:
    for durable, expected in ((False, "off"), (True, "on"), (False, "off")):
        assert setting(store, "synchronous_commit", durable=durable) == expected


@pytest.mark.parametrize(("servers", "expected"), [("off", "on"), ("remote_apply", "remote_apply")])
def test_a_durable_transaction_waits_for_what_the_server_says_but_for_the_disk_at_least(
    postgres: Postgres, database: str, store: Store, servers: str, expected: str
) -> None:
    postgres.execute("ALTER DATABASE {} SET synchronous_commit TO " + servers, database)
    assert setting(store, "synchronous_commit", durable=True) == expected


def test_a_transaction_that_must_not_wait_is_always_refused(store: Store) -> None:
    with store.at_once():
        with pytest.raises(StoreBusy):
            write(store, 1)
        with pytest.raises(StoreBusy):
            numbers(store)
    assert numbers(store) == []


def test_a_reader_can_write_nothing(store: Store) -> None:
    with pytest.raises(LedgerUnavailable, match="is read-only"), store.read() as connection:
        connection.execute(text("INSERT INTO number VALUES (1)"))


def test_an_error_that_was_passed_over_commits_nothing_and_is_told(store: Store) -> None:
    def careless() -> None:
        with store.write() as connection:
            connection.execute(text("INSERT INTO number VALUES (1)"))
            with pytest.raises(psycopg.errors.UniqueViolation):
                driver_of(connection).execute("INSERT INTO number VALUES (1)")

    with pytest.raises(psycopg.errors.InFailedSqlTransaction, match="its error was passed over"):
        careless()
    assert numbers(store) == []


def test_a_schema_of_its_own_is_named_in_the_url(postgres: Postgres, database: str) -> None:
    postgres.execute("CREATE SCHEMA ours", database=database)
    url = postgres.url(database, options="-csearch_path=ours")
    with closing(Store(url)) as store, store.write() as connection:
        connection.execute(text("CREATE TABLE here (n INTEGER)"))
    assert postgres.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'here'", database=database) == [
        ("ours",)
    ]


# --- A server that lets go --------------------------------------------------------------------------------------------


def end_sessions(postgres: Postgres, database: str) -> None:
    postgres.execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'",
        database="postgres",
    )


def test_connections_that_were_ended_are_replaced_unseen(postgres: Postgres, database: str, store: Store) -> None:
    with store.read(), store.read():  # two lie in the pool then
        pass
    end_sessions(postgres, database)
    write(store, 1)
    assert numbers(store) == [1]


def test_a_transaction_that_is_cut_off_wrote_nothing_and_is_told(
    postgres: Postgres, database: str, store: Store
) -> None:
    def cut_off() -> None:
        with store.write() as connection:
            connection.execute(text("INSERT INTO number VALUES (1)"))
            end_sessions(postgres, database)
            connection.execute(text("INSERT INTO number VALUES (2)"))

    with pytest.raises(LedgerUnavailable, match=r"was cut off .*; nothing was reserved") as caught:
        cut_off()
    assert not caught.value.in_doubt
    write(store, 3)
    assert numbers(store) == [3]


def test_a_commit_without_an_answer_is_in_doubt(postgres: Postgres, database: str, store: Store) -> None:
    def cut_off() -> None:
        with store.write() as connection:
            connection.execute(text("INSERT INTO number VALUES (1)"))
            end_sessions(postgres, database)

    with pytest.raises(LedgerUnavailable, match="may be there or not") as caught:
        cut_off()
    assert caught.value.in_doubt
    assert numbers(store) == []


def test_a_server_that_is_gone_is_said_so_and_used_again_once_it_is_back(own_server: Postgres) -> None:
    own_server.execute("CREATE TABLE number (n INTEGER PRIMARY KEY)")
    with closing(Store(own_server.url("postgres"))) as store:
        write(store, 1)
        own_server.stop()
        with pytest.raises(LedgerUnavailable, match=r"cannot be reached .*; nothing was reserved"):
            write(store, 2)
        own_server.restart()
        write(store, 3)
        own_server.restart()
        assert numbers(store) == [1, 3]


def test_who_finds_connections_ended_lets_go_of_them_and_of_no_other(
    postgres: Postgres, database: str, store: Store
) -> None:
    """One in use elsewhere goes back to the pool, so that closing the store closes it."""
    with store.read() as in_use:
        assert numbers(store) == []
        own = in_use.execute(text("SELECT pg_backend_pid()")).scalar_one()
        others = f"pg_stat_activity WHERE datname = '{database}' AND pid NOT IN (pg_backend_pid(), {own})"
        assert postgres.execute(f"SELECT pg_terminate_backend(pid) FROM {others}") == [(True,)]
        assert numbers(store) == []
    assert numbers(store) == []
    store.close()
    assert postgres.execute(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'") == [(0,)]


# --- A server that refuses --------------------------------------------------------------------------------------------


def test_a_lock_that_is_held_too_long_is_said_so_within_the_time_that_was_given(store: Store) -> None:
    write(store, 1)
    change = text("UPDATE number SET n = n + 1")
    with store.write() as holder:
        holder.execute(change)
        started = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="is locked by another transaction"), store.write() as connection:
            connection.execute(change)
        assert 0.3 <= time.monotonic() - started < 3
    assert numbers(store) == [2]


def test_a_lock_that_comes_free_in_time_is_taken(postgres: Postgres, database: str) -> None:
    with closing(Store(postgres.url(database))) as store:
        write(store, 1)
        held, waiting = threading.Event(), threading.Event()

        def hold() -> None:
            with store.write() as connection:
                connection.execute(text("UPDATE number SET n = n + 1"))
                held.set()
                waiting.wait(10)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(10)
        with store.write() as connection:
            waiting.set()
            connection.execute(text("UPDATE number SET n = n + 1"))
        holder.join()
        assert numbers(store) == [3]


def test_a_process_beyond_its_connections_is_said_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "CONNECTIONS_MAX", 1)
    none_free = pytest.raises(LedgerUnavailable, match="has no connection free in this process")
    with closing(Store(store.url, locked_s_max=0.1)) as small, small.read(), none_free:
        numbers(small)


def test_a_statement_that_takes_too_long_is_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "STATEMENT_S_MAX", 1)
    too_long = pytest.raises(LedgerUnavailable, match="did not answer within")
    with closing(Store(store.url)) as strict, too_long, strict.read() as connection:
        connection.execute(text("SELECT pg_sleep(60)"))


def test_a_process_that_stopped_midway_gives_its_locks_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, 1)
    monkeypatch.setattr(postgresql, "IDLE_S_MAX", 1)
    change = text("UPDATE number SET n = n + 1")

    def stop_midway(asleep: Store, other: Store) -> None:
        with asleep.write() as connection:
            connection.execute(change)
            with other.write() as theirs:
                theirs.execute(change)

    is_told = pytest.raises(LedgerUnavailable, match="cut off")
    with closing(Store(store.url)) as asleep, closing(Store(store.url)) as other, is_told:
        stop_midway(asleep, other)
    assert numbers(store) == [2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER DATABASE {} SET default_transaction_read_only TO on", "is read-only"),
        ("ALTER DATABASE {} CONNECTION LIMIT 0", "has no connection free"),
        ("ALTER DATABASE {} ALLOW_CONNECTIONS false", "cannot be reached"),
    ],
)
def test_a_server_that_refuses_is_said_so(postgres: Postgres, database: str, change: str, words: str) -> None:
    url = postgres.url(database, user=a_user(postgres, database))
    postgres.execute(change, database)
    with closing(Store(url)) as store, pytest.raises(LedgerUnavailable, match=words):
        write(store, 1)


def a_user(postgres: Postgres, database: str) -> str:
    """A user who may do everything in a database and is no superuser."""
    name = f"user_of_{database}"
    postgres.execute("CREATE ROLE {} LOGIN", name)
    postgres.execute("GRANT ALL ON number TO {}", name, database=database)
    return name


def test_a_user_without_rights_is_said_so(postgres: Postgres, database: str) -> None:
    postgres.execute("CREATE ROLE {} LOGIN", f"stranger_{database}")
    url = postgres.url(database, user=f"stranger_{database}")
    with closing(Store(url)) as theirs, pytest.raises(LedgerUnavailable, match="may not be used by this user"):
        write(theirs, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.set(database="no_such"), "there is no such database"),
        (lambda url: url.set(username="nobody"), "does not let this user in"),
    ],
)
def test_a_wrong_setting_is_said_so(store: Store, change: Callable[[URL], URL], words: str) -> None:
    url = make_url(store.url).set(password="secret")
    wrong = Store(change(url).render_as_string(hide_password=False))
    with closing(wrong), pytest.raises(ConfigError, match=words) as caught:
        write(wrong, 1)
    assert "secret" not in str(caught.value)
    assert caught.value.key == "database"


def test_a_wrong_password_is_said_so(own_server: Postgres) -> None:
    own_server.require_passwords()
    url = make_url(own_server.url("postgres")).set(password="secret").render_as_string(hide_password=False)
    with closing(Store(url)) as store, pytest.raises(ConfigError, match="password authentication failed") as caught:
        write(store, 1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("words", ["starting up", "shutting down", "not yet accepting connections"])
def test_a_server_that_is_starting_is_waited_for(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    refusals = [psycopg.OperationalError(f"connection failed: FATAL:  the database system is {words}")] * 2
    connect = psycopg.connect

    def starting(*arguments: Any, **options: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return connect(*arguments, **options)

    monkeypatch.setattr(psycopg, "connect", starting)
    with closing(Store(postgres.url(database))) as store:
        assert numbers(store) == []
    assert not refusals
