"""Prunes checkpoints while a worker works: what the tenants' retention says is due, every hour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from bursar.runtime.engine import whatever_happens

__all__ = ["sweeping"]

SWEEP_S = 3600.0


@asynccontextmanager
async def sweeping(prune: Callable[[], object]) -> AsyncIterator[None]:
    """Within it, `prune` is called now and every hour, in a thread; a call under way is waited for at the end."""
    over = asyncio.Event()
    sweeper = asyncio.create_task(_sweep(prune, over))
    try:
        yield
    finally:
        over.set()
        await sweeper


async def _sweep(prune: Callable[[], object], over: asyncio.Event) -> None:
    while True:
        with whatever_happens("pruning checkpoints"):
            await asyncio.to_thread(prune)
        with suppress(TimeoutError):
            async with asyncio.timeout(SWEEP_S):
                await over.wait()
                return
