"""Held is not spent: a call that only calls in flight stand in the way of waits for them, in line, and is then made.

The tenant's limit has room for one worst case, so that a call in flight leaves too little for the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bursar.budget import Limits
from bursar.budget.admission import ModelQuote
from bursar.budget.amounts import Amounts
from bursar.budget.reservations import Call, Reservation
from bursar.budget.scope import Scope
from bursar.budget.windows import utc_now
from bursar.runtime import Runtime, chat_model
from bursar.runtime.events import Event, EventKind
from bursar.runtime.models.provider import QuotaExhausted
from bursar.runtime.runs.run import Run
from tests.acceptance.support import QUESTION, Texts, fan_out, one_call, opened, write_config
from tests.support.processes import WarmChild
from tests.support.provider import Answer, Behaviour, TrueProvider

BUDGET = {"tokens": 5_000}
"""A worst case is 4,096 tokens of output; an answer is 100."""

LEASE_S = 3
"""Short, but not so short that a busy machine makes the living look dead."""


def one_sync_call() -> Any:
    """A graph with a plain function for a node, which waits in a thread."""

    def ask(state: Texts) -> Texts:
        return {"texts": [str(chat_model("small").invoke(state["question"]).text)]}

    return fan_out(1, node=ask)


both_kinds_of_node = pytest.mark.parametrize(
    "graph", [pytest.param(one_call, id="async node"), pytest.param(one_sync_call, id="sync node")]
)


class Caller:
    """A run that makes one call, and what it has told so far."""

    def __init__(
        self,
        runtime: Runtime,
        graph: Callable[[], Any] = one_call,
        *,
        question: str = QUESTION,
        limits: Limits | None = None,
    ) -> None:
        self.events: list[Event] = []
        self._told = asyncio.Event()
        events = runtime.stream(graph(), {"question": question}, tenant="acme", name="asker", limits=limits)
        self.run = asyncio.create_task(self._heard(events))

    @property
    def run_id(self) -> str:
        return self.events[0].run_id

    async def until(self, kind: EventKind) -> None:
        """Return once an event of this kind was told."""
        async with asyncio.timeout(20):
            while not any(event.kind == kind for event in self.events):
                self._told.clear()
                await self._told.wait()

    async def _heard(self, events: AsyncIterator[Event]) -> Run:
        async for event in events:
            self.events.append(event)
            self._told.set()
        assert event.run is not None
        return event.run


@pytest.fixture
def config(true_provider: TrueProvider, tmp_path: Path) -> Path:
    tiers = {"small": ["house"], "acme": ["house"]}  # the latter for the spender
    budgets = {"acme": {"budgets": [BUDGET]}}
    return write_config(tmp_path, true_provider, tiers=tiers, tenants=budgets, lease_s=LEASE_S)


@asynccontextmanager
async def one_in_flight(
    config: Path, provider: TrueProvider, latency_s: float
) -> AsyncIterator[tuple[Runtime, Caller]]:
    """A runtime, and a call that holds all there is until it is answered after a time."""
    provider.behaviour = Behaviour(latency_s=latency_s)
    async with opened(config) as runtime:
        first = Caller(runtime)
        await asyncio.to_thread(provider.bill.wait_until, lambda bill: bill.requests == 1)
        yield runtime, first
        assert (await first.run).status == "succeeded"
        assert not _tenant(runtime).held


async def test_a_call_waits_for_what_is_held_says_so_and_is_answered(config: Path, true_provider: TrueProvider) -> None:
    async with one_in_flight(config, true_provider, 0.5) as (runtime, _):
        second = Caller(runtime)
        run = await second.run
    assert run.status == "succeeded"
    assert [event.kind for event in second.events] == ["started", "waiting", "call", "reply", "ended"]
    assert second.events[1].text == "acme"
    assert true_provider.bill.in_flight_max == 1


async def test_calls_are_made_in_the_order_in_which_they_came(config: Path, true_provider: TrueProvider) -> None:
    """Whether they wait on the event loop or in threads."""
    order = []

    def script(body: dict[str, Any], _: int) -> Answer:
        order.append(body["messages"][-1]["content"])
        return Answer()

    async with one_in_flight(config, true_provider, 1.0) as (runtime, _):
        true_provider.behaviour = Behaviour(script=script)
        callers = []
        for place in range(8):
            graph = (one_call, one_sync_call)[place % 2]
            callers.append(Caller(runtime, graph, question=f"{place}"))
            await callers[-1].until("waiting")
        await asyncio.gather(*(caller.run for caller in callers))
    assert order == [f"0. {place}" for place in range(8)]


async def test_a_reply_that_was_paid_for_before_is_replayed_without_standing_in_line(
    config: Path, true_provider: TrueProvider
) -> None:
    tries = []

    async def node(state: Texts) -> Texts:
        texts = [str((await chat_model("small").ainvoke(state["question"])).text)]
        tries.append(texts)
        if len(tries) == 1:
            raise ValueError("the node fails after its call")
        return {"texts": texts}

    async with opened(config) as runtime:
        graph = fan_out(1, node=node)
        failed = await runtime.run(graph, {"question": QUESTION}, tenant="acme")
        true_provider.behaviour = Behaviour(latency_s=1.5)
        first = Caller(runtime)
        await first.until("call")
        second = Caller(runtime)
        await second.until("waiting")
        run = await runtime.resume(failed.id, source=graph)
        assert not first.run.done()
        assert (failed.status, run.status) == ("failed", "succeeded")
        await asyncio.gather(first.run, second.run)
    assert true_provider.bill.requests == 3


async def test_a_process_with_a_long_line_does_not_starve_another(config: Path, true_provider: TrueProvider) -> None:
    """Two runtimes on one file keep two lines, as two processes do."""
    async with one_in_flight(config, true_provider, 1.5) as (runtime, _), opened(config) as other:
        true_provider.behaviour = Behaviour(latency_s=0.05)
        line = [Caller(runtime) for _ in range(20)]
        for caller in line:
            await caller.until("waiting")
        await Caller(other).run
        assert not all(caller.run.done() for caller in line)
        await asyncio.gather(*(caller.run for caller in line))


@both_kinds_of_node
async def test_a_waiting_run_that_is_cancelled_leaves_no_hold_and_does_not_block_the_line(
    config: Path, true_provider: TrueProvider, graph: Callable[[], Any]
) -> None:
    async with one_in_flight(config, true_provider, 1.0) as (runtime, first):
        second, third = Caller(runtime, graph), Caller(runtime)
        await second.until("waiting")
        await third.until("waiting")
        cancelled = await runtime.cancel(second.run_id, by="dana")
        assert not first.run.done()
        assert (cancelled.status, cancelled.spent) == ("cancelled", Amounts())
        assert (await third.run).status == "succeeded"
        assert runtime.ledger.reports.bill(second.run_id).attempts == []
    assert true_provider.bill.requests == 2


@both_kinds_of_node
async def test_a_run_whose_time_is_up_while_it_waits_is_stopped_for_that_reason(
    config: Path, true_provider: TrueProvider, graph: Callable[[], Any]
) -> None:
    async with one_in_flight(config, true_provider, 2.0) as (runtime, first):
        second, third = Caller(runtime, graph, limits=Limits(seconds=0.5)), Caller(runtime)
        await third.until("waiting")
        run = await second.run
        assert not first.run.done()
        assert (run.status, run.spent) == ("stopped", Amounts())
        assert "has used its time" in run.stop_reason
        refusal = runtime.ledger.gates.stopped(f"acme/asker/{run.id}")
        assert refusal is not None
        assert refusal.cause == "deadline"
        assert (await third.run).status == "succeeded"
    assert true_provider.bill.requests == 2


async def test_a_waiting_run_whose_caller_goes_away_can_be_resumed(config: Path, true_provider: TrueProvider) -> None:
    async with one_in_flight(config, true_provider, 1.0) as (runtime, _):
        second = Caller(runtime)
        await second.until("waiting")
        second.run.cancel()
        await asyncio.wait([second.run])
        assert (await runtime.get(second.run_id)).status == "interrupted"
        assert (await runtime.resume(second.run_id)).status == "succeeded"


async def test_a_call_that_leaves_the_line_lets_the_next_one_try_an_ill_model(
    config: Path, true_provider: TrueProvider
) -> None:
    async with one_in_flight(config, true_provider, 1.0) as (runtime, _):
        runtime.health.failed("house", QuotaExhausted("", retry_after_s=0), utc_now())
        second = Caller(runtime)
        await second.until("waiting")
        assert runtime.health.cooling("house") is not None  # others pass the model by while this call tries it
        second.run.cancel()
        await asyncio.wait([second.run])
        assert runtime.health.cooling("house") is None


async def test_what_waits_in_a_thread_when_its_run_has_failed_is_not_sent(
    config: Path, true_provider: TrueProvider
) -> None:
    second: Caller

    def ask(state: Texts) -> Texts:
        if state["question"].startswith("1."):
            asyncio.run_coroutine_threadsafe(second.until("waiting"), loop).result()
            raise ValueError("this branch fails while the other waits")
        return {"texts": [str(chat_model("small").invoke(state["question"]).text)]}

    loop = asyncio.get_running_loop()
    async with one_in_flight(config, true_provider, 1.0) as (runtime, first):
        second = Caller(runtime, lambda: fan_out(2, node=ask))
        assert (await second.run).status == "failed"
        assert not first.run.done()
    assert true_provider.bill.requests == 1


@both_kinds_of_node
async def test_a_runtime_that_is_closed_while_calls_wait_ends_at_once_and_leaves_no_hold(
    config: Path, true_provider: TrueProvider, graph: Callable[[], Any]
) -> None:
    """Also where calls of plain functions take up every thread that the event loop has."""
    true_provider.behaviour = Behaviour(latency_s=30)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4, "asyncio"))
    async with opened(config) as runtime:
        first = Caller(runtime)
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.requests == 1)
        waiting = [Caller(runtime, graph) for _ in range(20)]
        for caller in waiting[:4]:
            await caller.until("waiting")
        for caller in waiting:
            await caller.until("started")
    async with asyncio.timeout(5):
        runs = await asyncio.gather(*(caller.run for caller in (first, *waiting)))
    assert {run.status for run in runs} == {"interrupted"}
    async with opened(config) as runtime:
        assert not _tenant(runtime).held


@pytest.fixture
def one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes of one machine have one clock, so that nothing has to be kept for those that may be behind."""
    monkeypatch.setattr("bursar.runtime.engine.SKEW_S", 0.0)


@pytest.mark.usefixtures("one_clock")
async def test_what_a_dead_process_held_unsent_is_given_back_after_its_lease(
    config: Path, true_provider: TrueProvider
) -> None:
    async with opened(config) as runtime:
        scope = Scope(tenant="acme", agents=("asker",), run_id="run_dead")
        runtime.ledger.gates.open(scope, Limits.unlimited())
        epoch = runtime.ledger.gates.hold(scope.run_path, "a process that died", 0.5).epoch
        call = Call(id="call", scope=scope, epoch=epoch, node="node")
        quote = ModelQuote(model="house", price=None, input_tokens=10, max_output_tokens=4_096)
        assert isinstance(runtime.ledger.reserve(call, quote), Reservation)
        caller = Caller(runtime)
        await caller.until("waiting")
        assert (await caller.run).status == "succeeded"
        assert _tenant(runtime).posted.steps == true_provider.bill.calls == 1
        assert not _tenant(runtime).held


@pytest.mark.usefixtures("one_clock")
async def test_what_a_dead_process_held_for_a_call_that_was_sent_stays_charged_and_lets_others_go_on(
    config: Path, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(latency_s=60)
    async with opened(config) as runtime:
        with WarmChild("tests.acceptance.spender", config, "1", "acme") as child:
            child.wait_for("ready")
            (config.parent / "go").touch()
            await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.requests == 1)
            true_provider.behaviour = Behaviour()
            caller = Caller(runtime)
            await caller.until("waiting")
        run = await caller.run
        [unknown] = [line for line in runtime.ledger.reports.spend("outcome") if line.name == "unknown"]
        assert run.status == "succeeded"
        assert (unknown.posted.steps, unknown.posted.tokens > 4_096) == (1, True)
        assert _tenant(runtime).posted == unknown.posted + run.spent
        assert not _tenant(runtime).held


def _tenant(runtime: Runtime) -> Any:
    [line] = [line for line in runtime.ledger.budgets.ls("acme") if line.path == "acme"]
    return line
