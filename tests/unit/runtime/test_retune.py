"""What a person changes of a run under way: its limits, and whether it goes on, from whichever process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.audit.changes import changes
from bursar.budget.audit.verify import verify
from bursar.budget.errors import ConflictError, NotFoundError, UsageError
from bursar.runtime import Runtime
from bursar.tools import tool
from tests.acceptance.support import QUESTION, one_call, opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider


@tool(effect="none")
async def search(query: str) -> str:
    """Search the archive."""
    return f"nothing about {query}"


def searcher(
    on_call: Callable[[int], None] = lambda _: None, calls: int = 3, **settings: Any
) -> tuple[Agent, Behaviour]:
    """An agent that searches so often before it answers; `on_call` is told before each answer of the model."""

    def script(body: dict[str, Any], before: int) -> Answer:
        on_call(before)
        done = sum(message["role"] == "assistant" for message in body["messages"])
        if done < 3 and body.get("tools"):
            return Answer(tool_calls=[("search", {"query": f"part {done}"})])
        return Answer(text="That is all.")

    return Agent(name="searcher", instructions="Search.", tools=[search], **settings), Behaviour(script=script)


@pytest.fixture
def config(tmp_path: Path, true_provider: TrueProvider) -> Path:
    return write_config(tmp_path, true_provider, tenants={"acme": {}, "globex": {}})


@pytest.fixture
async def runtime(config: Path) -> AsyncIterator[Runtime]:
    async with opened(config) as one:
        yield one


async def changed_after_a_call(
    runtime: Runtime, other: Runtime, provider: TrueProvider, change: dict[str, Any], **settings: Any
) -> Any:
    """A run that is changed by another runtime while its second call is under way."""
    loop, second, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def on_call(before: int) -> None:
        if before == 1:
            loop.call_soon_threadsafe(second.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(30)

    agent, provider.behaviour = searcher(on_call, **settings)
    running = asyncio.ensure_future(runtime.run(agent, QUESTION, tenant="acme"))
    await second.wait()
    (under_way,) = other._records.ls(status="running")
    await other.retune(under_way.id, by="dana", **change)
    go_on.set()
    return await running


async def test_more_while_it_runs(runtime: Runtime, config: Path, true_provider: TrueProvider) -> None:
    """A limit that is raised by another process holds for the next call."""
    async with Runtime.open(config) as other:
        change = {"limits": Limits(steps=9), "note": "worth it"}
        run = await changed_after_a_call(runtime, other, true_provider, change, limits=Limits(steps=2), on_limit="stop")
    assert (run.status, run.steps) == ("succeeded", 4)
    (entry,) = [one for one in changes(runtime.ledger.store) if one.kind == "retune"]
    assert (entry.author, entry.note) == ("dana", "worth it")
    history = [change.cause async for change in runtime.follow(run.id)]
    assert "steps 2 -> 9 (worth it)" in history
    assert not verify(runtime.ledger.store).findings


async def test_less_while_it_runs(runtime: Runtime, config: Path, true_provider: TrueProvider) -> None:
    """A limit below what is spent stops the run at its next call, and nothing more is sent."""
    async with Runtime.open(config) as other:
        run = await changed_after_a_call(
            runtime, other, true_provider, {"limits": Limits(steps=1)}, limits=Limits(steps=9), on_limit="stop"
        )
    assert (run.status, run.steps, true_provider.bill.calls) == ("stopped", 2, 2)
    assert "left of 1 step" in run.stop_reason


@pytest.mark.parametrize("on_limit", ["stop", "finalize", "escalate"])
async def test_a_pause(on_limit: Any, runtime: Runtime, config: Path, true_provider: TrueProvider) -> None:
    """A pause lets the call under way end and no other begin, gives no last answer, and is over when it is lifted."""
    async with Runtime.open(config) as other:
        run = await changed_after_a_call(runtime, other, true_provider, {"pause": True}, on_limit=on_limit)
        assert (run.status, run.stop_reason, run.steps) == ("interrupted", "paused by dana", 2)
        assert not run.interrupts
        await other.retune(run.id, by="kim", resume=True)
    async with asyncio.timeout(20):
        run = [change async for change in runtime.follow(run.id)][-1]
    assert run.status == "succeeded"
    assert true_provider.bill.calls == 4


async def test_a_run_that_waits_for_a_worker(runtime: Runtime, true_provider: TrueProvider) -> None:
    """A queued run that is paused is not taken up before it is let go on."""
    run = await runtime.submit(one_call(), {"question": QUESTION}, tenant="acme")
    paused = await runtime.retune(run.id, by="dana", pause=True)
    assert (paused.status, paused.stop_reason) == ("interrupted", "paused by dana")
    await runtime.work(once=True)
    assert (await runtime.get(run.id)).status == "interrupted"
    assert (await runtime.retune(run.id, by="dana", resume=True)).status == "queued"
    await runtime.work(once=True)
    assert ((await runtime.get(run.id)).status, true_provider.bill.calls) == ("succeeded", 1)


async def test_more_for_a_run_that_was_stopped(runtime: Runtime, true_provider: TrueProvider) -> None:
    """A run that its limit stopped goes on once it is raised; what it was granted is a part of the new limit."""
    agent, true_provider.behaviour = searcher(limits=Limits(steps=1), on_limit="stop")
    run = await runtime.run(agent, QUESTION, tenant="acme")
    await runtime.grant(run.id, by="kim", steps=1)
    await runtime.retune(run.id, by="dana", limits=Limits(steps=3))
    run = await runtime.resume(run.id)
    assert (run.status, run.steps) == ("stopped", 3)
    assert "left of 3 steps" in run.stop_reason
    await runtime.retune(run.id, by="dana", limits=Limits(steps=None))
    assert (await runtime.resume(run.id)).status == "succeeded"


async def test_more_time_while_it_runs(runtime: Runtime, config: Path, true_provider: TrueProvider) -> None:
    """Working time that is given while the run works counts; time that is taken ends it at its next call."""
    async with Runtime.open(config) as other:
        change = {"limits": Limits(seconds=600)}
        run = await changed_after_a_call(runtime, other, true_provider, change, limits=Limits(seconds=60))
        assert run.status == "succeeded"
        true_provider.reset()
        change = {"limits": Limits(seconds=0.001)}
        settings: Any = {"limits": Limits(seconds=60), "on_limit": "stop"}
        run = await changed_after_a_call(runtime, other, true_provider, change, **settings)
    assert (run.status, run.steps) == ("stopped", 2)
    assert "has used its time" in run.stop_reason


async def test_whose_run_it_is(runtime: Runtime, true_provider: TrueProvider) -> None:
    """Another tenant's run is as unknown as one that is not there."""
    run = await runtime.submit(one_call(), {"question": QUESTION}, tenant="acme")
    for run_id in (run.id, "run_0"):
        with pytest.raises(NotFoundError):
            await runtime.retune(run_id, by="eve", pause=True, tenant="globex")


async def test_what_cannot_be_changed(runtime: Runtime, true_provider: TrueProvider) -> None:
    """A run that has ended, nothing, and both at once."""
    run = await runtime.run(one_call(), {"question": QUESTION}, tenant="acme")
    with pytest.raises(ConflictError, match=r"has ended \(succeeded\)"):
        await runtime.retune(run.id, by="dana", pause=True)
    with pytest.raises(UsageError, match="nothing to change"):
        await runtime.retune(run.id, by="dana", limits=Limits())
    with pytest.raises(UsageError, match="pause and resume"):
        await runtime.retune(run.id, by="dana", pause=True, resume=True)
