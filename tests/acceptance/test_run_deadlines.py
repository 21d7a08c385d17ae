"""A run ends by its deadline, whether it works or waits; and works no longer than it may, however long it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.runtime import Runtime
from bursar.runtime.runs.run import Run
from tests.acceptance.other_process import clerk
from tests.acceptance.support import opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider

helper = Agent(name="helper", instructions="Help.")


def signs(*_: Any) -> Answer:
    """Wants a line signed."""
    return Answer(tool_calls=[("sign", {"line": "once"})])


@pytest.fixture
def config(tmp_path: Path, true_provider: TrueProvider) -> Path:
    true_provider.behaviour = Behaviour(script=signs)
    return write_config(tmp_path, true_provider)


@pytest.fixture
async def runtime(config: Path) -> AsyncIterator[Runtime]:
    async with opened(config) as runtime:
        await asyncio.to_thread(runtime.calls.counter.count_text, "-")  # which takes a second the first time
        yield runtime


async def ended(runtime: Runtime, run_id: str) -> Run:
    """A run at its end."""
    async with asyncio.timeout(10):
        async for _ in runtime.follow(run_id):
            pass
    return await runtime.get(run_id)


@pytest.mark.parametrize("on_limit", ["finalize", "escalate"])
async def test_a_run_that_works_is_cut_off_at_its_deadline(
    runtime: Runtime, true_provider: TrueProvider, on_limit: Any
) -> None:
    """Within a quarter of a second; it sends nothing more, and nobody is asked for more time."""
    true_provider.behaviour = Behaviour(script=signs, latency_s=30)
    until = datetime.now(UTC) + timedelta(seconds=1.5)
    run = await runtime.run(helper, "Help me.", tenant="acme", deadline=until, on_limit=on_limit)
    late = run.changed_at - until
    assert timedelta(0) <= late < timedelta(seconds=0.25) * 4  # a busy machine is slow
    assert (run.status, list(run.interrupts)) == ("stopped", [])
    assert f"had to end by {until.isoformat(timespec='seconds')}" in run.stop_reason
    assert true_provider.bill.requests <= run.steps <= 1  # on a busy machine its time may be over before it sends


@pytest.mark.parametrize("waits", ["queued", "interrupted"])
async def test_a_run_that_waits_is_stopped_at_its_deadline(
    runtime: Runtime, waits: str, true_provider: TrueProvider
) -> None:
    """Within a second, and with what it asked."""
    begin = runtime.submit if waits == "queued" else runtime.run
    run = await begin(clerk, "Sign it.", tenant="acme", deadline=timedelta(seconds=1))
    assert run.status == waits
    stopped = await ended(runtime, run.id)
    late = stopped.changed_at - (run.created_at + timedelta(seconds=1))
    assert timedelta(0) <= late < timedelta(seconds=1)
    assert (stopped.status, list(stopped.interrupts)) == ("stopped", [])
    assert "had to end by" in stopped.stop_reason
    requests = true_provider.bill.requests
    await runtime.work(once=True)
    assert true_provider.bill.requests == requests


async def test_a_deadline_that_passed_while_no_process_was_there_counts_at_the_next_start(config: Path) -> None:
    async with opened(config) as runtime:
        run = await runtime.submit(clerk, "Sign it.", tenant="acme", deadline=timedelta(seconds=0.2))
    await asyncio.sleep(0.3)
    async with opened(config) as runtime:
        assert (await ended(runtime, run.id)).status == "stopped"


async def test_a_deadline_holds_in_the_ledger(runtime: Runtime) -> None:
    """So that no worker can spend for a run afterwards, whatever its own clock made of it."""
    run = await runtime.submit(clerk, "Sign it.", tenant="acme", deadline=timedelta(seconds=0.2))
    await ended(runtime, run.id)
    resumed = await runtime.resume(run.id, by="dana")
    assert (resumed.status, resumed.steps) == ("stopped", 0)
    assert "had to end by" in resumed.stop_reason


async def test_waiting_is_no_working_time(runtime: Runtime, true_provider: TrueProvider) -> None:
    """Neither for a worker nor for a person."""
    limits = Limits(seconds=2)
    run = await runtime.submit(clerk, "Sign it.", tenant="acme", limits=limits)
    await asyncio.sleep(1.1)
    await runtime.work(once=True)
    waiting = await runtime.get(run.id)
    assert waiting.status == "interrupted"
    await asyncio.sleep(1.1)
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="Very well."))
    done = await runtime.resume(run.id, {waiting.interrupts[0].id: {"type": "reject"}}, by="dana")
    assert (done.status, done.output) == ("succeeded", "Very well.")


async def test_working_time_that_is_used_up_says_so(runtime: Runtime, true_provider: TrueProvider) -> None:
    true_provider.behaviour = Behaviour(script=signs, latency_s=30)
    limits = Limits(seconds=1)
    run = await runtime.run(helper, "Help me.", tenant="acme", limits=limits, deadline=timedelta(hours=1))
    assert (run.status, run.steps) == ("stopped", 1)
    assert "has used its time of 1 s" in run.stop_reason
