"""Where calls wait for others in flight to settle: first come, first served, for each scope that is full."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import Iterable

__all__ = ["WaitingRoom"]

POLL_S = 0.05
"""How soon the first in line looks again by itself; calls of other processes settle without a word to this one."""

POLL_S_MAX = 0.5


class _Ticket:
    """One waiting call; woken from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self.pause_s = POLL_S

    def wake(self) -> None:
        """Look again now. A loop that was closed in the meantime has nobody left to wake."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    async def pause(self, jitter: float) -> None:
        """Wait to be woken, or for the time to look again."""
        try:
            async with asyncio.timeout(self.pause_s * jitter):
                await self._woken.wait()
        except TimeoutError:
            self.pause_s = min(self.pause_s * 1.5, POLL_S_MAX)
        self._woken.clear()


class WaitingRoom:
    """One line for each full scope; only the first of a line asks the ledger again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._lines: dict[str, deque[_Ticket]] = {}
        self._lock = threading.Lock()

    def line(self, paths: Iterable[str]) -> str | None:
        """The scope among these for which somebody waits already: a newcomer stands behind them."""
        if not self._lines:
            return None
        with self._lock:
            return next((path for path in paths if self._lines.get(path)), None)

    def enter(self, path: str) -> _Ticket:
        """Stand at the end of a scope's line."""
        ticket = _Ticket()
        with self._lock:
            self._lines.setdefault(path, deque()).append(ticket)
        return ticket

    async def turn(self, path: str, ticket: _Ticket) -> None:
        """Wait for a reason to ask the ledger again, being the first in line."""
        while True:
            await ticket.pause(self._rng.uniform(0.5, 1.5))
            with self._lock:
                if self._lines[path][0] is ticket:
                    return

    def leave(self, path: str, ticket: _Ticket) -> None:
        """Go, admitted or not; the next in line may look."""
        with self._lock:
            line = self._lines[path]
            line.remove(ticket)
            if not line:
                del self._lines[path]
        self.settled()

    def settled(self) -> None:
        """Something was given back: the first of each line looks again."""
        if self._lines:
            with self._lock:
                heads = [line[0] for line in self._lines.values() if line]
            for head in heads:
                head.wake()
