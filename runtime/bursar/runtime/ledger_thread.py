"""The ledger for coroutines: whatever may wait, for other writers or the disk, does so on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from bursar.budget.admission import ModelQuote, Wait
from bursar.budget.ledger import Ledger
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call, Replay, Reservation
from bursar.budget.store import StoreBusy

__all__ = ["LedgerThread"]

P = ParamSpec("P")
R = TypeVar("R")

Reserved = Reservation | Replay | Wait | Refusal


class LedgerThread:
    """Runs ledger operations one after the other, in the order in which they were handed in.

    What is asked for `at_once` may come before what was handed in earlier.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="bursar-ledger")

    async def do(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Await an operation. Once handed in it is carried out, also when the caller is cancelled."""
        return await asyncio.shield(asyncio.wrap_future(self.soon(operation, *args, **kwargs)))

    def soon(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Hand an operation in without waiting for it."""
        return self._executor.submit(operation, *args, **kwargs)

    async def at_once(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`do` for one short writing transaction: here and now where nobody is in its way.

        That spares the way to the thread and back, which wakes two threads.
        """
        with contextlib.suppress(StoreBusy), self.ledger.store.at_once():
            return operation(*args, **kwargs)
        return await self.do(operation, *args, **kwargs)

    async def reserve(
        self, call: Call, quote: ModelQuote, *, deadline_us: int | None, final: bool, behind: str | None
    ) -> Reserved:
        """Reserve and dispatch a model call that is sent as soon as this returns.

        Where this fails, or the caller is cancelled meanwhile, nothing was sent and what was reserved is given back.
        """
        reserve = partial(self.ledger.reserve, call, quote, deadline_us=deadline_us, final=final, behind=behind)
        future = self._reserved(reserve)
        try:
            made = await asyncio.wrap_future(future) if isinstance(future, Future) else future
            if isinstance(made, Reservation):
                await self.do(self.ledger.dispatch, made)
        except BaseException:
            self.soon(self._give_back, future)
            raise
        return made

    def close(self) -> None:
        """Carry out what was handed in, then close the ledger."""
        self._executor.shutdown(wait=True)
        self.ledger.close()

    def _reserved(self, reserve: Callable[[], Reserved]) -> Reserved | Future[Reserved]:
        """The ledger's answer where nobody is in the way, else the future of it."""
        with contextlib.suppress(StoreBusy), self.ledger.store.at_once():
            return reserve()
        return self.soon(reserve)

    def _give_back(self, made: object) -> None:
        # Runs on the thread, so after the reserve that the future stands for.
        if isinstance(made, Future):
            made = None if made.cancelled() or made.exception() else made.result()
        if isinstance(made, Reservation):
            self.ledger.release(made, note="cancelled before it was sent")
