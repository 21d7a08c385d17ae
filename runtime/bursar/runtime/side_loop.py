"""An event loop in a thread of its own, for model calls made from synchronous code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from bursar.budget.errors import UsageError
from bursar.runtime.stop import NoRunError

__all__ = ["SideLoop"]

R = TypeVar("R")


class SideLoop:
    """Started with the first call. Works from any thread that runs no event loop."""

    def __init__(self) -> None:
        self.door: str | None = None
        """The address at which runs are called by HTTP with keys of their own, once somebody asked for one."""

        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lock = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """The coroutine's result; it is cancelled when the caller is interrupted meanwhile. Raises as `soon` does."""
        future = self.soon(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def soon(self, coroutine: Coroutine[Any, Any, R]) -> Future[R]:
        """Start the coroutine without waiting for it.

        Raises NoRunError once this was closed, UsageError in a thread that runs an event loop: whoever waits there
        stops that loop, and with it the calls whose end this one may have to await.
        """
        if _in_event_loop():
            coroutine.close()
            raise UsageError(
                "chat_model was called without await in a coroutine; nothing was sent",
                next_step="use `await model.ainvoke(...)` or `async for ... in model.astream(...)`, or a plain `def`",
            )
        return self.begin(coroutine)

    def begin(self, coroutine: Coroutine[Any, Any, R]) -> Future[R]:
        """`soon`, from any thread, for whoever never waits for it there."""
        with self._lock:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(coroutine, self._started())
        coroutine.close()
        raise NoRunError("a model was called after its runtime was closed; nothing was sent")

    async def cancel(self) -> None:
        """Cancel what still runs, and wait until it has ended."""
        # Not in a thread of the caller's loop: every one of them may be waiting for what is cancelled here.
        if self._loop is not None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop))

    async def close(self) -> None:
        """Cancel what still runs, and end the thread."""
        with self._lock:
            self._closed = True
        await self.cancel()
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="bursar-calls", daemon=True)
            self._thread.start()
        return self._loop


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
