"""A run goes on where it was: paid calls are not paid again, and what was decided happens once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.errors import ConflictError, NotFoundError, UsageError
from bursar.runtime import Runtime, chat_model
from bursar.runtime.runs.run import Run
from bursar.tools import tool
from tests.acceptance.graphs import GRAPHS
from tests.acceptance.support import QUESTION, charged, opened, write_config
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

TWO = Limits(steps=2)
GIVEN = {"messages": [("user", QUESTION)]}


@tool(effect="none")
def search(query: str) -> str:
    """Search the archive."""
    return f"nothing about {query}"


researcher = Agent(name="researcher", instructions="Find it.", tools=[search])


def searches(body: dict[str, Any], _: int) -> Answer:
    """Searches twice, then answers: three calls."""
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    return Answer(tool_calls=[("search", {"query": f"it {turn}"})]) if turn < 2 else Answer(text="It is gone.")


def works() -> dict[str, tuple[Any, Any, int]]:
    """An agent and a graph, what each is given, and how many calls it makes."""
    return {"agent": (researcher, QUESTION, 3), "graph": (four_questions(), GIVEN, 4)}


def four_questions() -> StateGraph[MessagesState, None, MessagesState, MessagesState]:
    """One node that makes four calls."""

    async def work(state: MessagesState) -> MessagesState:
        return {"messages": [await chat_model().ainvoke(f"Part {part}?") for part in range(4)]}

    graph = StateGraph(MessagesState)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    return graph


@pytest.fixture
async def runtime(tmp_path: Path, true_provider: TrueProvider) -> AsyncIterator[Runtime]:
    true_provider.behaviour = Behaviour(script=searches)
    async with opened(write_config(tmp_path, true_provider, tenants={"acme": {}, "other": {}})) as runtime:
        yield runtime


def decided(run: Run, decision: Mapping[str, Any]) -> dict[str, Any]:
    """The same decision on all that a run asks."""
    assert run.status == "interrupted", run.stop_reason
    return {asked.id: decision for asked in run.interrupts}


def assert_paid_once(run: Run, runtime: Runtime, provider: TrueProvider, calls: int) -> None:
    """So many different calls were sent, each once, and the ledger has the same."""
    assert provider.bill.calls == run.steps == calls
    assert len({entry.digest for entry in provider.bill.entries}) == calls
    assert charged(provider.bill) == run.spent.nanousd
    assert not runtime.ledger.reports.bill(run.id).held


@pytest.mark.parametrize("source", ["agent", "graph"])
async def test_a_grant_lets_the_run_go_on_without_paying_again(
    source: str, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """At its limit it asks; granted more it goes on from there."""
    work, given, calls = works()[source]
    run = await runtime.run(work, given, tenant="acme", limits=TWO, on_limit="escalate")
    assert [asked.reason for asked in run.interrupts] == ["budget"]
    assert_paid_once(run, runtime, true_provider, 2)
    run = await runtime.resume(run.id, decided(run, {"type": "grant", "steps": 2}), by="dana")
    assert run.status == "succeeded"
    assert_paid_once(run, runtime, true_provider, calls)


async def test_a_grant_that_is_too_small_asks_again(runtime: Runtime, true_provider: TrueProvider) -> None:
    """As often as it takes, and each time with a question of its own."""
    run = await runtime.run(researcher, QUESTION, tenant="acme", limits=Limits(tokens=40), on_limit="escalate")
    asked = set()
    for _ in range(3):
        asked.add(run.interrupts[0].id)
        run = await runtime.resume(run.id, decided(run, {"type": "grant", "tokens": 1}))
        assert run.status == "interrupted"
        assert true_provider.bill.requests == 0
    assert len(asked) == 3
    assert runtime.ledger.reports.bill(run.id).limit["tokens"] == 43
    run = await runtime.resume(run.id, decided(run, {"type": "grant", "tokens": 20_000}))
    assert run.status == "succeeded"
    assert_paid_once(run, runtime, true_provider, 3)


async def test_a_person_may_say_stop(runtime: Runtime, true_provider: TrueProvider) -> None:
    """The run ends stopped, with what it had; nothing more is sent."""
    run = await runtime.run(researcher, QUESTION, tenant="acme", limits=TWO, on_limit="escalate")
    run = await runtime.resume(run.id, decided(run, {"type": "stop"}))
    assert run.status == "stopped"
    assert "0 steps left" in run.stop_reason
    assert_paid_once(run, runtime, true_provider, 2)


@pytest.mark.parametrize("source", ["agent", "graph"])
async def test_a_stopped_run_goes_on_once_it_was_granted_more(
    source: str, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Not before, and without paying again."""
    work, given, calls = works()[source]
    run = await runtime.run(work, given, tenant="acme", limits=TWO, on_limit="stop")
    assert run.status == "stopped"
    run = await runtime.resume(run.id)
    assert run.status == "stopped"
    assert_paid_once(run, runtime, true_provider, 2)
    await runtime.grant(run.id, by="dana", steps=2, note="worth it")
    run = await runtime.resume(run.id)
    assert run.status == "succeeded"
    assert_paid_once(run, runtime, true_provider, calls)


async def test_a_run_out_of_time_goes_on_once_it_was_granted_more(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """The call that its end broke off stays charged as unknown, and is made again."""
    true_provider.behaviour = Behaviour(script=searches, faults=[None, Fault("billed_timeout")])
    run = await runtime.run(researcher, QUESTION, tenant="acme", limits=Limits(seconds=1.5), on_limit="stop")
    assert run.status == "stopped"
    assert "time" in run.stop_reason
    await runtime.grant(run.id, by="dana", seconds=30)
    run = await runtime.resume(run.id)
    assert run.status == "succeeded"
    assert true_provider.bill.calls == run.steps == 4
    unknown = [one for one in runtime.ledger.reports.bill(run.id).attempts if one.outcome == "unknown"]
    assert len(unknown) == 1


async def test_a_fan_out_at_its_limit_asks_once_and_a_grant_serves_whichever_branches_fit(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    given = {"messages": [("user", QUESTION)]}
    run = await runtime.run(GRAPHS["a fan-out of 100"](), given, tenant="acme", limits=TWO, on_limit="escalate")
    for steps in (90, 8):
        assert [asked.reason for asked in run.interrupts] == ["budget"]
        run = await runtime.resume(run.id, decided(run, {"type": "grant", "steps": steps}))
    assert run.status == "succeeded"
    assert_paid_once(run, runtime, true_provider, 100)


@pytest.mark.parametrize("graph", ["create_agent, all three", "create_agent with a tool that calls a model"])
async def test_langchain_middleware_lets_the_question_through(
    graph: str, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Whoever retries, falls back or summarizes: a person is asked, and the answer reaches the call that asked."""
    true_provider.behaviour = Behaviour(script=looks_up)
    run = await runtime.run(GRAPHS[graph](), GIVEN, tenant="acme", limits=Limits(steps=0), on_limit="escalate")
    for calls in range(1, 4):
        assert [asked.reason for asked in run.interrupts] == ["budget"]
        run = await runtime.resume(run.id, decided(run, {"type": "grant", "steps": 1}))
        assert_paid_once(run, runtime, true_provider, calls)


def looks_up(body: dict[str, Any], _: int) -> Answer:
    """Calls the first tool again and again."""
    if not body.get("tools"):
        return Answer(text="A summary.")
    function = body["tools"][0]["function"]
    return Answer(tool_calls=[(function["name"], dict.fromkeys(function["parameters"]["required"], "all"))])


@pytest.mark.parametrize("status", ["succeeded", "cancelled"])
async def test_a_run_that_has_ended_for_good_is_not_resumed(
    status: str, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """It says so, and nothing is sent."""
    limits = Limits() if status == "succeeded" else TWO
    run = await runtime.run(researcher, QUESTION, tenant="acme", limits=limits, on_limit="escalate")
    if status == "cancelled":
        run = await runtime.cancel(run.id, by="dana")
    assert run.status == status
    calls = true_provider.bill.calls
    with pytest.raises(ConflictError, match=status):
        await runtime.resume(run.id)
    assert true_provider.bill.requests == calls
    assert (await runtime.get(run.id)).status == status


async def test_a_run_that_gave_its_last_answer_is_not_resumed(runtime: Runtime, true_provider: TrueProvider) -> None:
    """Nor does the refusal change it, or hold it."""
    run = await runtime.run(researcher, QUESTION, tenant="acme", limits=TWO, on_limit="finalize")
    for _ in range(2):
        with pytest.raises(ConflictError, match="last answer"):
            await runtime.resume(run.id)
    again = await runtime.get(run.id)
    assert (again.status, again.output) == ("stopped", run.output)
    assert true_provider.bill.calls == 2


async def test_an_interrupt_that_is_not_open_is_refused(runtime: Runtime, true_provider: TrueProvider) -> None:
    """A stale, foreign or made-up id decides nothing, also beside a good one."""
    run = await runtime.run(researcher, QUESTION, tenant="acme", limits=TWO, on_limit="escalate")
    good = decided(run, {"type": "grant", "steps": 1})
    for wrong in ({"0" * 32: {"type": "grant", "steps": 5}}, {**good, "no such": {"type": "grant"}}):
        with pytest.raises(ConflictError, match="does not wait on"):
            await runtime.resume(run.id, wrong)
    assert (await runtime.get(run.id)).interrupts == run.interrupts
    assert runtime.ledger.reports.bill(run.id).limit["steps"] == 2
    assert true_provider.bill.calls == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "approve"},
        {"type": "grant", "steps": -1},
        {"type": "grant", "cost_usd": 0.5},
        {"type": "grant", "minutes": 1},
    ],
)
async def test_a_decision_that_does_not_fit_is_refused(wrong: Any, runtime: Runtime) -> None:
    """Nothing changes, and the question stays open."""
    run = await runtime.run(researcher, QUESTION, tenant="acme", limits=TWO, on_limit="escalate")
    with pytest.raises(UsageError):
        await runtime.resume(run.id, decided(run, wrong))
    assert (await runtime.get(run.id)).interrupts == run.interrupts


async def test_a_tenants_run_is_nobody_elses(runtime: Runtime) -> None:
    """With another tenant's name it cannot be read, resumed or cancelled."""
    run = await runtime.run(researcher, QUESTION, tenant="acme", limits=TWO, on_limit="escalate")
    grant = decided(run, {"type": "grant", "steps": 2})
    for access in (
        runtime.get(run.id, tenant="other"),
        runtime.resume(run.id, grant, tenant="other"),
        runtime.cancel(run.id, tenant="other"),
    ):
        with pytest.raises(NotFoundError):
            await access
    assert (await runtime.get(run.id, tenant="acme")).status == "interrupted"
    assert (await runtime.resume(run.id, grant, tenant="acme")).status == "succeeded"


async def test_two_graphs_of_one_name_keep_their_runs_apart(runtime: Runtime) -> None:
    """A run goes on with the graph that began it, whatever was run under its name since."""

    def asking(word: str) -> Any:
        def work(state: MessagesState) -> MessagesState:
            return {"messages": [HumanMessage(f"{word} {interrupt('Well?')}")]}

        graph = StateGraph(MessagesState)
        graph.add_node("work", work)
        graph.add_edge(START, "work")
        return graph.compile()

    one = await runtime.run(asking("one"), GIVEN, tenant="acme")
    two = await runtime.run(asking("two"), GIVEN, tenant="acme")
    for run, word in ((one, "one"), (two, "two")):
        ended = await runtime.resume(run.id, {run.interrupts[0].id: "said"})
        assert ended.value["messages"][-1].text == f"{word} said"
