"""A run belongs to no process: any may go on with it or end it, and never two at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bursar.budget.errors import ConflictError, UsageError
from bursar.runtime import Runtime
from bursar.runtime.runs.run import Run
from tests.acceptance.other_process import DIARY, TARGET, clerk
from tests.acceptance.support import opened, write_config
from tests.support.processes import Child, WarmChild
from tests.support.provider import Answer, Behaviour, TrueProvider

LEASE_S = 1.0


def signs_once(body: dict[str, Any], _: int) -> Answer:
    """Has one line signed, then is done."""
    if any(message["role"] == "tool" for message in body["messages"]):
        return Answer(text="Signed.")
    return Answer(tool_calls=[("sign", {"line": "once"})])


def looks_for_ever(_: dict[str, Any], calls_before: int) -> Answer:
    """Never comes to an end."""
    return Answer(tool_calls=[("look", {"where": f"drawer {calls_before}"})])


@pytest.fixture
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was signed, in whichever process."""
    file = tmp_path / "diary.txt"
    file.touch()
    monkeypatch.setenv(DIARY, str(file))
    return file


@pytest.fixture
def config(tmp_path: Path, true_provider: TrueProvider) -> Path:
    true_provider.behaviour = Behaviour(script=signs_once)
    return write_config(tmp_path, true_provider, lease_s=LEASE_S)


@pytest.fixture
async def runtime(config: Path) -> AsyncIterator[Runtime]:
    async with opened(config) as runtime:
        yield runtime


def signed(diary: Path) -> list[str]:
    """The lines of the diary."""
    return diary.read_text().splitlines()


@contextlib.contextmanager
def processes(count: int, config: Path, *order: str) -> Iterator[Sequence[Child]]:
    """Other processes that are ready and wait for their signal."""
    with contextlib.ExitStack() as stack:
        worker = ("tests.acceptance.other_process", str(config), *order)
        children = [stack.enter_context(WarmChild(*worker)) for _ in range(count)]
        for child in children:
            child.wait_for("ready", timeout_s=60)
        yield children


def last_line(child: Child) -> str:
    """What it came to, where it came to an end."""
    lines = [child.line()]
    with contextlib.suppress(AssertionError):
        while True:
            lines.append(child.line())
    return lines[-1].split()[-1]


@pytest.mark.parametrize("given", [(), ("given",)])
async def test_another_process_goes_on_with_a_run(
    given: tuple[str, ...], config: Path, diary: Path, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """It loads the agent from the run's target, or brings it."""
    run = await runtime.run(clerk, "Sign it.", tenant="acme", target=None if given else TARGET)
    with processes(1, config, "resume", run.id, *given) as (other,):
        other.send_signal(signal.SIGUSR1)
        assert last_line(other) == "succeeded"
    run = await runtime.get(run.id)
    assert (run.status, run.output, run.steps) == ("succeeded", "Signed.", 2)
    assert signed(diary) == ["once"]
    assert true_provider.bill.calls == 2


async def test_who_does_not_know_the_agent_is_told_to_bring_it(config: Path, diary: Path, runtime: Runtime) -> None:
    """And the run waits on."""
    run = await runtime.run(clerk, "Sign it.", tenant="acme")
    async with Runtime.open(config) as other:
        with pytest.raises(UsageError, match="clerk") as raised:
            await other.resume(run.id, {run.interrupts[0].id: {"type": "approve"}})
        assert "source=" in str(raised.value.next_step)
    assert (await runtime.get(run.id)).interrupts == run.interrupts


async def test_of_two_processes_that_go_on_with_a_run_one_does(
    config: Path, diary: Path, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """The other gets ConflictError; the tool acts once."""
    run = await runtime.run(clerk, "Sign it.", tenant="acme", target=TARGET)
    with processes(2, config, "resume", run.id) as children:
        for child in children:
            child.send_signal(signal.SIGUSR1)
        assert sorted(last_line(child) for child in children) == ["ConflictError", "succeeded"]
    assert signed(diary) == ["once"]
    assert true_provider.bill.calls == (await runtime.get(run.id)).steps == 2


async def test_a_run_is_taken_over_from_a_dead_process_and_from_no_other(
    config: Path, diary: Path, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """While its process lives, and a lease's time after that, the run is refused."""
    true_provider.behaviour = Behaviour(script=signs_once, latency_s=LEASE_S * 10)
    with processes(1, config, "run") as (other,):
        other.send_signal(signal.SIGUSR1)
        run_id = other.wait_for("run").split()[1]
        true_provider.bill.wait_until(lambda bill: bill.in_flight == 1)
        await asyncio.sleep(LEASE_S * 1.5)  # its lease was renewed meanwhile
        with pytest.raises(ConflictError, match="is being executed by"):
            await runtime.resume(run_id)
        other.kill()
    with pytest.raises(ConflictError, match="is being executed by"):
        await runtime.resume(run_id)
    await asyncio.sleep(LEASE_S * 1.2)
    true_provider.behaviour = Behaviour(script=signs_once)
    ended = await asyncio.gather(runtime.resume(run_id), runtime.resume(run_id), return_exceptions=True)
    (run,) = [end for end in ended if isinstance(end, Run)]
    assert any(isinstance(end, ConflictError) for end in ended)
    assert run.status == "interrupted"
    run = await runtime.resume(run_id, {run.interrupts[0].id: {"type": "approve"}})
    assert (run.status, run.steps, true_provider.bill.calls) == ("succeeded", 3, 3)
    assert signed(diary) == ["once"]


@pytest.mark.parametrize(("latency_s", "lease_s"), [(0.5, 60), (60, LEASE_S)], ids=["short calls", "a long call"])
async def test_another_process_can_cancel_a_run(
    latency_s: float, lease_s: float, tmp_path: Path, true_provider: TrueProvider
) -> None:
    """It ends with the call in flight or within its lease, what is sooner; the provider sees no further request."""
    true_provider.behaviour = Behaviour(script=looks_for_ever, latency_s=latency_s)
    config = write_config(tmp_path, true_provider, lease_s=lease_s)
    async with opened(config) as runtime:
        with processes(1, config, "run") as (other,):
            other.send_signal(signal.SIGUSR1)
            run_id = other.wait_for("run").split()[1]
            true_provider.bill.wait_until(lambda bill: bill.in_flight == 1)
            await runtime.cancel(run_id, by="dana")
            calls = true_provider.bill.calls
            other.wait_for("cancelled", timeout_s=30)  # a busy machine is slow, and a call takes a minute
            assert true_provider.bill.requests == calls
        run = await runtime.get(run_id)
        assert_cancelled(run, runtime)
        assert run.steps == calls


async def test_a_run_whose_process_is_dead_can_be_cancelled(
    config: Path, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Nobody is left to hear of it, so it is cancelled at once."""
    true_provider.behaviour = Behaviour(script=looks_for_ever, latency_s=0.3)
    with processes(1, config, "run") as (other,):
        other.send_signal(signal.SIGUSR1)
        run_id = other.wait_for("run").split()[1]
        true_provider.bill.wait_until(lambda bill: bill.calls == 1)
    await asyncio.sleep(LEASE_S * 1.2)
    assert_cancelled(await runtime.cancel(run_id, by="dana"), runtime)
    with pytest.raises(ConflictError, match="cancelled"):
        await runtime.resume(run_id)
    assert true_provider.bill.requests == 1


def assert_cancelled(run: Run, runtime: Runtime) -> None:
    """It has ended, and holds nothing."""
    assert run.status == "cancelled"
    runtime.ledger.reap()
    assert not runtime.ledger.reports.bill(run.id).held
