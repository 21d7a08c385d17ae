"""A run outlives whoever executes it: another worker goes on from its last checkpoint, once that one is dead."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from bursar.agents import Agent
from bursar.budget.gate import take
from bursar.budget.windows import to_us, utc_now
from bursar.runtime import Runtime
from bursar.runtime.engine import TAKEOVERS_MAX
from bursar.runtime.execution import Ending
from bursar.runtime.runs.records import run_path
from bursar.runtime.runs.run import Change
from bursar.runtime.runs.schema import run as run_table
from tests.acceptance.other_process import DIARY, TARGET, clerk
from tests.acceptance.support import opened, write_config
from tests.support.processes import Child
from tests.support.provider import Answer, Behaviour, TrueProvider

LEASE_S = 2.0

helper = Agent(name="helper", instructions="Help.")


def looks_twice(body: dict[str, Any], _: int) -> Answer:
    """Looks into two drawers, one after the other, then has the answer."""
    looked = sum(message["role"] == "tool" for message in body["messages"])
    return Answer(text="Found.") if looked == 2 else Answer(tool_calls=[("look", {"where": f"drawer {looked}"})])


@pytest.fixture
def config(tmp_path: Path, true_provider: TrueProvider, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DIARY, str(tmp_path / "diary.txt"))
    true_provider.behaviour = Behaviour(script=looks_twice)
    return write_config(tmp_path, true_provider, lease_s=LEASE_S)


@pytest.fixture
async def runtime(config: Path) -> AsyncIterator[Runtime]:
    async with opened(config) as runtime:
        yield runtime


@contextlib.asynccontextmanager
async def working(runtime: Runtime, **options: Any) -> AsyncIterator[None]:
    """The runtime as a worker meanwhile."""
    task = asyncio.create_task(runtime.work(**options))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def changes(runtime: Runtime, run_id: str) -> list[Change]:
    """How a run came to its end."""
    async with asyncio.timeout(20):
        return [change async for change in runtime.follow(run_id)]


@contextlib.contextmanager
def begun_elsewhere(config: Path, provider: TrueProvider, *, calls: int) -> Iterator[tuple[Child, str]]:
    """A process that executes a run, of which so many calls were answered and the next one is on its way."""
    with Child("-m", "tests.acceptance.other_process", str(config), "run") as other:
        other.wait_for("ready", timeout_s=60)
        other.send_signal(signal.SIGUSR1)
        run_id = other.wait_for("run").split()[1]
        provider.bill.wait_until(lambda bill: bill.calls - bill.in_flight >= calls and bill.in_flight == 1)
        yield other, run_id


async def test_a_dead_holders_run_is_gone_on_with_within_two_leases(
    config: Path, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """From its last checkpoint: what was answered is not asked again."""
    true_provider.behaviour = Behaviour(script=looks_twice, latency_s=0.5)
    async with working(runtime):
        with begun_elsewhere(config, true_provider, calls=1) as (other, run_id):
            other.kill()
        died = time.monotonic()
        async with asyncio.timeout(20):
            async for change in runtime.follow(run_id):
                if change.cause.startswith("taken over from"):
                    break
        assert time.monotonic() - died < 2 * LEASE_S
        told = await changes(runtime, run_id)
    assert [one.status for one in told] == ["running", "running", "succeeded"]
    run = await runtime.get(run_id)
    assert (run.output, run.steps) == ("Found.", 4)  # the call that its death cut off may have been billed
    assert true_provider.bill.requests == 4


@pytest.mark.parametrize("ahead_s", [-30, 30])
async def test_a_live_run_is_not_taken_over_whatever_the_clocks_say(
    ahead_s: int, config: Path, true_provider: TrueProvider
) -> None:
    """A worker's clock may be half a minute ahead or behind; nobody gives up what another has in flight either."""
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="Done."), latency_s=1.5 * LEASE_S)

    def elsewhen() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=ahead_s)

    runtimes = Runtime.open(config), Runtime.open(config, clock=elsewhen)
    async with runtimes[0] as holder, runtimes[1] as other, working(other, sources=[helper]):
        run = await holder.run(helper, "Help me.", tenant="acme")
        assert [one.status for one in await changes(holder, run.id)] == ["running", "succeeded"]
        (attempt,) = holder.ledger.reports.bill(run.id).attempts
        assert (attempt.outcome, true_provider.bill.requests) == ("exact", 1)


@pytest.mark.parametrize("ahead_s", [-30, 30])
async def test_a_dead_run_is_taken_over_whatever_the_clocks_say(ahead_s: int, config: Path, runtime: Runtime) -> None:
    run = await runtime.submit(helper, "Help me.", tenant="acme")
    await runtime.ledger_thread.do(runtime._engine._holds.claim, run.id, None)  # and dies
    await runtime.ledger_thread.do(died, runtime, run.id)

    def elsewhen() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=ahead_s)

    async with opened(config, clock=elsewhen) as other, working(other, sources=[helper]):
        assert (await changes(other, run.id))[-1].status == "succeeded"


def died(runtime: Runtime, run_id: str) -> None:
    """Let the run be held by a process that is gone."""
    (held,) = runtime._records.held("nobody")
    path = run_path(runtime._records.row(run_id))
    with runtime.ledger.store.write() as connection:
        take(connection, path, "gone:1:0", LEASE_S, to_us(utc_now()), silent=held.sign)


async def test_a_run_that_keeps_killing_its_workers_fails(runtime: Runtime, true_provider: TrueProvider) -> None:
    """It is not tried for ever, nor while it gets on; somebody may still go on with it."""
    run = await runtime.submit(helper, "Help me.", tenant="acme")
    await runtime.ledger_thread.do(runtime._engine._holds.claim, run.id, None)
    await runtime.ledger_thread.do(died, runtime, run.id)
    for number in range(1, TAKEOVERS_MAX):
        assert runtime._records.taken_over(run.id, "") == number
    async with working(runtime):
        last = (await changes(runtime, run.id))[-1]
    assert (last.status, last.cause) == (
        "failed",
        "its worker died 5 times in a row without any progress, so it is not tried again",
    )
    assert true_provider.bill.requests == 0
    assert (await runtime.resume(run.id, by="dana")).status == "succeeded"


async def test_progress_begins_the_count_of_take_overs_anew(runtime: Runtime) -> None:
    run = await runtime.submit(helper, "Help me.", tenant="acme")
    assert [runtime._records.taken_over(run.id, at) for at in ("1", "1", "2", "2", "2", "3")] == [1, 2, 1, 2, 3, 1]


async def test_a_run_cancelled_after_its_process_died_ends_without_a_worker(
    config: Path, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Within its lease nobody can know that it is dead; any process that is open ends it then."""
    true_provider.behaviour = Behaviour(script=looks_twice, latency_s=0.5)
    with begun_elsewhere(config, true_provider, calls=1) as (other, run_id):
        other.kill()
    assert (await runtime.cancel(run_id, by="dana")).status == "running"
    assert (await changes(runtime, run_id))[-1].status == "cancelled"
    assert not runtime.ledger.reports.bill(run_id).held


async def test_a_run_that_died_as_it_asked_waits_and_is_not_executed(
    config: Path, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Its graph stands at a question: to go on without an answer would be to make one up."""
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(tool_calls=[("sign", {"line": "once"})]))
    asked = await runtime.run(clerk, "Sign it.", tenant="acme", target=TARGET)
    with runtime.ledger.store.write() as connection:  # it died before it wrote down that it waits
        connection.execute(update(run_table).where(run_table.c.id == asked.id).values(status="running"))
    async with opened(config) as other, working(other), asyncio.timeout(20):
        told = (change async for change in other.follow(asked.id))
        assert [(await anext(told)).status for _ in range(4)] == ["running", "interrupted", "running", "interrupted"]
    run = await runtime.get(asked.id)
    assert (run.status, run.interrupts) == ("interrupted", asked.interrupts)
    assert true_provider.bill.requests == 1


async def test_a_holder_that_comes_back_has_lost_its_run(runtime: Runtime) -> None:
    """It can neither reserve nor write how its execution ended."""
    run = await runtime.submit(helper, "Help me.", tenant="acme")
    holds = runtime._engine._holds
    row, old = await runtime.ledger_thread.do(holds.claim, run.id, None)
    (held,) = runtime._records.held("nobody")
    _, new = await runtime.ledger_thread.do(holds.claim, run.id, held.sign)
    assert new.epoch == old.epoch + 1
    stood = await runtime.ledger_thread.do(holds.end, row, old, Ending(status="failed", cause="too late"))
    assert stood.status == "running"
    ended = await runtime.ledger_thread.do(holds.end, row, new, Ending(status="failed", cause="in time"))
    assert (ended.status, ended.stop_reason) == ("failed", "in time")
