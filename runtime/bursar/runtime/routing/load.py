"""How many calls are in flight to each model that has slots, and who waits for the next that becomes free."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress

__all__ = ["Slots"]


class _Ticket:
    """A call that waits for a slot of one of several models."""

    def __init__(self, models: Collection[str]) -> None:
        self.models = models
        self._loop = asyncio.get_running_loop()
        self.given: asyncio.Future[str] = self._loop.create_future()

    def give(self, model: str) -> bool:
        """Hand it a slot, from any thread; a loop that was closed in the meantime has nobody left to take it."""
        if self._loop.is_closed():
            return False
        self._loop.call_soon_threadsafe(self._take, model)
        return True

    def _take(self, model: str) -> None:
        if not self.given.done():
            self.given.set_result(model)


class Slots:
    """The slots of models in this process; may be used from several threads and event loops.

    A slot that becomes free is handed to whoever has waited longest for that model; nobody asks again and again.
    """

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}
        self._taken: Counter[str] = Counter()
        self._waiting: dict[_Ticket, str | None] = {}
        self._lock = threading.Lock()

    @property
    def in_flight(self) -> Mapping[str, int]:
        """How many slots of each model are taken."""
        return self._taken

    def take(self, model: str, limit: int) -> bool:
        """Take a slot of a model that has `limit` of them; False where none is free or somebody waits for one."""
        with self._lock:
            self._limits[model] = limit
            if self._taken[model] >= limit or any(
                given is None and model in ticket.models for ticket, given in self._waiting.items()
            ):
                return False
            self._taken[model] += 1
            return True

    async def wait(self, models: Mapping[str, int], timeout_s: float | None) -> str | None:
        """Wait for a slot of one of these models, by their limits, and take it; None where the time is over."""
        ticket = _Ticket(models)
        with self._lock:
            self._limits.update(models)
            self._waiting[ticket] = None
            for model in models:
                self._hand_on(model)
        taken = None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    taken = await ticket.given
            return taken
        finally:
            self._leave(ticket, taken)

    def free(self, model: str) -> None:
        """Give a slot back."""
        with self._lock:
            self._taken[model] -= 1
            self._hand_on(model)

    def _hand_on(self, model: str) -> None:
        """Give the free slots of a model to those who wait, first come, first served. The lock is held."""
        for ticket, given in self._waiting.items():
            if self._taken[model] >= self._limits[model]:
                return
            if given is None and model in ticket.models and ticket.give(model):
                self._taken[model] += 1
                self._waiting[ticket] = model

    def _leave(self, ticket: _Ticket, taken: str | None) -> None:
        """Go; a slot that was handed over too late to be taken goes to the next."""
        with self._lock:
            given = self._waiting.pop(ticket)
            if given is not None and taken is None:
                self._taken[given] -= 1
                self._hand_on(given)
