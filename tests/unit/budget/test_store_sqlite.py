from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from bursar.budget.errors import LedgerUnavailable, LedgerVersionError
from bursar.budget.stores.backend import StoreBusy
from bursar.budget.stores.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one table of numbers."""
    path = tmp_path / "numbers.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE number (n INTEGER PRIMARY KEY)")
    return path


@pytest.fixture
def patient_store(path: Path) -> Iterator[Store]:
    """A store that waits for others as long as it does by itself."""
    store = Store(f"sqlite:///{path}")
    yield store
    store.close()


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A store that does not wait for others for long."""
    store = Store(f"sqlite:///{path}", locked_s_max=0.3)
    yield store
    store.close()


def add(connection: Connection, number: int) -> None:
    connection.execute(text("INSERT INTO number VALUES (:n)"), {"n": number})


def write(store: Store, *numbers: int) -> None:
    """Add numbers in one transaction."""
    with store.write() as connection:
        for number in numbers:
            add(connection, number)


def numbers(store: Store) -> list[int]:
    with store.read() as connection:
        return list(connection.execute(text("SELECT n FROM number ORDER BY n")).scalars())


# --- Transactions -----------------------------------------------------------------------------------------------------


def test_threads_write_one_after_the_other(store: Store) -> None:
    def add_next() -> None:
        for _ in range(10):
            with store.write() as connection:
                add(connection, connection.execute(text("SELECT count(*) FROM number")).scalar_one())

    threads = [threading.Thread(target=add_next) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(store) == list(range(40))


def test_a_durable_transaction_waits_for_the_disk_and_others_do_not(store: Store) -> None:
    level = text("PRAGMA synchronous")
    for durable, expected in ((False, 1), (True, 2), (False, 1)):
        with store.write(durable=durable) as connection:
            assert connection.execute(level).scalar_one() == expected


def test_a_transaction_that_must_not_wait_is_refused_where_it_would_have_to(store: Store, path: Path) -> None:
    with store.at_once(), pytest.raises(StoreBusy):
        write(store, 1)  # the store is not open yet
    write(store, 2)
    with store.at_once():
        write(store, 3)
        with pytest.raises(StoreBusy), store.write(durable=True):
            pass
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusy):
                write(store, 4)
    with store.write(durable=True) as connection:
        add(connection, 5)
    assert numbers(store) == [2, 3, 5]


def test_a_transaction_that_must_not_wait_is_refused_while_another_thread_writes(store: Store) -> None:
    write(store, 1)
    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        with store.write():
            begun.set()
            ended.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(10)
    with store.at_once(), pytest.raises(StoreBusy):
        write(store, 2)
    ended.set()
    holder.join()
    write(store, 3)
    assert numbers(store) == [1, 3]


def test_a_file_may_be_opened_again_after_it_was_closed(store: Store, path: Path) -> None:
    write(store, 1)
    store.close()
    assert [file.name for file in path.parent.iterdir()] == ["numbers.db"]
    again = Store(store.url)
    assert numbers(again) == [1]
    again.close()


# --- A store that cannot be used --------------------------------------------------------------------------------------


def test_a_locked_store_is_said_so_within_the_time_that_was_given(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="is locked by another process; nothing was reserved"):
            write(store, 1)
        assert 0.3 <= time.monotonic() - started < 3
        assert numbers(store) == []
        other.execute("COMMIT")
    write(store, 1)


def test_a_store_that_comes_free_in_time_is_used(patient_store: Store, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.1, other.execute, ["COMMIT"])
    release.start()
    write(patient_store, 1)
    release.join()
    other.close()
    assert numbers(patient_store) == [1]


def test_a_file_that_another_process_is_just_making_is_waited_for(patient_store: Store, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.1, other.execute, ["COMMIT"])
    release.start()
    assert numbers(patient_store) == []
    release.join()
    other.close()


def test_a_file_that_is_locked_as_a_whole_cannot_be_opened_and_is_said_so(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerUnavailable, match="is locked by another process"), store.read():
            pass


def test_a_file_that_is_no_store_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(LedgerUnavailable, match="is not a Bursar ledger"), Store(f"sqlite:///{path}").read():
        pass
    assert path.read_text().startswith("Dear Sir")


@pytest.mark.parametrize("where", ["missing/ledger.db", "."])
def test_a_file_that_cannot_be_opened_is_said_so(tmp_path: Path, where: str) -> None:
    with pytest.raises(LedgerUnavailable, match="cannot be opened"), Store(f"sqlite:///{tmp_path / where}").write():
        pass


def test_a_full_disk_is_said_so_and_nothing_is_written(store: Store) -> None:
    with store.write() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(LedgerUnavailable, match="the disk is full; nothing was reserved"):
        write(store, *range(10_000))
    assert numbers(store) == []


def test_a_damaged_file_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE number (n INTEGER PRIMARY KEY)")
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 4096)
    with pytest.raises(LedgerUnavailable, match="is damaged"):
        numbers(Store(f"sqlite:///{path}"))


def test_a_store_without_its_tables_is_of_another_version(store: Store) -> None:
    with pytest.raises(LedgerVersionError, match="made by another version") as caught, store.read() as connection:
        connection.execute(text("SELECT * FROM account"))
    assert caught.value.next_step == "bursar db upgrade"
