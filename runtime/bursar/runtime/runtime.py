"""The runtime: opens the store, executes runs inside their limits, resumes and cancels them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

from langgraph.types import StreamMode

from bursar.agents.agent import Agent, OnLimit
from bursar.agents.load import load_agent
from bursar.budget.errors import ConflictError, PriceMissingError, UsageError
from bursar.budget.limits import Limits
from bursar.budget.scope import Scope
from bursar.budget.windows import utc_now
from bursar.memory import CheckpointSaver, open_checkpoints
from bursar.runtime.alerting import telling
from bursar.runtime.config import Config, load_config
from bursar.runtime.context import RunContext
from bursar.runtime.decisions import Decision, checked, grant
from bursar.runtime.engine import Engine, Listener, Resumption, ended_after_cancel
from bursar.runtime.events import Event
from bursar.runtime.execution import graph_config, question
from bursar.runtime.graph_context import written_context
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.catalog import Catalog
from bursar.runtime.models.health import Health
from bursar.runtime.opening import open_ledger
from bursar.runtime.paid_call import PaidCalls
from bursar.runtime.routing.needs import require, tiers_named
from bursar.runtime.routing.router import Router
from bursar.runtime.runs.records import Record, Records, new_run_id, run_path
from bursar.runtime.runs.run import Interrupt, Run
from bursar.runtime.sharing import sharing
from bursar.runtime.side_loop import SideLoop
from bursar.runtime.tenants import require_prices, require_team, tenant_of
from bursar.runtime.work import Source, Work, work_of

__all__ = ["Runtime", "open_ledger"]

BEGUN_MAX = 10_000
"""Of how many runs a process remembers the graph without being given it again."""


class Runtime:
    """Executes agents and graphs for tenants. Made by `Runtime.open`; one for a process is enough."""

    def __init__(
        self,
        config: Config,
        ledger: LedgerThread,
        records: Records,
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
        self._checkpointer = checkpointer
        self.health = Health(clock)
        self._router = Router(config, catalog, cooling=self.health.cooling)
        self.calls = calls = PaidCalls(ledger, catalog, self._router, self.health, clock=clock, rng=rng, sleep=sleep)
        holder = f"{socket.gethostname()}:{os.getpid()}:{rng.getrandbits(32):08x}"
        self._side_loop = SideLoop()
        self._engine = Engine(config, ledger, records, calls, self._side_loop, checkpointer, holder=holder, clock=clock)
        self._works: dict[str, Work] = {}
        self._begun: dict[str, Work] = {}

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
            async with open_checkpoints(read.checkpoints_url(env)) as checkpointer:
                catalog.warm_up()
                rng = rng or random.Random()  # noqa: S311 - it spreads retries, and keeps no secret
                runtime = cls(read, thread, records, catalog, checkpointer, clock=clock, rng=rng, sleep=sleep)
                await asyncio.to_thread(runtime._router.warm_up)
                own_rng = random.Random(rng.getrandbits(64))  # noqa: S311 - calls draw the same numbers without it
                async with telling(ledger.alerts, endpoints, rng=own_rng), sharing(runtime.health, thread):
                    alive = asyncio.create_task(runtime._engine.stay_alive())
                    try:
                        yield runtime
                    finally:
                        alive.cancel()
                        await runtime._engine.close()
                        await catalog.aclose()  # also connections of the side loop, which must still run for it
                        await runtime._side_loop.close()
        finally:
            await asyncio.to_thread(thread.close)

    async def run(
        self,
        source: Source,
        given: Any,
        *,
        tenant: str,
        team: str | None = None,
        user: str | None = None,
        limits: Limits | None = None,
        node_limits: Mapping[str, Limits] | None = None,
        on_limit: OnLimit | None = None,
        name: str | None = None,
        target: str | None = None,
        within: str | None = None,
        context: Any = None,
    ) -> Run:
        """Run an agent or a graph for a tenant, until it ends or waits.

        `given` is a text for an agent, the graph's input otherwise. `team` and `user` are whose budgets bind the run
        beside the tenant's. `limits` tighten an agent's own, and are a graph's. `node_limits` are what single nodes
        may use in this run, by their names; of these only what is written down counts. `target` is where another
        process can load the agent from to resume the run (`file.py:name`). `within` is the path of another run that
        pays for this one too, and whose limits hold over it. `context` is that of a graph which declares a
        `context_schema`: data, kept with the run.
        Raises UsageError for a tenant, tier or input that cannot be, PriceMissingError, LedgerUnavailable.
        """
        run_id, work, begun = await self._admit(
            source,
            given,
            tenant=tenant,
            team=team,
            user=user,
            limits=limits,
            node_limits=node_limits or {},
            on_limit=on_limit,
            name=name,
            target=target,
            within=within,
            context=context,
        )
        return await self._engine.begin(run_id, work, begun)

    async def stream(
        self,
        source: Source,
        given: Any,
        *,
        tenant: str,
        team: str | None = None,
        user: str | None = None,
        limits: Limits | None = None,
        node_limits: Mapping[str, Limits] | None = None,
        on_limit: OnLimit | None = None,
        name: str | None = None,
        target: str | None = None,
        within: str | None = None,
        context: Any = None,
        mode: StreamMode | Sequence[StreamMode] = (),
    ) -> AsyncGenerator[Event, None]:
        """`run`, telling what happens while it does; the last event is `ended` and carries the run.

        `mode` are modes of LangGraph's own stream, such as `["updates", "messages"]`; its parts are events `graph`,
        whose `data` has `type`, `ns` and `data` as LangGraph's `version="v2"` does.
        """
        run_id, work, begun = await self._admit(
            source,
            given,
            tenant=tenant,
            team=team,
            user=user,
            limits=limits,
            node_limits=node_limits or {},
            on_limit=on_limit,
            name=name,
            target=target,
            within=within,
            context=context,
        )
        heard = replace(work, modes=[mode] if isinstance(mode, str) else list(mode))
        async for event in _told(partial(self._engine.begin, run_id, heard, begun)):
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
        work, how = await self._prepare_resume(run_id, decisions or {}, by=by, source=source, tenant=tenant)
        return await self._engine.resume(run_id, work, how)

    async def stream_resume(
        self,
        run_id: str,
        decisions: Mapping[str, Decision] | None = None,
        *,
        by: str = "caller",
        source: Source | None = None,
        tenant: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        """`resume`, telling what happens while it does; the last event is `ended` and carries the run."""
        work, how = await self._prepare_resume(run_id, decisions or {}, by=by, source=source, tenant=tenant)
        async for event in _told(partial(self._engine.resume, run_id, work, how)):
            yield event

    async def cancel(self, run_id: str, *, by: str = "caller", tenant: str | None = None) -> Run:
        """Stop a run for good, in whichever process it is executed: nothing more is sent for it.

        Its status stays `running` until that process hears of it.
        """
        row = await self._ledger.do(self._records.row, run_id, tenant=tenant)
        if row["status"] in ("succeeded", "cancelled"):
            raise ConflictError(f"run {run_id} is {row['status']} already")
        await self._ledger.do(self.ledger.gates.cancel, run_path(row), author=by)
        await self._engine.cancel(run_id, by)
        return await self.get(run_id)

    async def get(self, run_id: str, *, tenant: str | None = None) -> Run:
        """How a run stands; raises NotFoundError, also for another tenant's run where `tenant` is given."""
        return await self._ledger.do(lambda: self._records.show(self._records.row(run_id, tenant=tenant)))

    async def grant(self, run_id: str, *, by: str, note: str = "", **amounts: Any) -> None:
        """Give a run more: `cost_usd`, `tokens`, `steps`, `tool_calls`, `seconds`. `resume` then goes on with it."""
        row = await self._ledger.do(self._records.row, run_id)
        await self._ledger.do(grant, self.ledger, run_path(row), run_path(row), amounts, by=by, note=note)

    def standing(self, scope: Scope, *, tiers: tuple[str, ...] | None) -> RunContext:
        """The context of calls that no execution makes, such as those by a gateway's key.

        Their run has to be open in the ledger, and is held by nobody; a limit refuses its calls one by one.
        """
        return self._engine.standing(scope, tiers=tiers)

    async def _admit(
        self,
        source: Source,
        given: Any,
        *,
        tenant: str,
        team: str | None,
        user: str | None,
        limits: Limits | None,
        node_limits: Mapping[str, Limits],
        on_limit: OnLimit | None,
        name: str | None,
        target: str | None,
        within: str | None,
        context: Any,
    ) -> tuple[str, Work, Any]:
        section = tenant_of(self.config, tenant)
        require_team(self.config, tenant, team)
        if on_limit not in (None, *get_args(OnLimit)):
            raise UsageError(f"on_limit {on_limit!r}: expected one of {', '.join(get_args(OnLimit))}")
        work = self._ready(source, name)
        bounds = work.bounded(limits)
        work.require_nodes(node_limits)
        if bounds.nanousd is not None:
            await self._require_prices(work, tenant)
        for agent in work.agents:
            require(agent, self._catalog, self.config)
        run_id = new_run_id(self._clock())
        written = None if context is None else written_context(work.graph, context)
        begun = work.begin(given)
        kind, blob = work.serde.dumps_typed(begun)
        values = {
            "id": run_id,
            "tenant": tenant,
            "team": team,
            "user": user,
            "agent": work.name,
            "target": target,
            "within": within,
            "context": written,
            "on_limit": on_limit or work.on_limit or section.on_limit or "finalize",
            "max_output_tokens": work.max_output_tokens,
            "input_type": kind,
            "input": blob,
        }
        scope = Scope(
            tenant=tenant,
            agents=(work.name,),
            run_id=run_id,
            organisation=section.organisation,
            team=team,
            user=user,
            within=within,
        )
        await self._ledger.do(self._accept, values, scope, bounds, node_limits)
        work = work.within(written)
        self._remember(run_id, work)
        return run_id, work, begun

    async def _require_prices(self, work: Work, tenant: str) -> None:
        """Raise PriceMissingError for a model without a price, unless the tenant's policy lets it be called."""
        try:
            for agent in work.agents:
                for tier in tiers_named(agent.tier, self.config):
                    self._catalog.require_prices(tier, "the run has a limit in USD")
        except PriceMissingError:
            policies = await self._ledger.do(self.ledger.policies.ls)
            if tenant not in policies or policies[tenant].unpriced == "refuse":
                raise

    def _accept(
        self, values: Mapping[str, Any], scope: Scope, limits: Limits, node_limits: Mapping[str, Limits]
    ) -> None:
        # The limits first: a run without them must not exist, while limits without a run bound nothing.
        self.ledger.gates.open(scope, limits, nodes=node_limits)
        with self._records.creating(values, "running"):
            pass

    async def _prepare_resume(
        self, run_id: str, decisions: Mapping[str, Decision], *, by: str, source: Source | None, tenant: str | None
    ) -> tuple[Work, Resumption]:
        row = await self._ledger.do(self._records.row, run_id, tenant=tenant)
        if row["status"] in ("succeeded", "cancelled"):
            raise ConflictError(f"run {run_id} has {row['status']}; start a new one")
        work = self._work(row, source)
        self._remember(run_id, work)
        kept = json.loads(row["decisions"])
        asked = await self._questions(row, work)
        open_ = [one for one in asked if one.id not in kept]
        new = checked(open_, decisions, list(work.agents))
        for one in open_:
            if one.reason == "budget" and not decisions:
                new[one.id] = {"type": "grant"}  # granted by other means; the limit itself will tell
        if row["interrupts"] != "[]" and asked == open_ and not new and row["status"] == "interrupted":
            raise UsageError(
                f"run {run_id} waits: {'; '.join(one.words for one in open_)}",
                next_step=f"resume it with a decision for {', '.join(one.id for one in open_)}",
            )
        return work, Resumption(changed_us=row["changed_us"], questions=open_, new=new, kept=kept, by=by)

    async def _questions(self, row: Record, work: Work) -> list[Interrupt]:
        """What a run asks, decided or not: what its graph does, and whether it is given more."""
        snapshot = await work.graph.aget_state(graph_config(row["id"], row["tenant"]))
        asked = [question(one) for one in snapshot.interrupts]
        return asked + [one for kept in json.loads(row["interrupts"]) if (one := Interrupt(**kept)).reason == "budget"]

    def _ready(self, source: Source, name: str | None) -> Work:
        """The source as a graph; compiled once for as long as it is the newest of its name."""
        key = name or getattr(source, "name", None) or ""
        known = self._works.get(key)
        if known is None or known.source is not source:
            known = self._works[key] = work_of(source, self._checkpointer, name=name)
        return known

    def _remember(self, run_id: str, work: Work) -> None:
        """Keep what a run executes, of the newest runs of this process."""
        self._begun[run_id] = work
        if len(self._begun) > BEGUN_MAX:
            del self._begun[next(iter(self._begun))]

    def _work(self, row: Record, source: Source | None) -> Work:
        """The work of a run: as given, as it was begun here, as its agent is known here, or as its target says."""
        if source is None and row["id"] in self._begun:
            return self._begun[row["id"]]
        named = self._works.get(row["agent"])
        if source is None and named is not None and named.is_declared:
            return named.within(row["context"])
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
        return work.within(row["context"])


async def _told(execute: Callable[[Listener], Awaitable[Run]]) -> AsyncGenerator[Event, None]:
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
        run = await task
        yield Event(kind="ended", run_id=run.id, agent=run.agent, text=run.stop_reason, run=run)
    finally:
        if not task.done():
            await ended_after_cancel(task)
