"""A worker: takes up runs that wait for one, and those whose holders are dead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial

from bursar.budget.errors import ConflictError
from bursar.runtime.contexts import Listener
from bursar.runtime.engine import Engine, whatever_happens
from bursar.runtime.events import Event
from bursar.runtime.known import Known
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.runs.records import Held, Record, Records
from bursar.runtime.watch import Watch

__all__ = ["Worker"]

POLL_S = 0.1
"""How often a worker that has a slot free looks for runs."""

WATCHES_A_LEASE = 10
"""How often in a lease's time it looks who else is alive."""

PAUSE_S = 1.0
"""How long a slot rests after a run that could not be executed just now, so that it is not tried without end."""

_log = logging.getLogger("bursar.runtime")


class Worker:
    """Executes runs that others began, so many at once."""

    def __init__(
        self,
        engine: Engine,
        ledger: LedgerThread,
        records: Records,
        known: Known,
        *,
        lease_s: float,
        concurrency: int,
        fits: Callable[[Record], bool],
        takes_over: bool,
        wanted: Callable[[], bool] = lambda: True,
        listener: Listener | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fits` says of a run, by its `id`, `agent` and `target`, whether it is for this worker, and `wanted` whether
        there can be any.

        Without `takes_over` it takes up what is queued only. Any worker ends the runs that were cancelled and whose
        holders died before they heard of it.
        """
        self._engine = engine
        self._ledger = ledger
        self._records = records
        self._known = known
        self._concurrency = concurrency
        self._fits = fits
        self._takes_over = takes_over
        self._wanted = wanted
        self._listener = listener
        self._monotonic = monotonic
        self._watch = Watch(lease_s, monotonic)
        self._watch_every_s = lease_s / WATCHES_A_LEASE
        self._watched_at = float("-inf")
        self._last_tenant = ""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loading = asyncio.Lock()
        self._woken = asyncio.Event()

    async def work(self, *, once: bool = False) -> None:
        """Take up runs until cancelled or, with `once`, until none waits that this worker can execute.

        What it executes is let go when it is cancelled: the next worker goes on with it at once.
        """
        try:
            while True:
                with whatever_happens("looking for runs"):
                    await self._look()
                    if once and not self._tasks:
                        return
                self._woken.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._woken.wait()
        finally:
            await self._let_go()

    def wake(self) -> None:
        """Look for runs now; for the event loop's thread only."""
        self._woken.set()

    async def _look(self) -> None:
        free = self._concurrency - len(self._tasks)
        if free > 0 and self._wanted():
            claimable = partial(self._records.claimable, self._is_free, free, after=self._last_tenant)
            for row in await self._ledger.do(claimable):
                self._last_tenant = row["tenant"]
                self._start(row)
        if self._monotonic() - self._watched_at >= self._watch_every_s:
            self._watched_at = self._monotonic()
            for one in self._watch.silent(await self._ledger.do(self._records.held, self._engine.holder)):
                await self._relieve(one)

    async def _relieve(self, dead: Held) -> None:
        """Do what the holder of a run has not lived to do."""
        if dead.is_cancelled:
            with contextlib.suppress(ConflictError):
                await self._engine.settle_cancelled(dead.run["id"], dead.sign)
        elif self._takes_over and self._is_free(dead.run) and len(self._tasks) < self._concurrency:
            self._start(dead.run, dead)

    def _is_free(self, row: Record) -> bool:
        return row["id"] not in self._tasks and self._fits(row)

    def _start(self, row: Record, dead: Held | None = None) -> None:
        run_id = row["id"]
        task = asyncio.create_task(self._execute(row, dead))
        self._tasks[run_id] = task

        def ended(_: asyncio.Task[None]) -> None:
            del self._tasks[run_id]
            self.wake()

        task.add_done_callback(ended)

    async def _execute(self, row: Record, dead: Held | None) -> None:
        try:
            whole = await self._ledger.do(self._records.row, row["id"])
            async with self._loading:
                work = await asyncio.to_thread(self._known.find, whole)
            if work is None:
                return
            run = await self._engine.take_up(row["id"], work, dead.sign if dead else None, self._listener)
        except ConflictError:  # somebody else has taken it up, or died before the row could say so
            await asyncio.sleep(POLL_S)
            return
        except Exception as error:
            _log.warning("run %s: %s", row["id"], error)
            await asyncio.sleep(PAUSE_S)
            return
        if self._listener is not None:
            self._listener(Event(kind="ended", run_id=run.id, agent=run.agent, text=run.stop_reason, run=run))
        if run.status == "queued" and run.error is not None:
            await asyncio.sleep(PAUSE_S)

    async def _let_go(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
