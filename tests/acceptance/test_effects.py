"""An effect happens at most once: through a crash, a cancellation, a thread that goes on, and whatever people say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from langgraph.types import interrupt

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.windows import utc_now
from bursar.runtime import Runtime
from bursar.runtime.effects import Effects
from bursar.runtime.runs.run import Run
from bursar.tools import Tool, idempotency_key, tool
from bursar.tools.journal import EffectEntry, EffectJournal
from tests.acceptance.effects_worker import NOTES, payer
from tests.acceptance.support import QUESTION, opened, write_config
from tests.support.processes import WarmChild
from tests.support.provider import Answer, Behaviour, TrueProvider


@pytest.fixture
def config(tmp_path: Path, true_provider: TrueProvider) -> Path:
    return write_config(tmp_path, true_provider)


@pytest.fixture
async def runtime(config: Path) -> AsyncIterator[Runtime]:
    async with opened(config) as runtime:
        yield runtime


class Script:
    """Asks for the tool's calls, one after the other, then is done; remembers what it was told."""

    def __init__(self, provider: TrueProvider, *calls: tuple[str, dict[str, Any]]) -> None:
        self.calls = calls
        self.told: list[str] = []
        provider.behaviour = Behaviour(script=self)

    def __call__(self, body: dict[str, Any], _: int) -> Answer:
        self.told = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        if len(self.told) == len(self.calls):
            return Answer(text="Settled.")
        return Answer(tool_calls=[self.calls[len(self.told)]])


def agent_of(*tools: Tool) -> Agent:
    return Agent(name="payer", instructions="Settle refunds.", tools=tools)


def effects(runtime: Runtime, run_id: str) -> list[EffectEntry]:
    return EffectJournal(runtime.ledger.store, utc_now).ls(run_id)


class Killed:
    """A run whose process was killed in its tool, and what a later process makes of it."""

    def __init__(self, config: Path, notes: Path, script: Script) -> None:
        self.config = config
        self.notes = notes
        self.script = script

    @property
    def acted(self) -> list[str]:
        """The key of each time that the tool acted."""
        return self.notes.read_text().split()

    async def resumed(self, agent: Agent) -> Run:
        """Go on with the run."""
        later = utc_now() + timedelta(minutes=1)  # the dead process's lease is over
        async with opened(self.config, clock=lambda: later) as runtime:
            [run] = await runtime._ledger.do(runtime._records.ls)
            return await runtime.resume(run.id, source=agent)


@pytest.fixture
def killed(
    config: Path, tmp_path: Path, true_provider: TrueProvider, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Killed]:
    """Kills a run's process in its tool, `before` or `after` it has acted."""

    def kill(moment: str) -> Killed:
        notes = tmp_path / "notes.txt"
        notes.touch()
        monkeypatch.setenv(NOTES, str(notes))
        script = Script(true_provider, ("pay", {"order_id": "1001"}))
        with WarmChild("tests.acceptance.effects_worker", config, moment) as child:
            assert child.wait() == -9, child.stderr
        return Killed(config, notes, script)

    return kill


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_tools_own_check_settles_what_a_crash_left_in_doubt(
    moment: str, killed: Callable[[str], Killed]
) -> None:
    """By the key that the tool was given: what happened is not repeated, what did not is done, and nobody is asked."""
    left = killed(moment)
    run = await left.resumed(payer(lambda key: "paid, says the bank" if key in left.acted else None))
    assert run.status == "succeeded"
    assert len(left.acted) == 1
    assert left.script.told == ["paid, says the bank" if moment == "after" else "paid 1001"]


async def test_an_effect_that_is_known_is_not_repeated_when_its_task_is_run_again(
    runtime: Runtime, true_provider: TrueProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task dies after the effect and before its checkpoint; its result is the one that was kept."""
    paid: list[str] = []

    @tool(effect="reversible")
    async def pay(order_id: str) -> str:
        """Pay."""
        paid.append(order_id)
        return f"paid for the {len(paid)}. time"

    act = Effects.act

    async def dies(*args: Any) -> Any:
        await act(*args)
        monkeypatch.setattr(Effects, "act", act)
        raise RuntimeError("it dies here")

    monkeypatch.setattr(Effects, "act", dies)
    script = Script(true_provider, ("pay", {"order_id": "1001"}))
    run = await runtime.run(agent_of(pay), QUESTION, tenant="acme")
    assert (run.status, paid) == ("failed", ["1001"])
    run = await runtime.resume(run.id)
    assert (run.status, paid, script.told) == ("succeeded", ["1001"], ["paid for the 1. time"])


async def test_what_a_tool_says_of_its_failure_is_kept(runtime: Runtime, true_provider: TrueProvider) -> None:
    """It is no doubt: it is told to the model, and is its to repeat."""

    @tool(effect="reversible")
    def pay(order_id: str) -> str:
        """Pay."""
        raise ValueError("no such order")

    script = Script(true_provider, ("pay", {"order_id": "1001"}))
    run = await runtime.run(agent_of(pay), QUESTION, tenant="acme")
    [entry] = effects(runtime, run.id)
    assert (entry.state, entry.result and entry.result.is_error) == ("done", True)
    assert "no such order" in script.told[0]


class Slow:
    """A tool that waits to be let go."""

    def __init__(
        self, check: Callable[[str], Any] | None = None, approval: Literal["always", "never"] = "never"
    ) -> None:
        self.begun, self.go = asyncio.Event(), threading.Event()
        self.acted = 0
        loop = asyncio.get_running_loop()

        @tool(effect="reversible", name="pay", check=check, approval=approval)
        def plain(order_id: str) -> str:
            """Pay."""
            loop.call_soon_threadsafe(self.begun.set)
            assert self.go.wait(20)
            self.acted += 1
            return f"paid {order_id}"

        @tool(effect="reversible", name="pay", check=check, approval=approval)
        async def awaited(order_id: str) -> str:
            """Pay."""
            self.begun.set()
            while not self.go.is_set():  # noqa: ASYNC110 - a thread waits for the same event
                await asyncio.sleep(0.01)
            self.acted += 1
            return f"paid {order_id}"

        self.plain, self.awaited = plain, awaited


async def cut_off(runtime: Runtime, slow: Slow, acting: Tool | Coroutine[Any, Any, Run]) -> str:
    """Begin a run, or go on with one, and go away while its tool acts; returns the run's id."""
    begun = runtime.run(agent_of(acting), QUESTION, tenant="acme") if isinstance(acting, Tool) else acting
    running = asyncio.ensure_future(begun)
    await slow.begun.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    [run] = await runtime._ledger.do(runtime._records.ls)
    return str(run.id)


async def test_an_async_tool_that_was_cancelled_is_in_doubt(runtime: Runtime, true_provider: TrueProvider) -> None:
    slow = Slow()
    script = Script(true_provider, ("pay", {"order_id": "1001"}))
    run_id = await cut_off(runtime, slow, slow.awaited)
    slow.go.set()
    run = await runtime.resume(run_id)
    [asked] = run.interrupts
    assert (asked.reason, slow.acted) == ("in_doubt", 0)
    assert [entry.state for entry in effects(runtime, run_id)] == ["in_doubt"]
    run = await runtime.resume(run_id, {asked.id: {"type": "approve"}}, by="dana")
    assert (run.status, slow.acted, script.told) == ("succeeded", 1, ["paid 1001"])


@pytest.mark.parametrize(
    ("decision", "acted", "told"),
    [
        ({"type": "approve"}, 1, "paid 1001"),
        ({"type": "respond", "message": "paid by hand"}, 0, "paid by hand"),
        ({"type": "reject"}, 0, "it is not known whether this was done"),
    ],
)
async def test_a_person_settles_what_a_check_cannot(
    decision: dict[str, Any], acted: int, told: str, runtime: Runtime, true_provider: TrueProvider
) -> None:
    slow = Slow(check=lambda key: 1 / 0)
    script = Script(true_provider, ("pay", {"order_id": "1001"}))
    run_id = await cut_off(runtime, slow, slow.awaited)
    slow.go.set()
    run = await runtime.resume(run_id)
    [asked] = run.interrupts
    run = await runtime.resume(run_id, {asked.id: decision}, by="dana")
    assert (run.status, slow.acted) == ("succeeded", acted)
    assert told in script.told[0]


async def test_a_call_left_in_doubt_is_not_made_under_another_name(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """The model asks for the very same once more, as a new call; it is told the same, and nothing is done."""
    slow = Slow()
    script = Script(true_provider, ("pay", {"order_id": "1001"}), ("pay", {"order_id": "1001"}))
    run_id = await cut_off(runtime, slow, slow.awaited)
    slow.go.set()
    run = await runtime.resume(run_id)
    run = await runtime.resume(run_id, {run.interrupts[0].id: {"type": "reject"}}, by="dana")
    assert (run.status, slow.acted) == ("succeeded", 0)
    assert "nobody is asked again" in script.told[1]


async def test_an_approval_says_nothing_of_a_call_that_was_cut_off(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """It let the call be made once; whether it was is another question, also to the same person."""
    slow = Slow(approval="always")
    script = Script(true_provider, ("pay", {"order_id": "1001"}))
    run = await runtime.run(agent_of(slow.awaited), QUESTION, tenant="acme")
    [asked] = run.interrupts
    await cut_off(runtime, slow, runtime.resume(run.id, {asked.id: {"type": "approve"}}, by="dana"))
    slow.go.set()
    run = await runtime.resume(run.id)
    [again] = run.interrupts
    assert (again.reason, slow.acted) == ("in_doubt", 0)
    run = await runtime.resume(run.id, {again.id: {"type": "approve"}}, by="dana")
    assert (run.status, slow.acted, script.told) == ("succeeded", 1, ["paid 1001"])


async def test_an_effect_cut_off_twice_is_asked_for_twice(runtime: Runtime, true_provider: TrueProvider) -> None:
    """What was said of the first time settles nothing of the second."""
    slow = Slow()
    Script(true_provider, ("pay", {"order_id": "1001"}))
    run_id = await cut_off(runtime, slow, slow.awaited)
    run = await runtime.resume(run_id)
    [first] = run.interrupts
    slow.begun.clear()
    await cut_off(runtime, slow, runtime.resume(run_id, {first.id: {"type": "approve"}}, by="dana"))
    run = await runtime.resume(run_id)
    [second] = run.interrupts
    assert (second.reason, slow.acted) == ("in_doubt", 0)
    assert second.id != first.id


async def test_a_thread_that_outlives_its_call_is_waited_for_and_never_doubled(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    slow = Slow()
    script = Script(true_provider, ("pay", {"order_id": "1001"}))
    run_id = await cut_off(runtime, slow, slow.plain)
    going_on = asyncio.ensure_future(runtime.resume(run_id))
    slow.go.set()
    run = await going_on
    assert (run.status, slow.acted, script.told) == ("succeeded", 1, ["paid 1001"])


async def test_a_thread_that_ends_while_nobody_waits_says_so_itself(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    slow = Slow()
    Script(true_provider, ("pay", {"order_id": "1001"}))
    run_id = await cut_off(runtime, slow, slow.plain)
    slow.go.set()
    async with asyncio.timeout(10):
        while [entry.state for entry in effects(runtime, run_id)] != ["done"]:  # noqa: ASYNC110 - a thread writes it
            await asyncio.sleep(0.01)
    assert slow.acted == 1


async def test_a_cancelled_run_begins_no_effect(runtime: Runtime, true_provider: TrueProvider) -> None:
    """Also where it is cancelled between the charge and the effect."""
    acted: list[str] = []

    @tool(effect="none")
    async def look() -> str:
        """Look."""
        [run] = await runtime._ledger.do(runtime._records.ls)
        runtime.ledger.gates.cancel(f"acme/payer/{run.id}", author="dana")
        return "seen"

    @tool(effect="reversible")
    async def pay(order_id: str) -> str:
        """Pay."""
        acted.append(order_id)
        return "paid"

    Script(true_provider, ("look", {}), ("pay", {"order_id": "1001"}))
    run = await runtime.run(agent_of(look, pay), QUESTION, tenant="acme")
    assert (run.status, acted, effects(runtime, run.id)) == ("cancelled", [], [])


async def test_every_call_has_a_key_of_its_own_that_stays_the_same(
    runtime: Runtime, true_provider: TrueProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a plain tool's thread, in an async tool and when its task is run again."""
    keys: list[str] = []

    @tool(effect="none")
    def look(order_id: str) -> str:
        """Look."""
        keys.append(idempotency_key())
        return "seen"

    @tool(effect="none")
    async def wait(order_id: str) -> str:
        """Wait."""
        keys.append(await asyncio.to_thread(idempotency_key))
        if len(keys) == 2:
            raise asyncio.CancelledError
        return "seen"

    Script(true_provider, ("look", {"order_id": "1"}), ("wait", {"order_id": "1"}), ("look", {"order_id": "1"}))
    agent = agent_of(look, wait)
    with suppress(asyncio.CancelledError):
        await runtime.run(agent, QUESTION, tenant="acme")
    [run] = await runtime._ledger.do(runtime._records.ls)
    run = await runtime.resume(run.id)
    assert run.status == "succeeded"
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3
    assert effects(runtime, run.id) == []


async def test_a_tool_that_asks_a_person_itself_is_run_again_from_its_top(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """It asks before it acts, so nothing is in doubt."""
    acted: list[str] = []

    @tool(effect="reversible")
    async def pay(order_id: str) -> str:
        """Pay."""
        account = interrupt("Which account?")
        acted.append(account)
        return f"paid from {account}"

    script = Script(true_provider, ("pay", {"order_id": "1001"}))
    run = await runtime.run(agent_of(pay), QUESTION, tenant="acme")
    [asked] = run.interrupts
    run = await runtime.resume(run.id, {asked.id: "the blue one"})
    assert (run.status, acted, script.told) == ("succeeded", ["the blue one"], ["paid from the blue one"])


async def test_an_effect_costs_one_tool_call_however_often_its_task_is_run(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    slow = Slow()
    Script(true_provider, ("pay", {"order_id": "1001"}))
    run_id = await cut_off(runtime, slow, slow.awaited)
    slow.go.set()
    run = await runtime.resume(run_id)
    run = await runtime.resume(run_id, {run.interrupts[0].id: {"type": "approve"}}, by="dana")
    assert run.spent.tool_calls == 1


async def test_an_effect_cut_off_by_a_limit_inside_it_is_in_doubt(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """It may have acted before it called the model."""
    from bursar.runtime import chat_model

    acted: list[str] = []

    @tool(effect="reversible")
    async def pay(order_id: str) -> str:
        """Pay."""
        acted.append(order_id)
        await chat_model("small").ainvoke("Write a letter.")
        return "paid, with a letter"

    Script(true_provider, ("pay", {"order_id": "1001"}))
    limits = Limits(steps=1)
    run = await runtime.run(agent_of(pay), QUESTION, tenant="acme", limits=limits, on_limit="escalate")
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "grant", "steps": 3}}, by="dana")
    [asked] = run.interrupts
    assert (asked.reason, acted) == ("in_doubt", ["1001"])
    run = await runtime.resume(run.id, {asked.id: {"type": "respond", "message": "it was paid"}}, by="dana")
    assert (run.status, acted) == ("succeeded", ["1001"])


@pytest.mark.parametrize("checkpoint", ["before the effect", "after it"])
async def test_a_fork_does_not_repeat_an_effect(checkpoint: str, runtime: Runtime, true_provider: TrueProvider) -> None:
    """Also where it goes on from just before the effect: it is told what came of it."""
    paid: list[str] = []

    @tool(effect="reversible")
    async def pay(order_id: str) -> str:
        """Pay."""
        paid.append(order_id)
        return f"paid for the {len(paid)}. time"

    script = Script(true_provider, ("pay", {"order_id": "1001"}))
    run = await runtime.run(agent_of(pay), QUESTION, tenant="acme")
    next_node = "tool" if checkpoint == "before the effect" else "model"
    at = next(one for one in await runtime.checkpoints(run.id) if next_node in one.next)
    fork = await runtime.fork(run.id, by="dana", checkpoint=at.id)
    await runtime.work(once=True)
    fork = await runtime.get(fork.id)
    assert (fork.status, paid, script.told) == ("succeeded", ["1001"], ["paid for the 1. time"])
