"""However values change from checkpoint to checkpoint, each is read back as it was, and what only grew is kept once."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from bursar.memory import CheckpointSaver
from bursar.memory.opening import opened_checkpoints
from bursar.memory.strict import StrictSerializer
from tests.support.checkpoints import bytes_in, execute

CHANNELS = ("messages", "notes", "facts")


def said(text: str) -> HumanMessage:
    """A message."""
    return HumanMessage(text)


small = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=40), st.binary(max_size=40))
member = st.one_of(small, st.text("ab", min_size=200, max_size=900), st.text(max_size=600).map(said))
changes = st.one_of(
    st.tuples(st.just("append"), st.lists(member, max_size=3)),
    st.tuples(st.just("prepend"), st.lists(member, min_size=1, max_size=2)),
    st.tuples(st.just("drop"), st.integers(0, 5)),
    st.tuples(st.just("replace"), st.one_of(small, st.lists(member, max_size=4), st.dictionaries(st.text(), member))),
    st.tuples(st.just("nest"), st.sampled_from(CHANNELS)),
    st.tuples(st.just("empty"), st.none()),
)
steps = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(CHANNELS), changes, max_size=3),
        st.integers(0, 3),  # how many checkpoints further back the next one begins: a fork
        st.lists(st.tuples(st.sampled_from(CHANNELS), member), max_size=2),  # pending writes
    ),
    min_size=1,
    max_size=12,
)


def changed(values: dict[str, Any], channel: str, change: tuple[str, Any]) -> Any:
    """The value of a channel after a change."""
    before, (kind, what) = values.get(channel), change
    listed = before if isinstance(before, list) else []
    done: dict[str, Callable[[], Any]] = {
        "append": lambda: [*listed, *what],
        "prepend": lambda: [*what, *listed],
        "drop": lambda: listed[: len(listed) - what] if what else listed,
        "replace": lambda: what,
        "nest": lambda: {"all": [values.get(what), {"again": values.get(what)}], "last": 1},
        "empty": lambda: None,
    }
    return done[kind]()


class Twin:
    """Does everything twice: here and in LangGraph's memory."""

    def __init__(self, ours: CheckpointSaver, thread_id: str, ns: str) -> None:
        self.savers: tuple[Any, Any] = ours, InMemorySaver(serde=StrictSerializer())
        self.named = {"thread_id": thread_id, "checkpoint_ns": ns}
        self.made: list[Any] = []

    def step(self, changes: dict[str, Any], back: int, writes: list[Any]) -> None:
        """One checkpoint after an earlier one, and pending writes on it."""
        parent = self.made[-1 - min(back, len(self.made) - 1)] if self.made else None
        before: Any = parent or empty_checkpoint()
        values, versions = dict(before["channel_values"]), dict(before["channel_versions"])
        for channel, change in changes.items():
            values[channel] = changed(before["channel_values"], channel, change)
            versions[channel] = f"{len(self.made) + 1:05}"
            if change[0] == "empty":
                del values[channel]
        checkpoint = {**before, "id": str(uuid6()), "channel_values": values, "channel_versions": versions}
        config: Any = {"configurable": {**self.named, **({"checkpoint_id": parent["id"]} if parent else {})}}
        new = {channel: versions[channel] for channel in changes}
        for saver in self.savers:
            put = saver.put(config, checkpoint, {"step": len(self.made)}, new)
            saver.put_writes(put, writes, "task", "path")
        self.made.append(checkpoint)

    def check(self) -> None:
        """Both give the same for every checkpoint, and for the list of them."""
        ours, theirs = self.savers
        for made in self.made:
            config: Any = {"configurable": {**self.named, "checkpoint_id": made["id"]}}
            assert ours.get_tuple(config) == theirs.get_tuple(config)
        assert list(ours.list({"configurable": self.named})) == list(theirs.list({"configurable": self.named}))


@pytest.fixture
def saver(checkpoints_url: str) -> Any:
    """A saver on each kind of store."""
    with opened_checkpoints(checkpoints_url) as opened:
        yield opened


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=steps)
def test_any_sequence_of_changes_reads_back_as_from_langgraphs_memory(saver: CheckpointSaver, steps: Any) -> None:
    thread_id = str(uuid6())
    twins = [Twin(saver, thread_id, ""), Twin(saver, thread_id, "inner:1")]
    for number, step in enumerate(steps):
        twins[number % 3 == 2].step(*step)
    for twin in twins:
        twin.check()


# How much is kept


class Looking(BaseChatModel):
    """Calls a tool so many times, and is done then."""

    turns: int

    @property
    def _llm_type(self) -> str:
        return "looking"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        said = sum(isinstance(message, AIMessage) for message in messages)
        call = {"name": "look", "args": {"order": f"order {said}"}, "id": f"call-{said}", "type": "tool_call"}
        answer = AIMessage("", tool_calls=[call]) if said < self.turns else AIMessage("done")
        return ChatResult(generations=[ChatGeneration(message=answer)])


@tool
def look(order: str) -> str:
    """Look an order up."""
    return json.dumps({"order": order, "found": [f"{order} {number}" for number in range(150)]})[:2000]


class State(TypedDict, total=False):
    """An agent's of ours."""

    messages: Annotated[list[dict[str, Any]], operator.add]


def langchains(saver: Any, turns: int) -> Any:
    return create_agent(Looking(turns=turns), [look], checkpointer=saver)


def ours(saver: Any, turns: int) -> Any:
    """A graph of the shape of an Agent's: messages are plain JSON, and each tool call is a task of its own."""

    def model(state: State) -> State:
        said = sum(message["role"] == "assistant" for message in state["messages"])
        calls = [{"id": f"call-{said}", "function": {"name": "look", "arguments": "{}"}}] if said < turns else []
        return {"messages": [{"role": "assistant", "content": None, "tool_calls": calls}]}

    def use(call: dict[str, Any]) -> State:
        result = look.invoke({"order": call["id"]})
        return {"messages": [{"role": "tool", "tool_call_id": call["id"], "content": result}]}

    def after(state: State) -> Any:
        return [Send("use", call) for call in state["messages"][-1]["tool_calls"]] or END

    return _graph(State, model, use, after, saver)


def handing_over(saver: Any, turns: int) -> Any:
    """A graph that hands its whole state to each task."""

    def model(state: State) -> State:
        return {"messages": [{"role": "assistant", "content": f"turn {len(state['messages'])}"}]}

    def use(state: State) -> State:
        return {"messages": [{"role": "tool", "content": look.invoke({"order": str(len(state["messages"]))})}]}

    def after(state: State) -> Any:
        return [Send("use", state)] if len(state["messages"]) <= 2 * turns else END

    return _graph(State, model, use, after, saver)


def _graph(state: Any, model: Any, use: Any, after: Any, saver: Any) -> Any:
    builder: Any = StateGraph(state)
    builder.add_node("model", model)
    builder.add_node("use", use)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", after, ["use", END])
    builder.add_edge("use", "model")
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("make", [langchains, ours, handing_over])
def test_a_run_of_200_turns_with_results_of_2_kb_takes_less_than_3_mb(checkpoints_url: str, make: Any) -> None:
    turns = 200
    config: Any = {"configurable": {"thread_id": "0193b2c4-1111-7222-8333-444455556666"}, "recursion_limit": 1000}
    with opened_checkpoints(checkpoints_url) as saver:
        graph = make(saver, turns)
        ended = graph.invoke({"messages": [{"role": "user", "content": "Where are my orders?"}]}, config)
        assert bytes_in(checkpoints_url) < 3_000_000
        assert graph.get_state(config).values == ended
        kept = execute(checkpoints_url, "SELECT count(*) FROM checkpoint")[0][0]
        assert kept > 2 * turns, "none was given up for it"
