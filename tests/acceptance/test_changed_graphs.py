"""A graph that changed while its run waited: the run goes on, is migrated as declared, or says what would be lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt

from bursar.budget.errors import UsageError
from bursar.runtime import Governed, Runtime, chat_model, govern
from bursar.runtime.changed_graph import GraphChanged
from tests.acceptance.support import opened, write_config
from tests.support.provider import TrueProvider


class First(TypedDict, total=False):
    name: str
    said: str
    answer: str


class Second(TypedDict, total=False):
    """`name` has become `names`."""

    names: list[str]
    said: str
    answer: str
    added: str


async def say(state: Any) -> Any:
    return {"said": str((await chat_model().ainvoke("Good morning")).text)}


async def ask(state: Any) -> Any:
    return {"answer": interrupt("Go on?")}


def graph_of(state: type[Any], *nodes: Callable[[Any], Any], **declared: Any) -> Governed:
    """These nodes one after the other."""
    graph = StateGraph(state)
    graph.add_sequence([(node.__name__, node) for node in nodes])  # type: ignore[arg-type]
    graph.add_edge(START, nodes[0].__name__)
    return govern(graph.compile(), name="greeter", **declared)


@pytest.fixture
async def runtime(tmp_path: Path, true_provider: TrueProvider) -> AsyncIterator[Runtime]:
    async with opened(write_config(tmp_path, true_provider)) as one:
        yield one


async def waiting(runtime: Runtime, graph: Governed | None = None) -> tuple[str, str]:
    """A run of the first version that waits: its id, and that of its question."""
    run = await runtime.run(graph or graph_of(First, say, ask, version="1"), {"name": "Ada"}, tenant="acme")
    return run.id, run.interrupts[0].id


async def test_more_than_before(runtime: Runtime, true_provider: TrueProvider) -> None:
    """A graph that has got nodes and channels goes on with its runs, and pays nothing again."""

    class More(First, total=False):
        thanked: str

    async def thank(_: Any) -> Any:
        return {"thanked": "yes"}

    run_id, asked = await waiting(runtime)
    run = await runtime.resume(run_id, {asked: "yes"}, source=graph_of(More, say, ask, thank, version="2"))
    assert run.status == "succeeded", run.stop_reason
    assert (run.value["name"], run.value["answer"], run.value["thanked"]) == ("Ada", "yes", "yes")
    assert true_provider.bill.calls == 1


async def test_a_channel_that_is_gone(runtime: Runtime) -> None:
    """What was in it would be lost: the run waits as before, until the graph fits again."""
    run_id, asked = await waiting(runtime)
    with pytest.raises(GraphChanged, match="version '1' wrote it: it lacks the state's channel 'name' ->"):
        await runtime.resume(run_id, {asked: "yes"}, source=graph_of(Second, say, ask, version="2"))
    assert (await runtime.get(run_id)).status == "interrupted"
    run = await runtime.resume(run_id, {asked: "yes"}, source=graph_of(First, say, ask, version="1"))
    assert run.status == "succeeded"


async def test_a_node_that_is_gone(runtime: Runtime) -> None:
    """LangGraph would end without a word; here the run says which node it waits for."""
    run_id, asked = await waiting(runtime)
    with pytest.raises(GraphChanged, match="it lacks node 'ask', which comes next"):
        await runtime.resume(run_id, {asked: "yes"}, source=graph_of(First, say))


async def test_a_sent_task_that_is_gone(runtime: Runtime) -> None:
    """The same for a node to which a Send leads."""
    graph = StateGraph(First)
    graph.add_node("ask", ask)
    graph.add_conditional_edges(START, lambda _: [Send("ask", {"name": "Ada"})], ["ask"])
    graph.add_edge("ask", END)
    run_id, asked = await waiting(runtime, govern(graph, name="greeter"))
    with pytest.raises(GraphChanged, match="it lacks node 'ask', which comes next"):
        await runtime.resume(run_id, {asked: "yes"}, source=graph_of(First, say))


async def test_a_graph_within_that_changed(runtime: Runtime) -> None:
    """The same for a graph within, under way."""

    def around(inner: Governed) -> Governed:
        graph = StateGraph(First)
        graph.add_node("inner", inner.graph)
        graph.add_edge(START, "inner")
        return govern(graph, name="greeter")

    run_id, asked = await waiting(runtime, around(graph_of(First, say, ask)))
    with pytest.raises(GraphChanged, match="it lacks node 'ask', which comes next"):
        await runtime.resume(run_id, {asked: "yes"}, source=around(graph_of(First, say)))


def to_names(values: dict[str, Any]) -> dict[str, Any]:
    name = values.pop("name")
    return {**values, "names": [name]}


async def test_a_migration(runtime: Runtime, true_provider: TrueProvider) -> None:
    """What a version declares for an earlier one is done once, and the run goes on where it was, with its answer."""
    done: list[str] = []

    def migrate(values: dict[str, Any]) -> dict[str, Any]:
        done.append(values["name"])
        return to_names(values)

    async def ask_twice(_: Any) -> Any:
        return {"answer": f"{interrupt('Go on?')} {interrupt('Really?')}"}

    ask_twice.__name__ = "ask"
    run_id, asked = await waiting(runtime)
    second = graph_of(Second, say, ask_twice, version="2", migrate={"1": migrate})
    run = await runtime.resume(run_id, {asked: "yes"}, source=second)
    assert run.status == "interrupted", run.stop_reason
    run = await runtime.resume(run_id, {run.interrupts[0].id: "really"}, source=second)
    assert run.status == "succeeded", run.stop_reason
    assert (run.value["names"], run.value["answer"], "name" in run.value) == (["Ada"], "yes really", False)
    assert (done, true_provider.bill.calls) == (["Ada"], 1)
    changes = [change.cause async for change in runtime.follow(run_id)]
    assert changes.count("its state was migrated from version 1 to 2") == 1


async def test_a_migration_to_what_the_graph_lacks(runtime: Runtime) -> None:
    """A migration that does not fit its own graph is refused, and changes nothing."""
    run_id, asked = await waiting(runtime)
    wrong = graph_of(Second, say, ask, version="2", migrate={"1": lambda values: values})
    with pytest.raises(UsageError, match="its migration to version 2 gave unknown channels name"):
        await runtime.resume(run_id, {asked: "yes"}, source=wrong)
    run = await runtime.resume(run_id, {asked: "yes"}, source=graph_of(First, say, ask, version="1"))
    assert run.status == "succeeded"


class Connection:
    """No checkpoint can hold one."""


async def test_a_state_that_cannot_be_kept(runtime: Runtime, true_provider: TrueProvider) -> None:
    """The run fails with the channel and the type of what it was, and keeps its last checkpoint."""

    async def spoil(_: Any) -> Any:
        return {"answer": Connection()}

    run = await runtime.run(graph_of(First, say, spoil), {"name": "Ada"}, tenant="acme")
    assert run.status == "failed"
    assert "channel 'answer'" in run.stop_reason
    assert "Connection" in run.stop_reason
    run = await runtime.resume(run.id, source=graph_of(First, say, _named("spoil", ask)))
    assert run.status == "interrupted", run.stop_reason
    assert true_provider.bill.calls == 1


def _named(name: str, node: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def same(state: Any) -> Any:
        return await node(state)

    same.__name__ = name
    return same
