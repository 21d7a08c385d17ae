from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import bursar.memory.opening
from bursar.budget.errors import ConfigError
from bursar.budget.stores.store import Store
from bursar.memory import CheckpointsUnavailable, open_checkpoints
from bursar.memory.schema import metadata
from bursar.memory.threads import Held
from tests.support.checkpoints import execute, written
from tests.support.postgres import Postgres


def writes_of(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": "1"}}


def counted(url: str) -> dict[str, int]:
    found = [thread_id for thread_id, _ in written(url)]
    return {thread_id: found.count(thread_id) for thread_id in found}


def test_threads_that_open_a_new_store_at_once_all_get_it_and_lose_no_write(checkpoints_url: str) -> None:
    together = threading.Barrier(4)

    async def write(name: str) -> None:
        async with open_checkpoints(checkpoints_url) as saver:
            for number in range(10):
                await saver.aput_writes(writes_of(name), [("a", number)], str(number))

    def thread(name: str) -> None:
        together.wait()
        asyncio.run(write(name))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(thread, "abcd"))
    assert counted(checkpoints_url) == dict.fromkeys("abcd", 10)


async def test_a_write_whose_caller_is_cancelled_is_still_made_whole_and_blocks_nobody(
    checkpoints_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inserted, go_on = threading.Event(), threading.Event()
    put_write = Held.put_write

    def slowly(self: Held, *arguments: Any) -> None:
        put_write(self, *arguments)
        inserted.set()
        assert go_on.wait(30)

    async with open_checkpoints(checkpoints_url) as saver:
        await saver.aput_writes(writes_of("1"), [("a", 1)], "before")
        monkeypatch.setattr(Held, "put_write", slowly)
        write = asyncio.create_task(saver.aput_writes(writes_of("1"), [("a", 1), ("b", 2)], "cancelled"))
        assert await asyncio.to_thread(inserted.wait, 30)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        go_on.set()
    assert counted(checkpoints_url) == {"1": 3}


def a_file(path: Path) -> None:
    async def make() -> None:
        async with open_checkpoints(f"sqlite:///{path}") as saver:
            await saver.aput_writes(writes_of("1"), [("a", "b" * 60_000)], "1")

    asyncio.run(make())


def change(path: Path, place: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[place : place + len(value)] = value
    path.write_bytes(content)


def read_only(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE another (a)")
    change(path, 18, b"\x03")  # SQLite reads a file of a later write version, and does not write it


def half(path: Path) -> None:
    a_file(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(path: Path) -> None:
    a_file(path)
    execute(f"sqlite:///{path}", "UPDATE bursar_checkpoints_version SET version_num = '9999'")


@pytest.mark.parametrize(
    ("make", "why", "next_step"),
    [
        (lambda path: path.write_bytes(b"junk" * 2000), "file is not a database", "name another file"),
        (lambda path: path.mkdir(), "unable to open", "check that its folder exists and is writable"),
        (read_only, "attempt to write a readonly database", "make the file and its folder writable"),
        (half, "malformed", "restore it from a backup"),
        (newer, "has version 9999, and this Bursar knows versions up to 0001", "pip install --upgrade bursar"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_opening_with_what_to_do(
    make: Any, why: str, next_step: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints.db"
    make(path)
    with pytest.raises(CheckpointsUnavailable, match=why) as refused:
        asyncio.run(use(f"sqlite:///{path}"))
    assert str(path) in refused.value.message
    assert refused.value.next_step is not None
    assert next_step in refused.value.next_step


async def use(url: str) -> None:
    async with open_checkpoints(url):
        pass


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointsUnavailable, match=r"nowhere/checkpoints\.db .* check that its folder exists"):
        asyncio.run(use(f"sqlite:///{tmp_path}/nowhere/checkpoints.db"))


def test_what_is_no_stores_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected sqlite:///FILE or postgresql"):
        asyncio.run(use("checkpoints.db"))


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://bob:secret@/bursar?host={tmp_path}"
    with pytest.raises(CheckpointsUnavailable, match=r"the checkpoints .* cannot be used: .*connection") as refused:
        asyncio.run(use(url))
    assert "secret" not in str(refused.value)
    assert refused.value.next_step == "see that the server is up, then do it again"


def test_checkpoints_lie_beside_the_ledger_in_one_database(postgres: Postgres) -> None:
    with postgres.migrated() as url:
        asyncio.run(use(url))
        names = {name for (name,) in execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        assert {"checkpoint_thread", "checkpoint_segment", "reservation", "bursar_version"} <= names


async def test_a_file_that_stays_locked_is_given_up_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bursar.memory.opening, "LOCKED_S_MAX", 0.05)
    path = tmp_path / "checkpoints.db"
    url = f"sqlite:///{path}"
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CheckpointsUnavailable, match="database is locked -> wait for it"):
            await use(url)
        other.rollback()
        async with open_checkpoints(url) as saver:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(CheckpointsUnavailable, match="database is locked -> wait for it"):
                await saver.aput_writes(writes_of("1"), [("a", 1)], "1")
            other.rollback()
            await saver.aput_writes(writes_of("1"), [("a", 1)], "1")
    assert counted(url) == {"1": 1}


async def test_tables_of_another_version_are_explained_in_every_use(checkpoints_url: str) -> None:
    async with open_checkpoints(checkpoints_url) as saver:
        await saver.aput_writes(writes_of("1"), [("a", 1)], "1")
        execute(checkpoints_url, "ALTER TABLE checkpoint RENAME COLUMN body TO content")
        with pytest.raises(CheckpointsUnavailable, match="body"):
            await saver.aget_tuple(writes_of("1"))
        with pytest.raises(CheckpointsUnavailable, match="body"):
            _ = [seen async for seen in saver.alist(None)]


def test_the_migrations_make_what_the_tables_are_declared_as(checkpoints_url: str) -> None:
    asyncio.run(use(checkpoints_url))
    with closing(Store(checkpoints_url)) as store, store.read() as connection:
        context = MigrationContext.configure(connection)
        changes = [change for change in compare_metadata(context, metadata) if "checkpoint" in repr(change)]
    assert [change for change in changes if "bursar_checkpoints_version" not in repr(change)] == []
