"""Workers as processes: they share the runs, hand them over when they are stopped, and wait for nobody else."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bursar.budget import Limits
from bursar.runtime import Runtime
from bursar.runtime.runs.run import Run
from tests.acceptance.other_process import DIARY, TARGET, clerk
from tests.acceptance.support import opened, write_config
from tests.support.processes import Child
from tests.support.provider import Answer, Behaviour, TrueProvider

TENANTS = ("acme", "rival", "third")


@pytest.fixture
def config(tmp_path: Path, true_provider: TrueProvider, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DIARY, str(tmp_path / "diary.txt"))
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="Done."))
    return write_config(tmp_path, true_provider, tenants={name: {} for name in TENANTS}, lease_s=60)


@pytest.fixture
async def runtime(config: Path) -> AsyncIterator[Runtime]:
    async with opened(config) as runtime:
        yield runtime


def worker(config: Path, *options: str) -> Child:
    """`bursar worker` as a process of its own."""
    return Child("-m", "bursar.runtime.cli", "worker", "--config", config, "--json", *options)


async def ended(runtime: Runtime, run_id: str) -> Run:
    """A run at its end."""
    async with asyncio.timeout(60):
        async for _ in runtime.follow(run_id):
            pass
    return await runtime.get(run_id)


async def test_of_several_workers_each_run_is_executed_by_one(
    runtime: Runtime, config: Path, true_provider: TrueProvider
) -> None:
    """And all of them have a share."""
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="Done."), latency_s=0.05)
    runs = [await runtime.submit(clerk, "Go.", tenant=TENANTS[number % 3], target=TARGET) for number in range(24)]
    workers = [worker(config, "--concurrency", "3") for _ in range(3)]
    try:
        assert {(await ended(runtime, run.id)).status for run in runs} == {"succeeded"}
    finally:
        for one in workers:
            one.kill()
    assert true_provider.bill.requests == 24
    holders = [change.by for run in runs async for change in runtime.follow(run.id) if change.status == "running"]
    assert len(holders) == 24
    assert len(set(holders)) > 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_worker_that_is_stopped_hands_its_runs_over_at_once(
    runtime: Runtime, config: Path, number: signal.Signals, true_provider: TrueProvider
) -> None:
    """A deploy: nobody waits for its lease, which is a minute here."""
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="Done."), latency_s=60)
    run = await runtime.submit(clerk, "Go.", tenant="acme", target=TARGET, limits=Limits(cost_usd=10))
    with worker(config) as first:
        first.wait_for("started", timeout_s=60)
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 1)
        first.send_signal(number)
        assert first.wait(timeout_s=20) == 0, first.stderr
    waiting = await runtime.get(run.id)
    assert (waiting.status, waiting.stop_reason) == ("queued", "its worker was shut down")
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="Done."))
    began = time.monotonic()
    await runtime.work(once=True)
    assert time.monotonic() - began < 10
    done = await runtime.get(run.id)
    assert (done.status, done.steps) == ("succeeded", 2)  # what was cut off may have been billed
    assert true_provider.bill.requests == 2


async def test_a_worker_that_is_to_work_once_ends_when_nothing_waits(runtime: Runtime, config: Path) -> None:
    """It says on a line each what it began and what came of it."""
    run = await runtime.submit(clerk, "Go.", tenant="acme", target=TARGET)
    with worker(config, "--once") as child:
        told = [json.loads(child.line(60)) for _ in range(2)]
        assert child.wait(timeout_s=30) == 0
    assert [(one["kind"], one["run_id"]) for one in told] == [("started", run.id), ("ended", run.id)]
    assert told[1]["run"]["status"] == "succeeded"


async def test_a_run_that_waits_for_a_person_goes_on_where_a_worker_is(
    runtime: Runtime, config: Path, true_provider: TrueProvider
) -> None:
    """Whoever decides needs neither its agent nor a slot."""
    answers = [Answer(tool_calls=[("sign", {"line": "once"})]), Answer(text="Signed.")]
    true_provider.behaviour = Behaviour(script=lambda _, calls: answers[calls])
    run = await runtime.submit(clerk, "Go.", tenant="acme", target=TARGET)
    with worker(config):
        async with asyncio.timeout(60):
            async for change in runtime.follow(run.id):
                if change.status == "interrupted":
                    (asked,) = await runtime.escalations.ls(run_id=run.id)
                    await runtime.escalations.decide(asked.id, {"type": "approve"}, by="dana")
    done = await runtime.get(run.id)
    assert (done.status, done.output) == ("succeeded", "Signed.")
    assert true_provider.bill.requests == 2


async def test_the_gateway_can_be_a_worker_too(runtime: Runtime, config: Path) -> None:
    """What it executes when it is stopped is handed over like a worker's."""
    run = await runtime.submit(clerk, "Go.", tenant="acme", target=TARGET)
    with Child("-m", "bursar.runtime.cli", "serve", "--worker", "--port", "0", "--config", config) as gateway:
        assert (await ended(runtime, run.id)).status == "succeeded"
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(timeout_s=30) == 0, gateway.stderr
