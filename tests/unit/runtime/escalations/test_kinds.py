"""Whatever the shape in which a graph asks, people see the same, and the graph gets the answer that it expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import pytest
from ag_ui.core import Interrupt as AgUiInterrupt
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from bursar.budget.errors import UsageError
from bursar.budget.windows import to_us
from bursar.runtime.escalations.kinds import MARK, graph_id, questions
from bursar.runtime.escalations.records import Asked
from tests.unit.runtime.escalations.desk import START as NOW
from tests.unit.runtime.escalations.desk import Desk

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    answer: Any


def asks(value: Any, schema: Any = None) -> tuple[Any, list[Asked]]:
    """A graph that asks this, and its question."""

    def node(_: State) -> State:
        return {"answer": interrupt(value, response_schema=schema)}

    builder: Any = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    graph = builder.compile(checkpointer=InMemorySaver())
    (found,) = graph.invoke({}, THREAD)["__interrupt__"]
    return graph, questions(found)


class Model(FakeMessagesListChatModel):
    """Says what it was given to say."""

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:
        return self


@tool
def pay(order: str, amount_usd: int) -> str:
    """Pay an order back."""
    return f"paid {amount_usd} for {order}"


def agent(mode: Any, calls: int) -> tuple[Any, list[Asked]]:
    """LangChain's agent that wants to make so many calls at once, and what it asks."""
    wanted: Any = [
        {"name": "pay", "args": {"order": str(n), "amount_usd": 10}, "id": f"call{n}", "type": "tool_call"}
        for n in range(calls)
    ]
    model = Model(responses=[AIMessage("", tool_calls=wanted), AIMessage("done")])
    asking = HumanInTheLoopMiddleware(interrupt_on={"pay": True}, interrupt_mode=mode)
    graph: Any = create_agent(model, [pay], middleware=[asking], checkpointer=InMemorySaver())
    found = graph.invoke({"messages": [("user", "pay")]}, THREAD)["__interrupt__"]
    return graph, [asked for one in found for asked in questions(one)]


def resumed(graph: Any, desk: Desk, run_id: str, asked: Sequence[Asked]) -> Any:
    pending = {graph_id(one.id) for one in asked}
    return graph.invoke(Command(resume=dict(desk.answers(run_id, list(pending)))), THREAD)


@pytest.mark.parametrize("mode", ["batched", "per_call"])
def test_each_action_of_langchains_request_is_decided_on_its_own(mode: str, desk_of: Callable[..., Desk]) -> None:
    desk = desk_of()
    graph, asked = agent(mode, calls=4)
    assert sorted(one.payload["args"]["order"] for one in asked) == ["0", "1", "2", "3"]
    assert all({"approve", "edit", "reject"} <= {*one.allowed} for one in asked)
    run_id = desk.begin()
    by_order = {one.payload["args"]["order"]: one for one in desk.wait(run_id, asked)}
    decisions: dict[str, Any] = {
        "0": {"type": "approve"},
        "1": {"type": "reject", "message": "it was delivered"},
        "2": {"type": "edit", "args": {"order": "2", "amount_usd": 5}},
        "3": {"type": "respond", "message": "paid by hand"},
    }
    for order, decision in reversed(decisions.items()):
        desk.escalations.decide(by_order[order].id, decision, "dana")
    messages = resumed(graph, desk, run_id, asked)["messages"]
    said = {one.tool_call_id: one.text for one in messages if isinstance(one, ToolMessage)}
    assert said["call0"] == "paid 10 for 0"
    assert "it was delivered" in said["call1"]
    assert "paid 5 for 2" in said["call2"]
    assert said["call3"] == "paid by hand"


def test_langchains_response_to_all_of_its_request_is_taken_as_it_is(desk: Desk) -> None:
    graph, asked = agent("batched", calls=2)
    run_id = desk.begin()
    desk.wait(run_id, asked)
    response = {"decisions": [{"type": "approve"}, {"type": "reject"}]}
    with pytest.raises(UsageError, match="asks for 2 decisions, not 1"):
        desk.escalations.decide_for(run_id, {asked[0].id: {"decisions": [{"type": "approve"}]}}, by="dana")
    desk.escalations.decide_for(run_id, {graph_id(asked[0].id): response}, by="dana")
    assert resumed(graph, desk, run_id, asked)["messages"][-1].text == "done"


def test_an_edit_of_langchains_action_must_fit_its_tool(desk: Desk) -> None:
    _, asked = agent("per_call", calls=1)
    [one] = desk.ask(*asked)
    with pytest.raises(UsageError, match="edit of pay: amount_usd"):
        desk.escalations.decide(one.id, {"type": "edit", "args": {"order": "1", "amount_usd": "much"}}, "dana")


class Colour(BaseModel):
    """A colour."""

    name: str


def test_a_plain_question_is_answered_by_what_fits_its_schema(desk: Desk) -> None:
    graph, asked = asks("which colour?", Colour)
    assert [(one.reason, one.words) for one in asked] == [("question", "which colour?")]
    run_id = desk.begin()
    [one] = desk.wait(run_id, asked)
    with pytest.raises(UsageError, match="name"):
        desk.escalations.decide(one.id, {"colour": "red"}, "dana")
    desk.escalations.decide(one.id, {"name": "red"}, "dana")
    assert resumed(graph, desk, run_id, asked)["answer"] == Colour(name="red")


@pytest.mark.parametrize("by_alias", [True, False])
def test_ag_uis_interrupt_brings_its_words_its_schema_and_its_deadline(by_alias: bool, desk: Desk) -> None:
    asking = AgUiInterrupt(
        id="int-1",
        reason="input_required",
        message="Which seat?",
        response_schema={"type": "string", "pattern": "^[0-9]+[A-F]$"},
        expires_at="2026-03-02T10:00:00Z",
    )
    graph, asked = asks(asking.model_dump(by_alias=by_alias, exclude_none=True))
    assert asked[0].words == "Which seat?"
    assert asked[0].expires_us == to_us(NOW) + 3_600_000_000
    run_id = desk.begin()
    [one] = desk.wait(run_id, asked)
    with pytest.raises(UsageError, match="window"):
        desk.escalations.decide(one.id, "window", "dana")
    desk.escalations.decide(one.id, "12A", "dana")
    assert resumed(graph, desk, run_id, asked)["answer"] == "12A"


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "soon", "2026-03-02"])
def test_a_deadline_that_is_no_moment_sets_none(at: str) -> None:
    _, asked = asks({"id": "1", "reason": "input_required", "expiresAt": at})
    assert asked[0].expires_us is None


@pytest.mark.parametrize(
    "value",
    [
        {MARK: "budget", "words": "", "payload": {}, "allowed": [], "form": None, "amount_nanousd": None}
        | {"evidence": [], "node": "-"},
        {MARK: "approval", "words": "pay?"},
        {"action_requests": []},
        {"action_requests": [], "review_configs": []},
        {"action_requests": [{"name": "pay"}], "review_configs": []},
        {"action_requests": "pay", "review_configs": None},
        {"type": "tool_approval", "name": "pay"},
        {"id": "1"},
        None,
        5,
    ],
)
def test_what_only_looks_like_one_of_these_is_a_plain_question(value: Any) -> None:
    """Only the ledger's own refusal asks for money; no graph can make one."""
    _, asked = asks(value)
    assert [(one.kind, one.reason, one.payload) for one in asked] == [("plain", "question", {"value": value})]
