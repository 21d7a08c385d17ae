"""A run that is cancelled sends nothing more, settles what it had sent, and ends: in any state and any process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.errors import ConflictError
from bursar.runtime import Runtime
from bursar.runtime.runs.run import Run
from tests.acceptance.other_process import clerk
from tests.acceptance.support import fan_out, opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider

LATENCY_S = 30

LIMITS = Limits(cost_usd=100)

helper = Agent(name="helper", instructions="Help.")


@pytest.fixture
def config(tmp_path: Path, true_provider: TrueProvider) -> Path:
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="Done."), latency_s=LATENCY_S)
    return write_config(tmp_path, true_provider, lease_s=60)


@pytest.fixture
async def runtime(config: Path) -> AsyncIterator[Runtime]:
    async with opened(config) as runtime:
        yield runtime


async def under_way(provider: TrueProvider, calls: int) -> None:
    """Until so many calls are on their way."""
    await asyncio.to_thread(provider.bill.wait_until, lambda bill: bill.in_flight == calls)


def assert_settled(runtime: Runtime, run: Run, *, calls: int) -> None:
    """It has ended, holds nothing, and each call that was sent is charged."""
    bill = runtime.ledger.reports.bill(run.id)
    assert (run.status, run.steps) == ("cancelled", calls)
    assert not bill.held
    assert [attempt.state for attempt in bill.attempts] == ["settled"] * calls


async def test_the_process_that_executes_a_run_breaks_its_calls_off_at_once(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Also many at once; the provider sees no request afterwards."""
    run = asyncio.create_task(runtime.run(fan_out(8), {"question": "Which?"}, tenant="acme", limits=LIMITS))
    await under_way(true_provider, 8)
    (known,) = await runtime.ledger_thread.do(runtime._records.ls)
    began = time.monotonic()
    assert_settled(runtime, await runtime.cancel(known.id, by="dana"), calls=8)
    assert time.monotonic() - began < 2
    assert (await run).status == "cancelled"
    assert true_provider.bill.requests == 8


async def test_another_process_hears_of_it_within_a_second(
    config: Path, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """However long its lease is."""
    async with Runtime.open(config) as other:
        run = asyncio.create_task(other.run(helper, "Help me.", tenant="acme"))
        await under_way(true_provider, 1)
        (known,) = await runtime.ledger_thread.do(runtime._records.ls)
        assert (await runtime.cancel(known.id, by="dana")).status == "running"
        async with asyncio.timeout(2):  # a second, and another for a busy machine
            assert_settled(runtime, await run, calls=1)
    assert true_provider.bill.requests == 1


@pytest.mark.parametrize("how", ["queued", "interrupted", "stopped", "failed"])
async def test_a_run_that_nobody_executes_ends_at_once(runtime: Runtime, how: str, true_provider: TrueProvider) -> None:
    """With what it asked: nobody can decide on that any more."""
    run = await at_rest(runtime, how, true_provider)
    assert run.status == how
    requests = true_provider.bill.requests
    ended = await runtime.cancel(run.id, by="dana")
    assert (ended.status, ended.stop_reason, list(ended.interrupts)) == ("cancelled", "cancelled by dana", [])
    with pytest.raises(ConflictError, match="cancelled"):
        await runtime.resume(run.id, {one.id: {"type": "approve"} for one in run.interrupts})
    await runtime.work(once=True)
    assert true_provider.bill.requests == requests


async def at_rest(runtime: Runtime, how: str, provider: TrueProvider) -> Run:
    """A run in this state."""
    if how == "queued":
        return await runtime.submit(helper, "Help me.", tenant="acme")

    def script(*_: Any) -> Answer:
        if how == "failed":
            raise AssertionError("nothing is asked")
        return Answer(tool_calls=[("sign", {"line": "once"})])

    provider.behaviour = Behaviour(script=script)
    if how == "interrupted":
        return await runtime.run(clerk, "Sign it.", tenant="acme")
    if how == "stopped":
        return await runtime.run(clerk, "Sign it.", tenant="acme", limits=Limits(steps=0), on_limit="stop")
    return await runtime.run(failing(), {"question": "Which?"}, tenant="acme")


def failing() -> Any:
    """A graph whose node fails."""

    async def fail(_: Any) -> Any:
        raise ValueError("it fails")

    return fan_out(1, node=fail)


async def test_of_a_cancellation_and_a_worker_that_takes_the_run_up_one_wins(
    config: Path, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Either it was never begun, or it is broken off; it ends as cancelled."""
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="Done."), latency_s=0.5)
    runs = [await runtime.submit(helper, "Help me.", tenant="acme") for _ in range(10)]
    async with Runtime.open(config) as other:
        task = asyncio.create_task(other.work(sources=[helper]))
        for run in runs:
            await runtime.cancel(run.id, by="dana")
        async with asyncio.timeout(10):
            for run in runs:
                async for change in runtime.follow(run.id):
                    status = change.status
                assert status == "cancelled"
        task.cancel()
        await asyncio.wait([task])
    assert [runtime.ledger.reports.bill(run.id).held.steps for run in runs] == [0] * 10
