"""No call escapes: a limit of three model calls lets exactly three answered calls through, whatever makes them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent
from bursar.agents.agent import OnLimit
from bursar.budget import Limits
from bursar.runtime import Runtime
from bursar.runtime.events import Event
from bursar.runtime.runs.run import Run
from bursar.tools import tool
from tests.acceptance.graphs import AGENTS, GRAPHS, agent_with, asking, impatient
from tests.acceptance.resume_worker import QUESTIONS
from tests.acceptance.support import QUESTION, charged, model_of, write_config
from tests.support.processes import WarmChild
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

THREE = Limits(steps=3, cost_usd=None)
GIVEN = {"messages": [("user", QUESTION)]}
LAST_WORDS = "As far as I came: nothing."
RETRIES = 2


def insists(body: dict[str, Any], _: int) -> Answer:
    """Calls the first tool that it is offered, for ever; without tools it says what it has."""
    if not body.get("tools"):
        return Answer(text=LAST_WORDS)
    function = body["tools"][0]["function"]
    return Answer(tool_calls=[(function["name"], dict.fromkeys(function["parameters"]["required"], "all"))])


def foul() -> Callable[[dict[str, Any], int], Fault | None]:
    """The first model is down; the second refuses each question, then charges for a web page, then answers."""
    asked: Counter[str] = Counter()

    def faults(body: dict[str, Any], requests_before: int) -> Fault | None:
        if body["model"] == "first":
            return Fault("rate_limit" if requests_before % 2 else "server_error")
        question = json.dumps(body["messages"])
        asked[question] += 1
        return (None, Fault("server_error", status=503), Fault("html"))[asked[question] % 3]

    return faults


WEATHERS: dict[str, Callable[[], Any]] = {"fine": lambda: (), "foul": foul}


@asynccontextmanager
async def a_runtime(folder: Path, provider: TrueProvider) -> AsyncIterator[Runtime]:
    """A runtime whose tier has two models and that does not wait between attempts."""
    models = {name: model_of(provider, model=name, retries=RETRIES) for name in ("first", "second")}

    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    async with Runtime.open(write_config(folder, models), sleep=at_once) as runtime:
        yield runtime


def assert_three(run: Run, runtime: Runtime, provider: TrueProvider) -> None:
    """The provider's bill and the ledger agree on three calls, and on what they cost."""
    bill = runtime.ledger.reports.bill(run.id)
    assert run.status == "stopped", run.stop_reason
    assert provider.bill.calls == run.steps == bill.posted.steps == 3
    assert bill.held.steps == bill.held.nanousd == 0
    asked = {attempt.call for attempt in bill.attempts if attempt.kind == "model"}
    assert provider.bill.requests <= len(asked) * 2 * (RETRIES + 1)
    if any(attempt.outcome == "unknown" for attempt in bill.attempts):
        assert charged(provider.bill) < bill.posted.nanousd
    else:
        assert charged(provider.bill) == bill.posted.nanousd


@pytest.mark.parametrize("weather", WEATHERS)
@pytest.mark.parametrize("on_limit", ["stop", "finalize"])
@pytest.mark.parametrize("agent", AGENTS)
async def test_an_agent(
    agent: str, on_limit: OnLimit, weather: str, tmp_path: Path, true_provider: TrueProvider
) -> None:
    """An agent and all that works for it make three answered calls together."""
    true_provider.behaviour = Behaviour(script=insists, faults=WEATHERS[weather]())
    async with a_runtime(tmp_path, true_provider) as runtime:
        run = await runtime.run(agent_with(agent), QUESTION, tenant="acme", limits=THREE, on_limit=on_limit)
        assert_three(run, runtime, true_provider)


@pytest.mark.parametrize("agent", AGENTS)
async def test_the_last_call_of_an_agent(agent: str, tmp_path: Path, true_provider: TrueProvider) -> None:
    """Whatever works for it and whatever the limit, the last call that it allows is the agent's own last answer."""
    true_provider.behaviour = Behaviour(script=insists)
    async with a_runtime(tmp_path, true_provider) as runtime:
        for steps in range(1, 7):
            true_provider.reset(true_provider.behaviour)
            limits = Limits(steps=steps, cost_usd=None)
            run = await runtime.run(agent_with(agent), QUESTION, tenant="acme", limits=limits, on_limit="finalize")
            assert (run.status, run.output) == ("stopped", LAST_WORDS)
            assert f"left of {steps} step" in run.stop_reason
            assert true_provider.bill.calls == run.steps == steps
            last = runtime.ledger.reports.bill(run.id).attempts[-1]
            assert (last.agent, last.node) == ("worker", "last answer")


@pytest.mark.parametrize("weather", WEATHERS)
@pytest.mark.parametrize("graph", GRAPHS)
async def test_a_graph(graph: str, weather: str, tmp_path: Path, true_provider: TrueProvider) -> None:
    """A graph of a user's own, or LangChain's, makes three answered calls."""
    true_provider.behaviour = Behaviour(script=insists, faults=WEATHERS[weather]())
    async with a_runtime(tmp_path, true_provider) as runtime:
        run = await runtime.run(GRAPHS[graph](), GIVEN, tenant="acme", limits=THREE)
        assert_three(run, runtime, true_provider)


@pytest.mark.parametrize("weather", WEATHERS)
async def test_a_streamed_agent(weather: str, tmp_path: Path, true_provider: TrueProvider) -> None:
    """An agent whose answers are streamed makes three answered calls."""
    true_provider.behaviour = Behaviour(script=insists, faults=WEATHERS[weather]())
    async with a_runtime(tmp_path, true_provider) as runtime:
        streamed = runtime.stream(agent_with("a loop"), QUESTION, tenant="acme", limits=THREE, on_limit="finalize")
        events = [event async for event in streamed]
        assert {"call", "reply"} <= {event.kind for event in events}
        assert_three(_ended(events), runtime, true_provider)


@pytest.mark.parametrize("graph", ["a sync node", "astream", "a fan-out of 100", "create_agent"])
async def test_a_streamed_graph(graph: str, tmp_path: Path, true_provider: TrueProvider) -> None:
    """A graph that somebody listens to makes three answered calls."""
    true_provider.behaviour = Behaviour(script=insists)
    async with a_runtime(tmp_path, true_provider) as runtime:
        streamed = runtime.stream(GRAPHS[graph](), GIVEN, tenant="acme", limits=THREE)
        assert_three(_ended([event async for event in streamed]), runtime, true_provider)


async def test_a_node_given_up(tmp_path: Path, true_provider: TrueProvider) -> None:
    """A node that is given up before its call is answered has made a call, each time."""
    true_provider.behaviour = Behaviour(script=insists, latency_s=60)
    async with a_runtime(tmp_path, true_provider) as runtime:
        run = await runtime.run(impatient(), GIVEN, tenant="acme", limits=THREE)
        assert_three(run, runtime, true_provider)


async def test_interrupts_of_a_graph(tmp_path: Path, true_provider: TrueProvider) -> None:
    """Twelve interrupts, each answered by a resume of its own, do not add a call to three."""
    true_provider.behaviour = Behaviour(script=insists)
    async with a_runtime(tmp_path, true_provider) as runtime:
        run = await runtime.run(asking(QUESTIONS), GIVEN, tenant="acme", limits=THREE)
        for _ in range(3 * QUESTIONS):
            run = await runtime.resume(run.id, {run.interrupts[0].id: "Yes."})
        assert_three(run, runtime, true_provider)


async def test_interrupts_in_runtimes_of_their_own(tmp_path: Path, true_provider: TrueProvider) -> None:
    """Nor does it matter that each resume finds a runtime which has never heard of the run."""
    true_provider.behaviour = Behaviour(script=insists)
    async with a_runtime(tmp_path, true_provider) as runtime:
        run = await runtime.run(asking(QUESTIONS), GIVEN, tenant="acme", limits=THREE)
    for _ in range(3 * QUESTIONS):
        async with a_runtime(tmp_path, true_provider) as runtime:
            run = await runtime.resume(run.id, {run.interrupts[0].id: "Yes."}, source=asking(QUESTIONS))
    async with a_runtime(tmp_path, true_provider) as runtime:
        assert_three(run, runtime, true_provider)


async def test_interrupts_in_processes_of_their_own(tmp_path: Path, true_provider: TrueProvider) -> None:
    """Nor a process of its own for each."""
    true_provider.behaviour = Behaviour(script=insists)
    async with a_runtime(tmp_path, true_provider) as runtime:
        run = await runtime.run(asking(QUESTIONS), GIVEN, tenant="acme", limits=THREE)
        worker = ("tests.acceptance.resume_worker", str(tmp_path / "bursar.yaml"), run.id, str(3 * QUESTIONS))
        with WarmChild(*worker) as child:
            assert child.wait(60) == 0, child.stderr
        assert_three(await runtime.get(run.id), runtime, true_provider)


@pytest.mark.parametrize("on_limit", ["stop", "finalize"])
async def test_approvals_of_an_agent(on_limit: OnLimit, tmp_path: Path, true_provider: TrueProvider) -> None:
    """Four approvals after each answer, one resume each, do not add a call, and each tool call is made once."""
    signed: list[str] = []

    @tool(effect="irreversible", approval="always")
    def sign(line: str) -> str:
        """Sign a line."""
        signed.append(line)
        return "signed"

    def script(body: dict[str, Any], calls_before: int) -> Answer:
        lines = [f"line {calls_before}.{number}" for number in range(4)]
        return Answer(tool_calls=[("sign", {"line": line}) for line in lines] if body.get("tools") else ())

    true_provider.behaviour = Behaviour(script=script)
    agent = Agent(name="clerk", instructions="Sign.", tools=[sign])
    resumes = 0
    async with a_runtime(tmp_path, true_provider) as runtime:
        run = await runtime.run(agent, QUESTION, tenant="acme", limits=THREE, on_limit=on_limit)
        while run.status == "interrupted":
            resumes += 1
            run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "approve"}})
        assert_three(run, runtime, true_provider)
    answers_with_calls = 2 if on_limit == "finalize" else 3
    assert resumes == len(signed) == len(set(signed)) == run.spent.tool_calls == 4 * answers_with_calls


def _ended(events: Sequence[Event]) -> Run:
    run = events[-1].run
    assert run is not None
    return run
