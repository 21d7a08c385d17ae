"""Opens the checkpoints of a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from bursar.budget.stores.migrate import migrate
from bursar.budget.stores.store import Store
from bursar.memory.checkpoints import CheckpointSaver
from bursar.memory.explained import explained
from bursar.memory.strict import AllowedType, StrictSerializer

__all__ = ["MIGRATIONS", "VERSION_TABLE", "open_checkpoints", "opened_checkpoints"]

MIGRATIONS: Final = Path(__file__).parent / "migrations"
VERSION_TABLE: Final = "bursar_checkpoints_version"

LOCKED_S_MAX: Final = 30.0
"""How long a write waits while others write to the same file or thread."""

THREADS: Final = {"sqlite": 1, "postgresql": 8}
"""In how many threads the asynchronous methods wait: a file has one writer, a server has many."""


@asynccontextmanager
async def open_checkpoints(
    url: str, *, allowed_types: Iterable[AllowedType] = (), wait_s: float = 0
) -> AsyncIterator[CheckpointSaver]:
    """Open the checkpoints at a store's URL, made when they are missing; several processes may have them open.

    `url` is `sqlite:///FILE`, a file that holds nothing else, or `postgresql+psycopg://USER@HOST/DATABASE`, where they
    lie beside the ledger. The saver goes to `graph.compile(checkpointer=...)`, for `invoke` and `ainvoke` alike.
    `allowed_types` are those that a graph's state holds besides messages, LangGraph's types and the standard library's
    values; `saver.with_allowlist(...)` adds some for one graph. What was begun is finished before this returns.
    `wait_s` is how long the asynchronous methods wait for a store that is away, before they raise.
    Raises CheckpointsUnavailable, here and in every use, where the store cannot be used; ConfigError for another URL.
    """
    opened = opened_checkpoints(url, allowed_types=allowed_types, wait_s=wait_s)
    saver = await asyncio.to_thread(opened.__enter__)
    try:
        yield saver
    finally:
        await asyncio.to_thread(opened.__exit__, None, None, None)


@contextmanager
def opened_checkpoints(
    url: str, *, allowed_types: Iterable[AllowedType] = (), wait_s: float = 0
) -> Iterator[CheckpointSaver]:
    """The same for callers without an event loop."""
    serde = StrictSerializer(allowed_types)
    store = Store(url, locked_s_max=LOCKED_S_MAX)
    with ThreadPoolExecutor(THREADS[store.dialect], "checkpoints") as threads:
        try:
            with explained(store.name):
                migrate(store, scripts=MIGRATIONS, version_table=VERSION_TABLE)
            yield CheckpointSaver(store, threads, serde, wait_s=wait_s)
        finally:
            threads.shutdown()
            store.close()
