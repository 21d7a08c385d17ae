"""The ledger as one run under way has it: where the store is away, the run waits, or goes on within its lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from bursar.budget.admission import ModelQuote, ToolQuote, Wait
from bursar.budget.amounts import Amounts
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call, Outcome, Replay, Reservation, posting
from bursar.budget.usage import Usage
from bursar.runtime.lease import Lease
from bursar.runtime.ledger_thread import LedgerThread, Reserved

__all__ = ["RunLedger", "Tell"]

ANSWER_S = 0.5
"""How long the ledger may take before the run is told that it is away; a lease is used from then on."""

PAUSE_S_MAX = 1.0
"""The longest pause before the store is tried again."""

Tell = Callable[[Literal["away", "back"], str], None]

P = ParamSpec("P")
R = TypeVar("R")


class RunLedger:
    """Reserves and settles for one run. What a billed call came to is kept until the store takes it."""

    def __init__(self, thread: LedgerThread, *, wait_s: float, tell: Tell, lease: Lease | None = None) -> None:
        """`wait_s` is how long each operation waits for the store; then it raises LedgerUnavailable."""
        self._thread = thread
        self.gates = thread.ledger.gates
        self._wait_s = wait_s
        self._tell = tell
        self._lease = lease
        self._away = False

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
        """Reserve and dispatch a model call that is sent as soon as this returns."""
        lease = None if final or exclusive else self._lease  # a slice does not know what others have under way
        if lease is not None and self._away and (early := lease.reserve(call, quote, asked=False)) is not None:
            return early
        how: dict[str, Any] = {"final": final, "behind": behind, "exclusive": exclusive}
        reserve = partial(self._thread.reserve, call, quote, deadline_us=deadline_us, **how)
        made: Reserved = await self._patiently(
            reserve, partial(lease.reserve, call, quote, asked=True) if lease is not None else None
        )
        if lease is not None and isinstance(made, Reservation) and not _is_leased(made):
            lease.learn(made)
        if lease is not None and isinstance(made, Wait):
            return await self._beside_the_lease(lease, call, quote, made)
        return made

    async def settle(
        self,
        made: Reservation,
        *,
        usage: Usage | None,
        outcome: Outcome,
        reply: str | None = None,
        note: str | None = None,
        counted_input_tokens: int | None = None,
    ) -> Amounts:
        """Post what a call came to, and wait until it is written; with a lease the run goes on before it is.

        Raises LedgerUnavailable where the store stays away: it is written all the same, as soon as it can be.
        """
        said: dict[str, Any] = {"usage": usage, "outcome": outcome, "reply": reply, "note": note}
        if self._lease is not None and _is_leased(made):
            return self._lease.slice.settle(made, **said)
        if self._lease is not None:
            self._lease.learn(made, reply)
        settle = partial(self._thread.ledger.settle, made, **said, counted_input_tokens=counted_input_tokens)
        return await self._written(self._thread.at_once_or_kept(settle), posting(made, usage, outcome))

    async def shrink(self, made: Reservation, keep: Amounts) -> Reservation:
        """Hold only `keep` any longer; what was admitted out of a lease stays as it is."""
        if self._lease is not None and _is_leased(made):
            return made
        return await self._thread.do(self._thread.ledger.shrink, made, keep)

    async def check(self, made: Reservation) -> Refusal | None:
        """Why a call under way should be cut off, or None, as for what was admitted out of a lease."""
        if self._lease is not None and _is_leased(made):
            return None
        return await self._thread.do(self._thread.ledger.check, made)

    async def release(self, made: Reservation, *, note: str) -> None:
        """Give back what was held for a call that was surely not billed."""
        if self._lease is not None and _is_leased(made):
            self._lease.slice.release(made)
            return
        await self._written(self._thread.keep(self._thread.ledger.release, made, note=note), None)

    def break_off(self, made: Reservation, *, note: str, usage: Usage | None = None) -> None:
        """Charge a call as unknown without waiting: its caller goes away. `usage` is the most that it can have used."""
        if self._lease is not None and _is_leased(made):
            self._lease.slice.settle(made, usage=usage, outcome="unknown", note=note)
        else:
            self._thread.keep(self._thread.ledger.settle, made, usage=usage, outcome="unknown", note=note)

    async def charge(self, call: Call, quote: ToolQuote) -> Reserved:
        """Reserve and settle a tool call at once."""
        lease = self._lease
        if lease is not None and self._away and (early := _charged(lease, call, quote)) is not None:
            return early
        charge = partial(self._thread.at_once, self._thread.ledger.charge, call, quote)
        made: Reserved = await self._patiently(
            charge, partial(_charged, lease, call, quote) if lease is not None else None, overtake=False
        )
        if lease is not None and isinstance(made, Reservation) and not _is_leased(made):
            lease.learn(made, "")
        return made

    async def do(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """An operation that may be done twice: a commit that was cut off is done again."""
        return await self._patiently(partial(self._thread.do, operation, *args, **kwargs))

    async def record(self, operation: Callable[[], R], otherwise: R) -> R:
        """What must not be lost: done here and now, or as soon as the store takes it; then wait as `settle` does."""
        return await self._written(self._thread.at_once_or_kept(operation), otherwise)

    async def begin(self) -> None:
        """Take the lease, where the run has one."""
        if self._lease is not None:
            with suppress(LedgerUnavailable):  # it is taken later
                await self._thread.do(self._lease.take)

    async def keep(self) -> None:
        """Write what the lease settled, and renew it; raises LedgerUnavailable."""
        if self._lease is not None and await self._thread.do(self._lease.keep, ask=self._away):
            self._is_back()

    async def end(self) -> None:
        """Write what is left, and give back what was leased."""
        if self._lease is not None:
            await self._written(self._thread.keep(self._lease.end), None)

    def break_up(self) -> None:
        """`end`, without waiting."""
        if self._lease is not None:
            self._thread.keep(self._lease.end)

    async def _beside_the_lease(self, lease: Lease, call: Call, quote: ModelQuote, wait: Wait) -> Reserved:
        """What the run's own slice stands in the way of is admitted out of it; or the slice is given back."""
        early = lease.reserve(call, quote, asked=False)
        if early is None:
            await self.do(lease.give_back)
        return early or wait

    async def _patiently(
        self,
        operation: Callable[[], Awaitable[R]],
        instead: Callable[[], R | None] | None = None,
        *,
        overtake: bool = True,
    ) -> R:
        """Await it, again and again while the store is away.

        `instead` is what can be had without the store, or None. `overtake` says that it may be had while the operation
        is under way, because what comes of that late is undone.
        """
        try:
            return await self._once(operation, instead, overtake=overtake)
        except LedgerUnavailable:
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(LedgerUnavailable),
                wait=wait_random_exponential(multiplier=0.05, max=PAUSE_S_MAX),
                stop=stop_after_delay(self._wait_s),
                reraise=True,
            )
            return await retrying(self._once, operation, instead, overtake=overtake)

    async def _once(
        self, operation: Callable[[], Awaitable[R]], instead: Callable[[], R | None] | None, *, overtake: bool
    ) -> R:
        task = asyncio.ensure_future(operation())
        try:
            if instead is not None and overtake:
                await asyncio.wait([task], timeout=ANSWER_S)
                if not task.done():
                    self._is_away(f"the ledger gave no answer within {ANSWER_S:g} s")
                    if (found := instead()) is not None:
                        return found
            result = await task
        except asyncio.CancelledError:
            self._undo(task)
            raise
        except LedgerUnavailable as error:
            self._is_away(str(error))
            surely_not_done = overtake or not error.in_doubt
            if instead is None or not surely_not_done or (found := instead()) is None:
                raise
            return found
        finally:
            task.cancel()
        self._is_back()
        return result

    def _undo(self, task: asyncio.Future[Any]) -> None:
        """Give back what was reserved in the very moment in which its caller went away, and so is told to nobody."""
        if task.done() and not task.cancelled() and task.exception() is None and isinstance(task.result(), Reservation):
            made = task.result()
            if not _is_leased(made):
                self._thread.keep(self._thread.ledger.release, made, note="cancelled before it was sent")

    async def _written(self, done: R | Future[R], otherwise: R) -> R:
        """Wait until it is written; with a lease only for as long as the ledger may take."""
        if not isinstance(done, Future):
            return done
        waiting: asyncio.Future[R] = asyncio.wrap_future(done)
        waiting.add_done_callback(_heard)
        await asyncio.wait([waiting], timeout=ANSWER_S)
        if not waiting.done():
            self._is_away(f"the ledger gave no answer within {ANSWER_S:g} s")
            if self._lease is not None:
                return otherwise
            await asyncio.wait([waiting], timeout=self._wait_s)
        if waiting.done():
            return waiting.result()
        raise LedgerUnavailable(
            f"the ledger could not be used for {self._wait_s:g} s; what the call came to is written as soon as it can",
            next_step="see that the store can be used, then `bursar runs resume RUN`",
        )

    def _is_away(self, words: str) -> None:
        if not self._away:
            self._away = True
            self._tell("away", words)

    def _is_back(self) -> None:
        if self._away:
            self._away = False
            self._tell("back", "the ledger can be used again")


def _is_leased(made: Reservation) -> bool:
    return made.id < 0


def _heard(done: asyncio.Future[Any]) -> None:
    """Whoever does not wait for it any more need not be told how it ended: that is in the log."""
    if not done.cancelled():
        done.exception()


def _charged(lease: Lease, call: Call, quote: ToolQuote) -> Reservation | Replay | None:
    made = lease.reserve(call, quote, asked=True)
    if isinstance(made, Reservation):
        lease.slice.settle(made, usage=None, outcome="exact", reply="")
    return made
