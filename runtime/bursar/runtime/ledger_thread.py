"""The ledger for coroutines: whatever may wait, for other writers or the disk, does so on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from bursar.budget.admission import ModelQuote, Wait
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.ledger import Ledger
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call, Replay, Reservation
from bursar.budget.stores.backend import StoreBusy

__all__ = ["LedgerThread", "Reserved"]

PAUSE_S = 0.1
"""How long to wait before what must not be lost is tried again."""

_log = logging.getLogger("bursar.runtime")

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
        self._closing = threading.Event()
        self._failures = 0
        self._tries = itertools.count()
        self._undispatched: deque[tuple[Reservation, Future[None]]] = deque()
        self._unwritten: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    async def do(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Await an operation. Once handed in it is carried out, also when the caller is cancelled."""
        return await asyncio.shield(asyncio.wrap_future(self.soon(operation, *args, **kwargs)))

    def soon(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Hand an operation in without waiting for it."""
        return self._executor.submit(self._tried, self._failures, partial(operation, *args, **kwargs))

    def keep(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Hand in what must not be lost, such as what a billed call came to: it is done again until the store takes it.

        It may be done twice where a commit was cut off. What waits is bounded by the calls that were in flight.
        """
        done: Future[R] = Future()
        done.set_running_or_notify_cancel()
        self._executor.submit(self._write, done, partial(operation, *args, **kwargs))
        return done

    def at_once_or_kept(self, operation: Callable[[], R]) -> R | Future[R]:
        """Its result, where nobody is in the way; else it is kept."""
        with contextlib.suppress(StoreBusy, LedgerUnavailable), self.ledger.store.at_once():
            return operation()
        return self.keep(operation)

    async def at_once(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`do` for one short writing transaction: here and now where nobody is in its way.

        That spares the way to the thread and back, which wakes two threads.
        """
        with contextlib.suppress(StoreBusy), self.ledger.store.at_once():
            return operation(*args, **kwargs)
        return await self.do(operation, *args, **kwargs)

    async def reserve(
        self,
        call: Call,
        quote: ModelQuote,
        *,
        deadline_us: int,
        final: bool,
        behind: str | None,
        exclusive: bool = False,
    ) -> Reserved:
        """Reserve and dispatch a model call that is sent as soon as this returns.

        Where this fails, or the caller is cancelled meanwhile, nothing was sent and what was reserved is given back.
        Raises CallInFlight for an `exclusive` call of which an attempt is under way.
        """
        deadline_us += next(self._tries) % 1_000  # by which this attempt is told from any other at the same call
        how: dict[str, Any] = {"final": final, "behind": behind, "exclusive": exclusive}
        reserve = partial(self.ledger.reserve, call, quote, deadline_us=deadline_us, **how)
        future = self._reserved(reserve)
        try:
            made = await asyncio.wrap_future(future) if isinstance(future, Future) else future
            if isinstance(made, Reservation):
                await self._dispatched(made)
        except BaseException:
            self.keep(self._give_back, call, deadline_us, future)
            raise
        return made

    def close(self) -> None:
        """Carry out what was handed in, then close the ledger; what the store does not take now is lost."""
        self._closing.set()
        self._executor.shutdown(wait=True)
        self.ledger.close()

    def _reserved(self, reserve: Callable[[], Reserved]) -> Reserved | Future[Reserved]:
        """The ledger's answer where nobody is in the way, else the future of it."""
        with contextlib.suppress(StoreBusy), self.ledger.store.at_once():
            return reserve()
        return self.soon(reserve)

    async def _dispatched(self, made: Reservation) -> None:
        """Dispatch it together with whatever else waits to be: they wait for the disk once."""
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # its caller may go, and the others wait for the same transaction
        self._undispatched.append((made, done))
        self._executor.submit(self._dispatch_all, self._failures)
        await asyncio.shield(asyncio.wrap_future(done))

    def _dispatch_all(self, failures_before: int) -> None:
        waiting = [self._undispatched.popleft() for _ in range(len(self._undispatched))]
        if not waiting:
            return  # they were dispatched with an earlier one
        try:
            refusals = self._tried(failures_before, partial(self.ledger.dispatch_all, [made for made, _ in waiting]))
        except BaseException as error:
            for _, done in waiting:
                done.set_exception(error)
            return
        for (_, done), refused in zip(waiting, refusals, strict=True):
            if refused is None:
                done.set_result(None)
            else:
                done.set_exception(refused)

    def _give_back(self, call: Call, deadline_us: int, made: object) -> None:
        # Runs on the thread, so after the reserve that the future stands for.
        if isinstance(made, Future):
            if made.cancelled():
                return
            error = made.exception()
            if isinstance(error, LedgerUnavailable) and error.in_doubt:
                self.ledger.forget(call, deadline_us=deadline_us)
            made = made.result() if error is None else None
        if isinstance(made, Reservation):
            self.ledger.release(made, note="cancelled before it was sent")

    def _tried(self, failures_before: int, operation: Callable[[], R]) -> R:
        """Do it, unless the store was found away while this waited for its turn: else everybody waits for everybody."""
        if self._failures > failures_before:
            raise LedgerUnavailable(
                f"the ledger {self.ledger.store.name} could not be used just now; nothing was reserved",
                next_step="do it again later",
            )
        try:
            return operation()
        except LedgerUnavailable:
            self._failures += 1
            raise

    def _write(self, done: Future[Any], operation: Callable[[], Any]) -> None:
        self._unwritten.append((done, operation))
        if len(self._unwritten) == 1:
            self._write_on()

    def _write_on(self) -> None:
        """Write until the store is away; then again, behind what others want."""
        while self._unwritten:
            done, operation = self._unwritten[0]
            try:
                done.set_result(operation())
            except LedgerUnavailable as error:
                self._failures += 1
                if self._closing.is_set():
                    self._give_up(error)
                    return
                self._unwritten.rotate(-1)  # it may be that only this one is in somebody's way
                if not self._closing.wait(PAUSE_S):
                    with contextlib.suppress(RuntimeError):  # closed this moment
                        self._executor.submit(self._write_on)
                        return
                continue  # once more, before it is lost
            except BaseException as error:
                done.set_exception(error)
            self._unwritten.popleft()

    def _give_up(self, error: LedgerUnavailable) -> None:
        _log.error("%s writes are lost, what they would settle stays charged in full: %s", len(self._unwritten), error)
        while self._unwritten:
            self._unwritten.popleft()[0].set_exception(error)
