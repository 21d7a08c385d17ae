"""The ledger for coroutines: one thread of its own, so that a locked store never blocks the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from bursar.budget.admission import ModelQuote, ToolQuote, Wait
from bursar.budget.ledger import Ledger
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call, Replay, Reservation

__all__ = ["LedgerThread"]

P = ParamSpec("P")
R = TypeVar("R")


class LedgerThread:
    """Runs ledger operations one after the other, in the order in which they were handed in."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="bursar-ledger")

    async def do(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Await an operation. Once handed in it is carried out, also when the caller is cancelled."""
        return await asyncio.shield(asyncio.wrap_future(self.soon(operation, *args, **kwargs)))

    def soon(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Hand an operation in without waiting for it."""
        return self._executor.submit(operation, *args, **kwargs)

    async def reserve(
        self, call: Call, quote: ModelQuote | ToolQuote, *, deadline_us: int | None, final: bool
    ) -> Reservation | Replay | Wait | Refusal:
        """`Ledger.reserve`; where the caller is cancelled meanwhile, what was reserved is given back."""
        future = self.soon(self.ledger.reserve, call, quote, deadline_us=deadline_us, final=final)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            future.add_done_callback(self._give_back)
            raise

    def close(self) -> None:
        """Carry out what was handed in, then close the ledger."""
        self._executor.shutdown(wait=True)
        self.ledger.close()

    def _give_back(self, future: Future[Reservation | Replay | Wait | Refusal]) -> None:
        if future.exception() is None and isinstance(made := future.result(), Reservation):
            self.ledger.release(made, note="cancelled before it was sent")
