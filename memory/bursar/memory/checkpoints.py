"""The checkpoints of runs: LangGraph's SQLite saver on a file of its own, read strictly."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from bursar.memory.errors import CheckpointFenced, CheckpointRefused, CheckpointsUnavailable
from bursar.memory.strict import AllowedType, StrictSerializer

__all__ = ["EPOCH_KEY", "CheckpointSaver", "open_checkpoints"]

EPOCH_KEY: Final = "bursar_epoch"
"""In a config's `configurable`: the epoch with which its writer holds the thread, for `CheckpointSaver.fence`."""

BUSY_TIMEOUT_S: Final = 30.0
"""How long a write waits while other processes write to the same file."""

VERSION: Final = 1
"""Of the file, in its `user_version`; raised when an older Bursar could no longer read it."""

P = ParamSpec("P")
T = TypeVar("T")


@asynccontextmanager
async def open_checkpoints(path: Path, *, allowed_types: Iterable[AllowedType] = ()) -> AsyncIterator[CheckpointSaver]:
    """Open the checkpoints in `path`, made when it is missing; several processes may have it open at once.

    The saver goes to `graph.compile(checkpointer=...)`. `allowed_types` are those that a graph's state holds besides
    messages, LangGraph's types and the standard library's values; `saver.with_allowlist(...)` adds some for one graph.
    Raises CheckpointsUnavailable, here and in every use, where the file cannot be used; CheckpointRefused in use.
    """
    await asyncio.to_thread(_prepare, path)
    async with _Connection(lambda: _connect(path), iter_chunk_size=64) as connection:
        saver = CheckpointSaver(connection, path, StrictSerializer(allowed_types))
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
        connection.execute("CREATE TABLE IF NOT EXISTS fence (thread_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL)")
        connection.execute(f"PRAGMA user_version={VERSION}")  # also shows whether the file can be written


def _connect(path: Path) -> sqlite3.Connection:
    # IMMEDIATE: a transaction that must wait has then read nothing yet, and so cannot have become stale.
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level="IMMEDIATE")


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


_writer: ContextVar[tuple[str, int] | None] = ContextVar("writer", default=None)
"""The thread and the epoch of the write that is being made; None where the writer named no epoch."""


@contextmanager
def _writing(config: RunnableConfig) -> Iterator[None]:
    named = config["configurable"]
    epoch = named.get(EPOCH_KEY)
    token = _writer.set(None if epoch is None else (str(named["thread_id"]), epoch))
    try:
        yield
    finally:
        _writer.reset(token)


class _Connection(aiosqlite.Connection):
    """Compares at the commit: the write lock is held then, so nobody can raise the fence between the two."""

    async def commit(self) -> None:
        writer = _writer.get()
        if writer is None:
            return await super().commit()
        # One way to the connection's thread and back for all of it: each costs more than the statements do.
        taken: int | None = await self._execute(  # type: ignore[no-untyped-call]  # untyped in aiosqlite
            self._commit_unless_fenced, writer
        )
        if taken is not None:
            raise CheckpointFenced(
                f"{writer[0]} was taken over by another worker (epoch {taken}, here {writer[1]}); nothing was written",
                next_step="leave it to that worker",
            )

    def _commit_unless_fenced(self, writer: tuple[str, int]) -> int | None:
        """The epoch that is in the way; nothing is written then."""
        row = self._conn.execute("SELECT epoch FROM fence WHERE thread_id = ? AND epoch > ?", writer).fetchone()
        if row is None:
            self._conn.commit()
            return None
        self._conn.rollback()
        return int(row[0])


class CheckpointSaver(AsyncSqliteSaver):
    """LangGraph's saver, which explains what goes wrong and refuses a worker that lost the thread."""

    def __init__(self, connection: aiosqlite.Connection, path: Path, serde: StrictSerializer) -> None:
        super().__init__(connection, serde=serde)
        self.path = path
        self.running: set[asyncio.Future[Any]] = set()

    aget_tuple = _whole(AsyncSqliteSaver.aget_tuple)
    adelete_thread = _whole(AsyncSqliteSaver.adelete_thread)
    aget_delta_channel_history = _whole(AsyncSqliteSaver.aget_delta_channel_history)

    @_whole
    async def fence(self, thread_id: str, epoch: int) -> None:
        """From now on, refuse every write to the thread whose config names a lower epoch under `EPOCH_KEY`.

        The fence is never lowered, and holds for all processes. A config without the key is not compared. The write
        that is refused raises CheckpointFenced.
        """
        async with self.lock:
            await self.conn.execute(
                "INSERT INTO fence VALUES (?, ?) ON CONFLICT DO UPDATE SET epoch = max(epoch, excluded.epoch)",
                (thread_id, epoch),
            )
            await self.conn.commit()

    @_whole
    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As LangGraph's; raises CheckpointFenced where another worker took the thread over."""
        with _writing(config):
            return await super().aput(config, checkpoint, metadata, new_versions)

    @_whole
    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As LangGraph's; raises CheckpointFenced where another worker took the thread over."""
        with _writing(config):
            await super().aput_writes(config, writes, task_id, task_path)

    async def alist(self, *args: Any, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        """As LangGraph's."""
        with _explained(self.path):
            async for found in super().alist(*args, **kwargs):
                yield found
