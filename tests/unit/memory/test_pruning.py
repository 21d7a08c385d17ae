"""What goes when a thread is pruned, what stays so that it can go on, and what a copy has."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt

from bursar.budget.errors import ConflictError, NotFoundError, UsageError
from bursar.memory import CheckpointRefused, CheckpointSaver
from bursar.memory.opening import opened_checkpoints
from tests.support.checkpoints import TABLES, bytes_in, execute

THREAD: Any = {"configurable": {"thread_id": "1"}}
COPY: Any = {"configurable": {"thread_id": "2"}}
GO: Any = {"messages": [HumanMessage("go " * 300, id="go")]}


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    done: Annotated[list[int], operator.add]


def asking(saver: Any) -> Any:
    """A graph with a subgraph and tasks side by side, of which one asks."""

    def say(state: State) -> Any:
        return {"messages": [AIMessage("long " * 200, id=f"said-{len(state['messages'])}")]}

    def work(number: int) -> Any:
        return {"done": [number if number != 1 else interrupt("may I?")]}

    inner: Any = StateGraph(State)
    inner.add_node("say", say)
    inner.add_node("again", say)
    inner.add_node("ask", lambda _: {"done": [interrupt("and inside?")]})
    inner.add_edge(START, "say")
    inner.add_edge("say", "again")
    inner.add_edge("again", "ask")
    builder: Any = StateGraph(State)
    builder.add_node("say", say)
    builder.add_node("work", work)
    builder.add_node("inner", inner.compile())
    builder.add_edge(START, "say")
    builder.add_conditional_edges("say", lambda _: [Send("work", number) for number in range(3)], ["work"])
    builder.add_edge("work", "inner")
    builder.add_edge("inner", END)
    return builder.compile(checkpointer=saver)


@pytest.fixture
def saver(checkpoints_url: str) -> Any:
    """A saver on each kind of store."""
    with opened_checkpoints(checkpoints_url) as opened:
        yield opened


def counted(url: str) -> dict[str, int]:
    return {table: execute(url, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}


def test_a_run_that_waits_goes_on_after_it_was_pruned_wherever_it_waits(
    saver: CheckpointSaver, checkpoints_url: str
) -> None:
    graph = asking(saver)
    graph.invoke(GO, THREAD)
    before = graph.get_state(THREAD)
    saver.prune(["1"])
    after = graph.get_state(THREAD)
    assert (after.values, after.next, after.tasks) == (before.values, before.next, before.tasks)
    asked = graph.invoke(Command(resume=1), THREAD)["__interrupt__"]
    assert asked[0].value == "and inside?"
    saver.prune(["1"])
    ended = graph.invoke(Command(resume=3), THREAD)
    assert ended["done"][:3] == [0, 1, 2]
    assert ended["done"][-1] == 3
    assert len(ended["messages"]) == 4
    saver.prune(["1"])
    assert counted(checkpoints_url)["checkpoint"] == len(list(saver.list(THREAD)))
    assert graph.get_state(THREAD).values == ended


def test_a_pruned_thread_keeps_no_byte_that_nothing_needs(saver: CheckpointSaver, checkpoints_url: str) -> None:
    graph = asking(saver)
    graph.invoke(GO, THREAD)
    for answer in range(5):
        graph.update_state(THREAD, {"messages": [AIMessage(f"{answer} " * 900, id="changing")]}, as_node="say")
    saver.prune(["1"])
    (kept,) = execute(checkpoints_url, "SELECT sum(length(content)) FROM checkpoint_segment")[0]
    held = saver.get_tuple(THREAD)
    assert held is not None
    _, whole = saver.serde.dumps_typed(held.checkpoint["channel_values"])
    assert kept < len(whole)
    graph.update_state(THREAD, {"messages": [AIMessage("5 " * 900, id="another")]}, as_node="say")
    assert len(graph.get_state(THREAD).values["messages"]) == 4
    saver.delete_thread("1")
    assert counted(checkpoints_url) == dict.fromkeys(TABLES, 0)


def test_space_that_was_freed_is_used_again_or_given_back(saver: CheckpointSaver, checkpoints_url: str) -> None:
    given: Any = {"messages": [HumanMessage("".join(str(number) for number in range(50_000)), id="go")]}
    asking(saver).invoke(given, THREAD)
    full = bytes_in(checkpoints_url)
    saver.delete_thread("1")
    asking(saver).invoke(given, COPY)
    assert bytes_in(checkpoints_url) <= 1.1 * full or not checkpoints_url.startswith("sqlite")
    saver.delete_thread("2")
    saver.give_back()
    assert bytes_in(checkpoints_url) < full / 2 or not checkpoints_url.startswith("sqlite")
    asking(saver).invoke(given, THREAD)


def test_pruning_what_holds_nothing_more_changes_nothing(saver: CheckpointSaver, checkpoints_url: str) -> None:
    saver.prune(["1", "2"])
    assert counted(checkpoints_url) == dict.fromkeys(TABLES, 0)


def test_an_unknown_strategy_is_refused(saver: CheckpointSaver) -> None:
    with pytest.raises(UsageError, match="strategy 'all': expected one of keep_latest, delete"):
        saver.prune(["1"], strategy="all")


# DeltaChannels


def joined(before: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*before, *chain.from_iterable(writes)]


class Delta(TypedDict):
    said: Annotated[list[str], DeltaChannel(joined, list, snapshot_frequency=4)]


def delta_graph(saver: Any) -> Any:
    builder: Any = StateGraph(Delta)
    builder.add_node("say", lambda state: {"said": [str(len(state["said"]))]})
    builder.add_edge(START, "say")
    return builder.compile(checkpointer=saver)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_a_delta_channel_is_whole_after_pruning_and_in_a_copy(saver: CheckpointSaver) -> None:
    graph = delta_graph(saver)
    for turn in range(7):
        graph.invoke({"said": [f"turn {turn}"]}, THREAD)
        values = graph.get_state(THREAD).values
        saver.prune(["1"])
        assert graph.get_state(THREAD).values == values
    saver.copy_thread("1", "2")
    assert graph.get_state({"configurable": {"thread_id": "2"}}).values == values
    assert len(values["said"]) == 14
    assert len(list(saver.list(THREAD))) < 12


# Copies


def test_a_copy_goes_on_by_itself_and_outlives_its_source(saver: CheckpointSaver) -> None:
    graph = asking(saver)
    graph.invoke(GO, THREAD)
    saver.copy_thread("1", "2")
    source, copied = (list(saver.list(of)) for of in (THREAD, COPY))
    assert [one.checkpoint for one in copied] == [one.checkpoint for one in source]
    assert [one.pending_writes for one in copied] == [one.pending_writes for one in source]
    graph.invoke(Command(resume=1), COPY)
    assert [one.checkpoint for one in saver.list(THREAD)] == [one.checkpoint for one in source]
    saver.delete_thread("1")
    assert graph.invoke(Command(resume=3), COPY)["done"] == [0, 1, 2, 0, 1, 2, 3]


def test_a_copy_up_to_a_checkpoint_executes_its_next_tasks_anew(saver: CheckpointSaver) -> None:
    graph = asking(saver)
    graph.invoke(GO, THREAD)
    graph.invoke(Command(resume=1), THREAD)
    graph.invoke(Command(resume=3), THREAD)
    history = list(graph.get_state_history(THREAD))
    fork = next(seen for seen in history if seen.next == ("work",) * 3)
    saver.copy_thread("1", "2", until=fork.config["configurable"]["checkpoint_id"])
    copied = graph.get_state(COPY)
    assert (copied.values, copied.next) == (fork.values, fork.next)
    assert graph.invoke(None, COPY)["__interrupt__"][0].value == "may I?"
    assert graph.invoke(Command(resume=7), COPY)["__interrupt__"][0].value == "and inside?"
    assert 7 in graph.get_state(COPY).values["done"]


def test_a_copy_is_refused_where_it_would_mix_threads_or_there_is_nothing_to_copy(saver: CheckpointSaver) -> None:
    asking(saver).invoke(GO, THREAD)
    with pytest.raises(NotFoundError, match="thread 3: not found"):
        saver.copy_thread("3", "2")
    with pytest.raises(NotFoundError, match="checkpoint x of thread 1: not found"):
        saver.copy_thread("1", "2", until="x")
    with pytest.raises(NotFoundError, match="thread 1: not found"):
        saver.for_tenant("acme").copy_thread("1", "2")
    saver.copy_thread("1", "2")
    with pytest.raises(ConflictError, match="thread 2 has checkpoints already"):
        saver.copy_thread("1", "2")


def test_what_is_damaged_is_not_copied(saver: CheckpointSaver, checkpoints_url: str) -> None:
    asking(saver).invoke(GO, THREAD)
    execute(checkpoints_url, "UPDATE checkpoint SET run_id = 'x', body = substr(body, 2)")
    with pytest.raises(CheckpointRefused):
        saver.copy_thread("1", "2")
    assert list(saver.list(COPY)) == []
