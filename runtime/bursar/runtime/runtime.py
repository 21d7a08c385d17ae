"""The runtime: opens the store, executes runs inside their limits, resumes and cancels them."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from langgraph.types import StreamMode

from bursar.agents.agent import OnLimit
from bursar.budget.errors import ConflictError
from bursar.budget.limits import Limits
from bursar.budget.scope import Scope
from bursar.budget.windows import to_us, utc_now
from bursar.memory import CheckpointSaver, open_checkpoints
from bursar.runtime.accepting import Accepting, NewRun, RunOptions, RunTerms
from bursar.runtime.alerting import telling
from bursar.runtime.changed_graph import require_fit
from bursar.runtime.config import Config, load_config
from bursar.runtime.context import RunContext
from bursar.runtime.contexts import Listener
from bursar.runtime.engine import Engine, ended_after_cancel, require_going_on, whatever_happens
from bursar.runtime.escalations.door import EscalationsDoor
from bursar.runtime.escalations.escalations import Escalations
from bursar.runtime.escalations.granting import grant
from bursar.runtime.escalations.records import Decision
from bursar.runtime.events import Event
from bursar.runtime.execution import graph_config
from bursar.runtime.fork import Checkpoint, Fork, checkpoint_of, chosen, forked
from bursar.runtime.known import Known
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.catalog import Catalog
from bursar.runtime.models.health import Health
from bursar.runtime.opening import open_ledger
from bursar.runtime.paid_call import PaidCalls
from bursar.runtime.retention import prune_due
from bursar.runtime.retune import Retuning, RunChange
from bursar.runtime.routing.router import Router
from bursar.runtime.runs.records import Record, Records, run_path
from bursar.runtime.runs.run import ENDED, WAITING, Change, Run
from bursar.runtime.sharing import sharing
from bursar.runtime.side_loop import SideLoop
from bursar.runtime.sweeping import sweeping
from bursar.runtime.tenants import require_prices
from bursar.runtime.work import Source, Work
from bursar.runtime.worker import Worker

__all__ = ["Runtime", "open_ledger"]

WAITING_MAX = 10_000
"""How many runs that wait a process remembers, to go on with them once somebody has decided."""

AT_ONCE_MAX = 64
"""So many of them it goes on with at once."""

CLOCK_PAUSE_S = 1.0
"""How long the clock of escalations rests after a failure."""

FOLLOW_S = 0.2
"""How often it is looked whether a run that is followed has changed."""


class Runtime:
    """Executes agents and graphs for tenants. Made by `Runtime.open`; one for a process is enough."""

    def __init__(
        self,
        config: Config,
        ledger: LedgerThread,
        records: Records,
        escalations: Escalations,
        catalog: Catalog,
        checkpointer: CheckpointSaver,
        *,
        clock: Callable[[], datetime],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.config = config
        self.ledger = ledger.ledger
        self.ledger_thread = self._ledger = ledger
        self.catalog = self._catalog = catalog
        self.clock = self._clock = clock
        self._records = records
        self._retuning = Retuning(ledger.ledger, records, clock)
        self._checkpointer = checkpointer
        self.health = Health(clock)
        self._router = Router(config, catalog, cooling=self.health.cooling)
        self.calls = calls = PaidCalls(ledger, catalog, self._router, self.health, clock=clock, rng=rng, sleep=sleep)
        holder = f"{socket.gethostname()}:{os.getpid()}:{rng.getrandbits(32):08x}"
        self._side_loop = SideLoop()
        self.holder = holder
        self._engine = Engine(
            *(config, ledger, records, escalations, calls, self._side_loop, checkpointer), holder=holder, clock=clock
        )
        self.escalations = EscalationsDoor(escalations, records, ledger, self.wake, clock)
        self._accepting = Accepting(config, ledger, catalog, clock=clock)
        self._known = Known(checkpointer)
        self._waiting: dict[str, None] = {}
        self._workers: set[Worker] = {
            self._worker(AT_ONCE_MAX, self._waits_here, takes_over=False, wanted=lambda: bool(self._waiting))
        }

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: Config | str | Path = "bursar.yaml",
        *,
        clock: Callable[[], datetime] = utc_now,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        env: Mapping[str, str] = os.environ,
    ) -> AsyncIterator[Runtime]:
        """Open the store that the configuration names, and make it ready.

        Raises ConfigError for the configuration, PriceMissingError for a model without a price under a budget in
        money, LedgerUnavailable or LedgerVersionError for the store.
        """
        read = config if isinstance(config, Config) else load_config(config)
        endpoints = read.endpoints(env)
        ledger, records = await asyncio.to_thread(open_ledger, read, clock=clock, env=env)
        thread = LedgerThread(ledger)
        try:
            catalog = Catalog(read, env=env, prices=ledger.prices)
            require_prices(catalog, read, await thread.do(ledger.policies.ls))
            async with open_checkpoints(read.checkpoints_url(env), wait_s=read.ledger.wait_s) as checkpointer:
                catalog.warm_up()
                rng = rng or random.Random()  # noqa: S311 - it spreads retries, and keeps no secret
                room = Escalations(ledger, read, clock)
                runtime = cls(read, thread, records, room, catalog, checkpointer, clock=clock, rng=rng, sleep=sleep)
                await asyncio.to_thread(runtime._router.warm_up)
                own_rng = random.Random(rng.getrandbits(64))  # noqa: S311 - calls draw the same numbers without it
                async with telling(ledger.alerts, endpoints, rng=own_rng), sharing(runtime.health, thread):
                    (worker,) = runtime._workers
                    tasks = [
                        asyncio.create_task(one)
                        for one in (
                            *(runtime._engine.stay_alive(), runtime._engine.hear(), worker.work()),
                            runtime._keep_time(),
                        )
                    ]
                    try:
                        yield runtime
                    finally:
                        for task in tasks:
                            await ended_after_cancel(task)
                        await runtime._engine.close()
                        await catalog.aclose()  # also connections of the side loop, which must still run for it
                        await runtime._side_loop.close()
        finally:
            await asyncio.to_thread(thread.close)

    async def run(self, source: Source, given: Any, **options: Unpack[RunOptions]) -> Run:
        """Run an agent or a graph for a tenant, until it ends or waits.

        `given` is a text for an agent, the graph's input otherwise. The options are the fields of `RunTerms`, of which
        `tenant` is needed.
        Raises UsageError for a tenant, tier or input that cannot be, PriceMissingError, LedgerUnavailable.
        """
        return self._noted(await self._engine.begin(await self._new(source, given, options)))

    async def stream(
        self,
        source: Source,
        given: Any,
        *,
        mode: StreamMode | Sequence[StreamMode] = (),
        **options: Unpack[RunOptions],
    ) -> AsyncGenerator[Event, None]:
        """`run`, telling what happens while it does; the last event is `ended` and carries the run.

        `mode` are modes of LangGraph's own stream, such as `["updates", "messages"]`; its parts are events `graph`,
        whose `data` has `type`, `ns` and `data` as LangGraph's `version="v2"` does.
        """
        new = await self._new(source, given, options)
        async for event in self._told(partial(self._engine.begin, replace(new, work=new.work.heard(mode)))):
            yield event

    async def submit(self, source: Source, given: Any, **options: Unpack[RunOptions]) -> Run:
        """Accept a run and return it, `queued`: whichever worker can executes it, at once or later.

        It is on disk when this returns. A worker of another process finds the agent or graph by `target`, or was given
        it. Raises what `run` does.
        """
        run = await self._engine.submit(await self._new(source, given, options))
        self.wake()
        return run

    async def work(
        self,
        *,
        concurrency: int = 16,
        sources: Iterable[Source] = (),
        once: bool = False,
        listener: Callable[[Event], None] | None = None,
    ) -> None:
        """Be a worker: execute runs that are queued, and those whose process died; until cancelled.

        It takes up the runs that it knows what to execute for: by their target, one of the `sources` of the same name,
        or because they were begun here. Tenants get their turns in fair order. With `once` it returns when none waits.
        `listener` is told what happens in all of them.
        """
        self._known.give(sources)
        worker = self._worker(concurrency, self._known.may_have, takes_over=True, listener=listener)
        self._workers.add(worker)
        try:
            async with sweeping(lambda: prune_due(self.ledger.store, self._checkpointer, self.config, self._clock())):
                await worker.work(once=once)
        finally:
            self._workers.discard(worker)

    def wake(self) -> None:
        """Let the workers of this process look for runs now, such as one that was decided on this moment."""
        for worker in self._workers:
            worker.wake()

    async def follow(self, run_id: str, *, after: int = 0, tenant: str | None = None) -> AsyncGenerator[Change, None]:
        """The changes of a run's state, in whichever process they happen: those that were, then each as it comes.

        It ends with the run; `after` is the number of the last change that is known already.
        Raises NotFoundError, also for another tenant's run where `tenant` is given.
        """
        while True:
            row = await self._ledger.do(self._records.row, run_id, tenant=tenant)  # before what led to it
            for change in await self._ledger.do(self._records.events, run_id, after):
                after = change.number
                yield change
            if row["status"] in ENDED:
                return
            await asyncio.sleep(FOLLOW_S)

    async def resume(
        self,
        run_id: str,
        decisions: Mapping[str, Decision] | None = None,
        *,
        by: str = "caller",
        source: Source | None = None,
        tenant: str | None = None,
    ) -> Run:
        """Go on with a run that waits, was stopped and granted more, failed, or whose process died.

        `decisions` are by interrupt id; those not given stay open. Settled calls are not paid again.
        Raises ConflictError for a run that is executed elsewhere or has ended, or an interrupt that is not open;
        UsageError for a decision that does not fit, or where nobody knows the run's agent (give `source`).
        """
        work = await self._work(run_id, source, tenant)
        return self._noted(await self._engine.resume(run_id, work, decisions or {}, by))

    async def stream_resume(
        self,
        run_id: str,
        decisions: Mapping[str, Decision] | None = None,
        *,
        by: str = "caller",
        source: Source | None = None,
        tenant: str | None = None,
        mode: StreamMode | Sequence[StreamMode] = (),
    ) -> AsyncGenerator[Event, None]:
        """`resume`, telling what happens while it does, as `stream` does; the last event carries the run."""
        work = (await self._work(run_id, source, tenant)).heard(mode)
        async for event in self._told(partial(self._engine.resume, run_id, work, decisions or {}, by)):
            yield event

    async def cancel(self, run_id: str, *, by: str = "caller", tenant: str | None = None) -> Run:
        """Stop a run for good, in whichever process it is executed: nothing more is sent for it.

        One that waits ends at once. One that another process executes stays `running` until that hears of it, within a
        second, or another has found it dead. Raises ConflictError for one that has succeeded or was cancelled.
        """
        row = await self._ledger.do(self._records.row, run_id, tenant=tenant)
        if row["status"] in ("succeeded", "cancelled"):
            raise ConflictError(f"run {run_id} is {row['status']} already")
        await self._engine.cancel(run_id, by)
        return await self.get(run_id)

    async def get(self, run_id: str, *, tenant: str | None = None) -> Run:
        """How a run stands; raises NotFoundError, also for another tenant's run where `tenant` is given."""
        return await self._ledger.do(lambda: self._records.show(self._records.row(run_id, tenant=tenant)))

    async def retune(
        self,
        run_id: str,
        *,
        by: str,
        note: str = "",
        limits: Limits | None = None,
        pause: bool = False,
        resume: bool = False,
        tenant: str | None = None,
    ) -> Run:
        """Change a run that goes on, in whichever process: its limits, and whether it goes on.

        The `limits` that are written down take the place of its own and of what it was granted. They hold for its next
        call; below what is spent they stop it there. `pause` refuses its calls from the next one on: its execution ends
        as `interrupted`, and `resume` lets it be taken up again. Raises NotFoundError, UsageError for nothing to
        change, and ConflictError for a run that has ended for good.
        """
        change = RunChange(limits=limits, pause=pause, resume=resume)
        await self._ledger.do(self._retuning.retune, run_id, change, by=by, note=note, tenant=tenant)
        self.wake()
        return await self.get(run_id)

    async def fork(
        self,
        run_id: str,
        *,
        by: str,
        checkpoint: str | None = None,
        tier: str | None = None,
        limits: Limits | None = None,
        on_limit: OnLimit | None = None,
        source: Source | None = None,
        tenant: str | None = None,
    ) -> Run:
        """A new run, `queued`, that goes on from a checkpoint of another, the newest where none is named.

        It has a budget of its own: the other's limits, but for those that are written down in `limits`, under the same
        tenant's. With `tier`, that answers all of its calls. What was done before the fork is not paid or done again;
        what the other run waits on, the fork asks anew. Raises NotFoundError, UsageError for a tier that the tenant
        may not use or where nobody knows the run's agent (give `source`), ConflictError for a run without checkpoints.
        """
        row = await self._ledger.do(self._records.row, run_id, tenant=tenant)
        work = self._known.of(row, source)
        found = await self.checkpoints(run_id)
        at = chosen(found, run_id, checkpoint)
        is_newest = at is found[0]
        how = Fork(checkpoint=checkpoint, tier=tier, limits=limits, on_limit=on_limit)
        new = await self._ledger.do(
            forked, row, work, how, self.config, self.ledger, is_newest=is_newest, now=self.clock()
        )
        made = new.scope.run_id
        saver = self._checkpointer.for_tenant(row["tenant"])
        await saver.acopy_thread(run_id, made, until=None if is_newest else checkpoint)
        self._known.remember(made, work)
        await self._engine.submit(new)
        cause = f"forked from {run_id} at checkpoint {at.id}"
        await self._ledger.do(self._records.note, made, cause, author=by)
        self.wake()
        return await self.get(made)

    async def checkpoints(self, run_id: str, *, tenant: str | None = None) -> list[Checkpoint]:
        """The states that a run was in, the newest first: a fork can go on from each. Raises NotFoundError."""
        row = await self._ledger.do(self._records.row, run_id, tenant=tenant)
        config = graph_config(run_id, row["tenant"])
        config["configurable"]["checkpoint_ns"] = ""
        return [checkpoint_of(one) async for one in self._checkpointer.alist(config)]

    async def grant(self, run_id: str, *, by: str, note: str = "", **amounts: Any) -> None:
        """Give a run more: `cost_usd`, `tokens`, `steps`, `tool_calls`, `seconds`. `resume` then goes on with it."""
        row = await self._ledger.do(self._records.row, run_id)
        path, now = run_path(row), to_us(self._clock())

        def give() -> None:
            with self.ledger.store.write(durable=True) as connection:
                grant(connection, path, path, amounts, by=by, note=note, now=now)

        await self._ledger.do(give)

    def standing(self, scope: Scope, *, tiers: tuple[str, ...] | None) -> RunContext:
        """The context of calls that no execution makes, such as those by a gateway's key.

        Their run has to be open in the ledger, and is held by nobody; a limit refuses its calls one by one.
        """
        return self._engine.contexts.standing(scope, tiers=tiers)

    async def _new(self, source: Source, given: Any, options: RunOptions) -> NewRun:
        terms = RunTerms(**options)
        work = self._known.ready(source, terms.name)
        new = await self._accepting.new_run(work, given, terms)
        self._known.remember(new.scope.run_id, new.work)
        return new

    def _worker(
        self,
        concurrency: int,
        fits: Callable[[Record], bool],
        *,
        takes_over: bool,
        wanted: Callable[[], bool] = lambda: True,
        listener: Listener | None = None,
    ) -> Worker:
        return Worker(
            self._engine,
            self._ledger,
            self._records,
            self._known,
            lease_s=self.config.lease_s,
            concurrency=concurrency,
            fits=fits,
            takes_over=takes_over,
            wanted=wanted,
            listener=listener,
        )

    def _noted(self, run: Run) -> Run:
        """Remember a run that waits: it is gone on with here as soon as it can be."""
        if run.status in WAITING:
            self._waiting[run.id] = None
            while len(self._waiting) > WAITING_MAX:
                del self._waiting[next(iter(self._waiting))]
        return run

    def _waits_here(self, row: Record) -> bool:
        return row["id"] in self._waiting

    async def _told(self, execute: Callable[[Listener], Awaitable[Run]]) -> AsyncGenerator[Event, None]:
        """The events of an execution; it is broken off where nobody listens any more."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()

        def tell(event: Event | None) -> None:
            # Calls made in synchronous code tell from other threads.
            loop.call_soon_threadsafe(events.put_nowait, event)

        task = asyncio.ensure_future(execute(tell))
        task.add_done_callback(lambda _: tell(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            run = self._noted(await task)
            yield Event(kind="ended", run_id=run.id, agent=run.agent, text=run.stop_reason, run=run)
        finally:
            if not task.done():
                await ended_after_cancel(task)

    async def _work(self, run_id: str, source: Source | None, tenant: str | None) -> Work:
        """What a run executes, which is not at its end."""
        row = await self._ledger.do(self._records.row, run_id, tenant=tenant)
        require_going_on(row)
        work = self._known.of(row, source)
        self._known.remember(run_id, work)
        await require_fit(work, graph_config(run_id, row["tenant"]))
        return work

    async def _keep_time(self) -> None:
        """Do what is due with escalations, on time; until cancelled."""
        while True:
            with whatever_happens("the clock of escalations"):
                await self.escalations.keep_time()
                continue
            await asyncio.sleep(CLOCK_PAUSE_S)
