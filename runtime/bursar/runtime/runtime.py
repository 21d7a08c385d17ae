"""The runtime: opens the store, executes runs inside their limits, resumes and cancels them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command

from bursar.agents.agent import Agent, OnLimit
from bursar.agents.load import load_agent
from bursar.budget.errors import ConflictError, LedgerError, UsageError
from bursar.budget.limits import Limits
from bursar.budget.scope import Scope
from bursar.budget.windows import utc_now
from bursar.memory.checkpoints import open_checkpoints
from bursar.runtime.config import Config, load_config
from bursar.runtime.context import RunContext
from bursar.runtime.decisions import Decision, checked, grant
from bursar.runtime.events import Event
from bursar.runtime.execution import Ending, execute, graph_config
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.catalog import Catalog
from bursar.runtime.opening import open_ledger
from bursar.runtime.paid_call import PaidCalls
from bursar.runtime.runs.records import Record, Records, interrupts_as_json, new_run_id
from bursar.runtime.runs.run import Interrupt, Run
from bursar.runtime.side_loop import SideLoop
from bursar.runtime.tenants import require_prices, tenant_of
from bursar.runtime.work import Source, Work, work_of

__all__ = ["Runtime", "open_ledger"]

REAP_S = 30.0
"""How often reservations whose holder fell silent are looked for."""

Listener = Callable[[Event], None]

_log = logging.getLogger("bursar.runtime")


class Runtime:
    """Executes agents and graphs for tenants. Made by `Runtime.open`; one for a process is enough."""

    def __init__(
        self,
        config: Config,
        ledger: LedgerThread,
        records: Records,
        catalog: Catalog,
        checkpointer: AsyncSqliteSaver,
        *,
        clock: Callable[[], datetime],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.config = config
        self.ledger = ledger.ledger
        self._ledger = ledger
        self._records = records
        self._catalog = catalog
        self._checkpointer = checkpointer
        self._clock = clock
        self._calls = PaidCalls(ledger, catalog, clock=clock, rng=rng, sleep=sleep)
        self._side_loop = SideLoop()
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{rng.getrandbits(32):08x}"
        self._works: dict[str, Work] = {}
        self._executing: dict[str, tuple[asyncio.Task[Ending], asyncio.Event]] = {}

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
        catalog = Catalog(read, env=env)
        require_prices(catalog, read)
        ledger, records = await asyncio.to_thread(open_ledger, read, clock=clock)
        thread = LedgerThread(ledger)
        try:
            async with open_checkpoints(read.database_path.with_suffix(".checkpoints.db")) as checkpointer:
                catalog.warm_up()
                rng = rng or random.Random()  # noqa: S311 - it spreads retries, and keeps no secret
                runtime = cls(read, thread, records, catalog, checkpointer, clock=clock, rng=rng, sleep=sleep)
                alive = asyncio.create_task(runtime._stay_alive())
                try:
                    yield runtime
                finally:
                    alive.cancel()
                    await runtime._close()
        finally:
            await asyncio.to_thread(thread.close)

    async def run(
        self,
        source: Source,
        given: Any,
        *,
        tenant: str,
        limits: Limits | None = None,
        on_limit: OnLimit | None = None,
        name: str | None = None,
        target: str | None = None,
    ) -> Run:
        """Run an agent or a graph for a tenant, until it ends or waits.

        `given` is a text for an agent, the graph's input otherwise. `limits` tighten the agent's own. `target` is
        where another process can load the agent from to resume the run (`file.py:name`).
        Raises UsageError for a tenant, tier or input that cannot be, PriceMissingError, LedgerUnavailable.
        """
        run_id, work = await self._admit(
            source, given, tenant=tenant, limits=limits, on_limit=on_limit, name=name, target=target
        )
        return await self._take_up(run_id, work)

    async def stream(
        self,
        source: Source,
        given: Any,
        *,
        tenant: str,
        limits: Limits | None = None,
        on_limit: OnLimit | None = None,
        name: str | None = None,
        target: str | None = None,
    ) -> AsyncIterator[Event]:
        """`run`, telling what happens while it does; the last event is `ended` and carries the run."""
        run_id, work = await self._admit(
            source, given, tenant=tenant, limits=limits, on_limit=on_limit, name=name, target=target
        )
        async for event in self._told(run_id, work):
            yield event

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
        work, answer = await self._prepare_resume(run_id, decisions or {}, by=by, source=source, tenant=tenant)
        return await self._take_up(run_id, work, answer)

    async def stream_resume(
        self,
        run_id: str,
        decisions: Mapping[str, Decision] | None = None,
        *,
        by: str = "caller",
        source: Source | None = None,
        tenant: str | None = None,
    ) -> AsyncIterator[Event]:
        """`resume`, telling what happens while it does; the last event is `ended` and carries the run."""
        work, answer = await self._prepare_resume(run_id, decisions or {}, by=by, source=source, tenant=tenant)
        async for event in self._told(run_id, work, answer):
            yield event

    async def cancel(self, run_id: str, *, by: str = "caller", tenant: str | None = None) -> Run:
        """Stop a run for good, in whichever process it is executed: nothing more is sent for it."""
        row = await self._ledger.do(self._records.row, run_id, tenant=tenant)
        if row["status"] in ("succeeded", "cancelled"):
            raise ConflictError(f"run {run_id} has {row['status']} already")
        await self._ledger.do(self.ledger.gates.cancel, _path(row), author=by)
        if run_id in self._executing:
            task, ended = self._executing[run_id]
            task.cancel()
            await ended.wait()
        elif row["status"] != "running":
            await self._ledger.do(self._records.change, run_id, "cancelled", cause=f"cancelled by {by}", author=by)
        return await self.get(run_id)

    async def get(self, run_id: str, *, tenant: str | None = None) -> Run:
        """How a run stands; raises NotFoundError, also for another tenant's run where `tenant` is given."""
        return await self._ledger.do(lambda: self._records.show(self._records.row(run_id, tenant=tenant)))

    async def grant(self, run_id: str, *, by: str, note: str = "", **amounts: Any) -> None:
        """Give a run more: `cost_usd`, `tokens`, `steps`, `tool_calls`, `seconds`. `resume` then goes on with it."""
        row = await self._ledger.do(self._records.row, run_id)
        await self._ledger.do(grant, self.ledger, _path(row), _path(row), amounts, by=by, note=note)

    async def _admit(
        self,
        source: Source,
        given: Any,
        *,
        tenant: str,
        limits: Limits | None,
        on_limit: OnLimit | None,
        name: str | None,
        target: str | None,
    ) -> tuple[str, Work]:
        section = tenant_of(self.config, tenant)
        work = self._ready(source, name)
        bounds = work.limits.tightened(limits) if limits is not None else work.limits
        if bounds.nanousd is not None:
            for agent in work.agents:
                self._catalog.require_prices(agent.tier, "the run has a limit in USD")
        for agent in work.agents:
            self._catalog.tier(agent.tier)  # an unknown tier or a missing key shows before anything is spent
        run_id = new_run_id(self._clock())
        kind, blob = work.serde.dumps_typed(work.begin(given))
        values = {
            "id": run_id,
            "tenant": tenant,
            "agent": work.name,
            "target": target,
            "on_limit": on_limit or work.on_limit or section.on_limit or "finalize",
            "max_output_tokens": work.max_output_tokens,
            "input_type": kind,
            "input": blob,
        }
        scope = Scope(tenant=tenant, agents=(work.name,), run_id=run_id)
        await self._ledger.do(self._records.create, values)
        await self._ledger.do(self.ledger.gates.open, scope, bounds)
        return run_id, work

    async def _prepare_resume(
        self, run_id: str, decisions: Mapping[str, Decision], *, by: str, source: Source | None, tenant: str | None
    ) -> tuple[Work, Any]:
        row = await self._ledger.do(self._records.row, run_id, tenant=tenant)
        if row["status"] in ("succeeded", "cancelled"):
            raise ConflictError(f"run {run_id} has {row['status']}; start a new one")
        work = self._work(row, source)
        pending = [Interrupt(**one) for one in json.loads(row["interrupts"])]
        taken = checked(pending, decisions, list(work.agents))
        for one in pending:
            if one.reason == "budget" and not decisions:
                taken[one.id] = {"type": "grant"}  # granted by other means; the limit itself will tell
        if pending and not taken and row["status"] == "interrupted":
            raise UsageError(
                f"run {run_id} waits: {row['stop_reason']}",
                next_step=f"resume it with a decision for {', '.join(one.id for one in pending)}",
            )
        for one in pending:
            given = taken.get(one.id)
            if one.reason == "budget" and isinstance(given, Mapping) and given["type"] == "grant":
                path = one.payload["refusal"]["path"]
                await self._ledger.do(grant, self.ledger, path, _path(row), given, by=by, note=f"for {run_id}")
        kept = {**json.loads(row["decisions"]), **taken}
        await self._ledger.do(
            self._records.change,
            run_id,
            "running",
            cause="resumed",
            author=by,
            expected=[row["status"]],
            decisions=json.dumps(kept, default=str),
        )
        return work, Command(resume=kept) if kept else None

    def _ready(self, source: Source, name: str | None) -> Work:
        """The source as a graph; compiled once for as long as it is the newest of its name."""
        name = name or getattr(source, "name", None)
        known = self._works.get(name or "")
        if known is not None and known.source is source:
            return known
        work = work_of(source, self._checkpointer, name=name)
        self._works[work.name] = work
        return work

    def _work(self, row: Record, source: Source | None) -> Work:
        """The work of a run: as given, as known to this process by its name, or as loaded from the run's target."""
        if source is None and row["agent"] in self._works:
            return self._works[row["agent"]]
        if source is None and row["target"]:
            source = load_agent(row["target"])
        if source is None:
            raise UsageError(
                f"this process does not know agent {row['agent']} of run {row['id']}",
                next_step=f"runtime.resume({row['id']!r}, ..., source=the_agent)",
            )
        work = self._ready(source, None if isinstance(source, Agent) else row["agent"])
        if work.name != row["agent"]:
            raise UsageError(f"run {row['id']} was made by agent {row['agent']}, not by {work.name}")
        return work

    async def _told(self, run_id: str, work: Work, answer: Any = None) -> AsyncIterator[Event]:
        events: asyncio.Queue[Event] = asyncio.Queue()
        task = asyncio.create_task(self._take_up(run_id, work, answer, _safe(events)))
        try:
            while not task.done() or not events.empty():
                getter = asyncio.ensure_future(events.get())
                await asyncio.wait([getter, task], return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    yield getter.result()
                else:
                    getter.cancel()
            ended = await task
            yield Event(kind="ended", run_id=run_id, agent=work.name, text=ended.stop_reason, run=ended)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _take_up(self, run_id: str, work: Work, answer: Any = None, listener: Listener | None = None) -> Run:
        """Execute a run under a hold on it, and write down how it ended."""
        row = await self._ledger.do(self._records.row, run_id)
        path = _path(row)
        hold = await self._ledger.do(self.ledger.gates.hold, path, self._holder, self.config.lease_s)
        await self._ledger.do(self.ledger.reap, run_id)
        context = RunContext(
            scope=Scope(tenant=row["tenant"], agents=(row["agent"],), run_id=run_id),
            epoch=hold.epoch,
            thread_id=run_id,
            on_limit=row["on_limit"],
            max_output_tokens=row["max_output_tokens"],
            tiers=_tiers(self.config, row["tenant"]),
            deadline=hold.deadline,
            seconds=hold.seconds,
            now=self._clock,
            calls=self._calls,
            side_loop=self._side_loop,
            emit=listener,
            on_delta=_teller(run_id, listener) if listener else None,
        )
        context.tell("started")
        given = answer if answer is not None else await self._input(row, work)
        task = asyncio.create_task(execute(work, context, self._ledger, given))
        ended = asyncio.Event()
        self._executing[run_id] = (task, ended)
        try:
            ending = await self._ending(task, path)
            await self._ledger.do(self._end, row, hold.epoch, ending)
        except asyncio.CancelledError:
            gone = Ending(status="interrupted", cause="its caller went away; resume it to go on")
            self._ledger.soon(self._end, row, hold.epoch, gone)
            raise
        finally:
            del self._executing[run_id]
            ended.set()
        changed = await self._ledger.do(self._records.row, run_id)
        return await self._ledger.do(self._records.show, changed, ending.value, ending.error)

    async def _ending(self, task: asyncio.Task[Ending], path: str) -> Ending:
        """How the execution ended; where the caller is cancelled, the execution is too, and the run can be resumed."""
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if not task.cancelled():
            return task.result()
        if await self._ledger.do(self.ledger.gates.is_cancelled, path):
            return Ending(status="cancelled", cause="somebody cancelled it")
        return Ending(status="interrupted", cause="the runtime was closed; resume it to go on")

    def _end(self, row: Record, epoch: int, ending: Ending) -> None:
        """Write down how the execution ended, unless another worker has the run now."""
        if not self.ledger.gates.let_go(_path(row), epoch):
            return
        self._records.change(
            row["id"],
            ending.status,
            cause=ending.cause,
            output=ending.output,
            interrupts=interrupts_as_json(ending.interrupts),
            decisions="{}",
        )

    async def _input(self, row: Record, work: Work) -> Any:
        """What the graph is begun with; None where it has a checkpoint to go on from."""
        snapshot = await work.graph.aget_state(graph_config(row["id"]))
        if not snapshot.created_at:
            return work.serde.loads_typed((row["input_type"], row["input"]))
        if not snapshot.next:
            raise ConflictError(f"run {row['id']} has given its last answer; start a new one")
        return None

    async def _stay_alive(self) -> None:
        """Renew the hold on this process's runs, hear of cancellations, give up what others left open."""
        reaped = self._clock()
        while True:
            await asyncio.sleep(self.config.lease_s / 3)
            try:
                if self._executing:
                    await self._ledger.do(self.ledger.gates.renew, self._holder, self.config.lease_s)
                    for run_id in await self._ledger.do(self.ledger.gates.cancelled, self._holder):
                        if run_id in self._executing:
                            self._executing[run_id][0].cancel()
                if (self._clock() - reaped).total_seconds() >= REAP_S:
                    reaped = self._clock()
                    await self._ledger.do(self.ledger.reap)
            except LedgerError as error:
                _log.warning("%s", error)

    async def _close(self) -> None:
        tasks = [task for task, _ in self._executing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(ended.wait() for _, ended in self._executing.values()))
        await asyncio.to_thread(self._side_loop.cancel)
        await self._catalog.aclose()  # also what belongs to the side loop, which must still run for it
        await asyncio.to_thread(self._side_loop.close)


def _path(row: Record) -> str:
    return f"{row['tenant']}/{row['agent']}/{row['id']}"


def _tiers(config: Config, tenant: str) -> tuple[str, ...] | None:
    allowed = tenant_of(config, tenant).tiers
    return None if allowed is None else tuple(allowed)


def _safe(events: asyncio.Queue[Event]) -> Listener:
    """Put events into a queue of this loop from whichever thread tells them."""
    loop = asyncio.get_running_loop()

    def tell(event: Event) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    return tell


def _teller(run_id: str, listener: Listener) -> Callable[[Mapping[str, Any]], None]:
    def tell(delta: Mapping[str, Any]) -> None:
        if delta.get("content"):
            listener(Event(kind="token", run_id=run_id, text=str(delta["content"])))

    return tell
