"""An answer while it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bursar.runtime.context import RunContext
from bursar.runtime.events import Event
from bursar.runtime.service.answered import Answered, Sent

__all__ = ["Streamed"]


class Streamed:
    """An answer while it comes: what each piece adds, in the shape of OpenAI's `delta`, then the whole as Answered.

    Iterating raises what `Calls.answer` raises. Closing it before its end cancels the call, which stays charged.
    """

    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.sent: Sent | None = None
        """Known from the first piece on."""

        self._parts: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()
        self._task: asyncio.Task[Answered] | None = None
        self._is_over = False

    def __aiter__(self) -> Streamed:
        """Itself."""
        return self

    async def __anext__(self) -> Mapping[str, Any] | Answered:
        """The next piece; the last is the whole answer."""
        if self._is_over or self._task is None:
            raise StopAsyncIteration
        if (part := await self._parts.get()) is not None:
            return part
        self._is_over = True
        answered = self._task.result()
        self.sent = answered.sent
        return answered

    async def aclose(self) -> None:
        """Cancel the call where it is under way, and wait for its end."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, Exception):  # whatever it was, nobody listens any more
                await self._task

    def add(self, delta: Mapping[str, Any]) -> None:
        """Take the next piece."""
        self._parts.put_nowait(delta)

    def begin(self, task: asyncio.Task[Answered]) -> None:
        """Take the answer's end from this task."""
        self._task = task
        task.add_done_callback(lambda _: self._parts.put_nowait(None))

    def listening_to(self, run: RunContext) -> RunContext:
        """The run, telling this who answers it."""

        def tell(event: Event) -> None:
            if event.kind == "call":
                self.sent = Sent(model=event.model, tier=event.tier, reason=event.text)
            if run.emit is not None:
                run.emit(event)

        return replace(run, emit=tell)
