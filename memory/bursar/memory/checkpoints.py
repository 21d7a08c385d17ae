"""The checkpoints of runs: LangGraph's SQLite saver on a file of its own, read strictly."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import aiosqlite
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from bursar.memory.errors import CheckpointRefused, CheckpointsUnavailable
from bursar.memory.strict import AllowedType, StrictSerializer

__all__ = ["open_checkpoints"]

BUSY_TIMEOUT_S: Final = 30.0
"""How long a write waits while other processes write to the same file."""

VERSION: Final = 1
"""Of the file, in its `user_version`; raised when an older Bursar could no longer read it."""

P = ParamSpec("P")
T = TypeVar("T")


@asynccontextmanager
async def open_checkpoints(path: Path, *, allowed_types: Iterable[AllowedType] = ()) -> AsyncIterator[AsyncSqliteSaver]:
    """Open the checkpoints in `path`, made when it is missing; several processes may have it open at once.

    The saver goes to `graph.compile(checkpointer=...)`. `allowed_types` are those that a graph's state holds besides
    messages, LangGraph's types and the standard library's values; `saver.with_allowlist(...)` adds some for one graph.
    Raises CheckpointsUnavailable, here and in every use, where the file cannot be used; CheckpointRefused in use.
    """
    await asyncio.to_thread(_prepare, path)
    # IMMEDIATE: a transaction that must wait has then read nothing yet, and so cannot have become stale.
    async with aiosqlite.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level="IMMEDIATE") as connection:
        saver = _Saver(connection, path, StrictSerializer(allowed_types))
        with _explained(path):
            await saver.setup()
            await connection.execute("PRAGMA synchronous=NORMAL")
        try:
            yield saver
        finally:
            if saver.running:
                await asyncio.wait(saver.running)


def _prepare(path: Path) -> None:
    """Find out whether the file can be used before a thread is started for it, and mark it as ours."""
    with _explained(path), closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > VERSION:
            raise CheckpointsUnavailable(
                f"the checkpoints {path} have version {found}, and this Bursar knows versions up to {VERSION}",
                next_step="pip install --upgrade bursar",
            )
        # Of two that switch a new file to WAL at once, SQLite refuses one without waiting.
        for attempt in Retrying(
            retry=retry_if_exception(_is_busy),
            wait=wait_random_exponential(multiplier=0.01, max=0.5),
            stop=stop_after_delay(BUSY_TIMEOUT_S),
            reraise=True,
        ):
            with attempt:
                connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA user_version={VERSION}")  # also shows whether the file can be written


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_BUSY


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


_NEXT_STEPS: Final = {
    sqlite3.SQLITE_ERROR: "another version of Bursar or another program made it: name another file",
    sqlite3.SQLITE_NOTADB: "name another file",
    sqlite3.SQLITE_CANTOPEN: "check that its folder exists and is writable",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
    sqlite3.SQLITE_PERM: "make the file and its folder writable",
    sqlite3.SQLITE_BUSY: "wait for the process that holds it, or end that process",
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_IOERR: "check the disk",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup",
}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise CheckpointsUnavailable(
            f"the checkpoints {path} cannot be used: {error}",
            next_step=_NEXT_STEPS.get(_code(error)),
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointRefused(f"the metadata of a checkpoint in {path} cannot be read: {error}") from error


def _whole(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Explain what the database says, and finish even when cancelled.

    A write cancelled between its insert and its commit would hold the file's write lock until the next write.
    """

    @wraps(method)
    async def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with _explained(self.path):
            task = asyncio.ensure_future(method(self, *args, **kwargs))
            self.running.add(task)
            task.add_done_callback(self.running.discard)
            return await asyncio.shield(task)

    return run


class _Saver(AsyncSqliteSaver):
    def __init__(self, connection: aiosqlite.Connection, path: Path, serde: StrictSerializer) -> None:
        super().__init__(connection, serde=serde)
        self.path = path
        self.running: set[asyncio.Future[Any]] = set()

    aget_tuple = _whole(AsyncSqliteSaver.aget_tuple)
    aput = _whole(AsyncSqliteSaver.aput)
    aput_writes = _whole(AsyncSqliteSaver.aput_writes)
    adelete_thread = _whole(AsyncSqliteSaver.adelete_thread)
    aget_delta_channel_history = _whole(AsyncSqliteSaver.aget_delta_channel_history)

    async def alist(self, *args: Any, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        with _explained(self.path):
            async for found in super().alist(*args, **kwargs):
                yield found
