"""What a store promises on SQLite and PostgreSQL alike."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import Connection, column, func, select, table, text
from sqlalchemy.exc import IntegrityError

from bursar.budget.errors import ConfigError, LedgerVersionError
from bursar.budget.stores.prepared import driver_of
from bursar.budget.stores.store import Store


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A store with one table of numbers beside the ledger's."""
    with closing(Store.open(store_url)) as store:
        with store.write() as connection:
            connection.execute(text("CREATE TABLE number (n BIGINT PRIMARY KEY)"))
        yield store
        with store.write() as connection:
            connection.execute(text("DROP TABLE number"))


def add(connection: Connection, number: int) -> None:
    connection.execute(text("INSERT INTO number VALUES (:n)"), {"n": number})


def write(store: Store, *numbers: int, and_raise: type[BaseException] | None = None) -> None:
    """Add numbers in one transaction, which may fail at its end."""
    with store.write() as connection:
        for number in numbers:
            add(connection, number)
        if and_raise is not None:
            raise and_raise


def numbers(store: Store) -> list[int]:
    with store.read() as connection:
        return list(connection.execute(text("SELECT n FROM number ORDER BY n")).scalars())


# --- Transactions -----------------------------------------------------------------------------------------------------


def test_a_transaction_is_written_whole_or_not_at_all(store: Store) -> None:
    write(store, 1, 2)
    with pytest.raises(ZeroDivisionError):
        write(store, 3, and_raise=ZeroDivisionError)
    assert numbers(store) == [1, 2]


def test_an_interrupt_leaves_the_store_as_it_was_and_usable(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(store, 1, and_raise=KeyboardInterrupt)
    write(store, 2)
    assert numbers(store) == [2]


def test_a_reader_sees_one_state_and_waits_for_no_writer(store: Store) -> None:
    with store.read() as reading:
        count = text("SELECT count(*) FROM number")
        assert reading.execute(count).scalar_one() == 0
        with store.write() as connection:
            add(connection, 1)
            assert numbers(store) == []  # by a second reader
        assert reading.execute(count).scalar_one() == 0
    assert numbers(store) == [1]


def test_threads_write_at_the_same_time_and_nothing_is_lost(store: Store) -> None:
    write(store, 0)

    def add_next() -> None:
        for _ in range(10):
            with store.write() as connection:
                connection.execute(text("UPDATE number SET n = n + 1"))

    threads = [threading.Thread(target=add_next) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(store) == [120]


def test_a_mistake_in_our_own_sql_is_not_dressed_up_as_something_else(store: Store) -> None:
    with pytest.raises(IntegrityError):
        write(store, 1, 1)
    assert numbers(store) == []


def test_a_store_without_its_tables_is_of_another_version(store: Store) -> None:
    with pytest.raises(LedgerVersionError, match="made by another version") as caught, store.read() as connection:
        connection.execute(text("SELECT * FROM nothing_of_ours"))
    assert caught.value.next_step == "bursar db upgrade"


# --- What both kinds of store answer alike ----------------------------------------------------------------------------


def test_a_row_is_a_tuple(store: Store) -> None:
    write(store, 7)
    with store.read() as connection:
        assert driver_of(connection).execute("SELECT n FROM number").fetchone() == (7,)


def test_the_sum_of_large_whole_numbers_is_a_whole_number(store: Store) -> None:
    write(store, 2**62 - 1, 1 - 2**62, 2**62)
    with store.read() as connection:
        found: int = connection.execute(select(func.sum(column("n"))).select_from(table("number"))).scalar_one()
    assert found == 2**62
    assert type(found) is int


@pytest.mark.parametrize("said", ["", "a", "čas je peníze 💶", '["acme",null,-1]'])
def test_every_store_hashes_text_as_python_does(store: Store, said: str) -> None:
    with store.read() as connection:
        found: str = connection.execute(select(func.bursar_sha256(said))).scalar_one()
    assert found == sha256(said.encode()).hexdigest()


# --- Its URL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "postgresql+asyncpg://me:secret@h/bursar", "mysql://me:secret@h/x", "secret"],
)
def test_only_a_file_or_a_postgresql_database_is_a_store_and_no_password_is_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="expected sqlite:///FILE or postgresql") as caught:
        Store(url)
    assert "secret" not in str(caught.value)
    assert caught.value.key == "database"


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_server_is_called_by_its_url_without_a_password(scheme: str) -> None:
    store = Store(f"{scheme}://me:secret@db.example/bursar?sslpassword=secret")
    assert (store.name, store.dialect) == ("postgresql+psycopg://me:***@db.example/bursar", "postgresql")


def test_a_file_is_called_by_its_path(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/a.db")
    assert (store.name, store.dialect) == (f"{tmp_path}/a.db", "sqlite")


def test_a_file_is_opened_without_the_other_stores_driver(tmp_path: Path) -> None:
    code = f"""if True:
        import sys
        from bursar.budget.stores.store import Store
        with Store("sqlite:///{tmp_path}/a.db").read():
            sys.exit("psycopg" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
