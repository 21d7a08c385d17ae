"""Where calls wait for others in flight to settle: first come, first served, for each scope that is full.

Calls of other processes settle without a word to this one, so the first in line asks the ledger again and again. Nor
is it told of what settles in its own process: a process that heard of it at once would always come first, and one with
a long line would starve all others. As it is, every process asks at the same pace and has the same chance.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import Iterable

__all__ = ["WaitingRoom"]

PAUSE_S = 0.05
"""How long the first in line waits, on average, before it asks again."""


class _Ticket:
    """One waiting call; called from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.called = asyncio.Event()

    def call(self) -> None:
        """Say that it is the first in line. A loop that was closed in the meantime has nobody left to hear it."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.called.set)


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
            return next((path for path in paths if path in self._lines), None)

    def enter(self, path: str) -> _Ticket:
        """Stand at the end of a scope's line."""
        ticket = _Ticket()
        with self._lock:
            line = self._lines.setdefault(path, deque())
            line.append(ticket)
            if line[0] is ticket:
                ticket.called.set()
        return ticket

    async def turn(self, ticket: _Ticket) -> None:
        """Wait to become the first in line; who is it already waits until it is time to ask again."""
        if ticket.called.is_set():
            await asyncio.sleep(PAUSE_S * self._rng.uniform(0.5, 1.5))
        else:
            await ticket.called.wait()

    def leave(self, path: str, ticket: _Ticket) -> None:
        """Go, admitted or not; the next in line may ask."""
        with self._lock:
            line = self._lines[path]
            line.remove(ticket)
            if line:
                line[0].call()
            else:
                del self._lines[path]
