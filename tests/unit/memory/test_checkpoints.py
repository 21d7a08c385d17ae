from __future__ import annotations

import operator
import re
import subprocess
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypedDict

import ormsgpack
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph._internal import _serde
from langgraph.checkpoint.serde import jsonplus as wire
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel
from sqlalchemy import delete

from bursar.budget.stores.store import Store
from bursar.memory import CheckpointRefused, StrictSerializer, open_checkpoints
from bursar.memory.rows import Kept
from bursar.memory.schema import write
from bursar.memory.threads import Held, Place
from tests.support.processes import REPOSITORY, Child

THREAD: Any = {"configurable": {"thread_id": "1"}}


@dataclass
class Plan:
    steps: list[Any]


class Answer(BaseModel):
    text: str


class State(TypedDict):
    messages: Annotated[list[AnyMessage], operator.add]
    plan: Any


def extension(code: int, *content: Any) -> ormsgpack.Ext:
    """An object as LangGraph writes it."""
    return ormsgpack.Ext(code, ormsgpack.packb(content))


# In a graph


def graph_of(saver: Any) -> Any:
    def fan_out(state: State) -> list[Send]:
        return [Send("work", {"number": number, "asked": state["messages"][0]}) for number in range(3)]

    def work(task: Any) -> dict[str, Any]:
        decision = interrupt({"may I": task["asked"]}) if task["number"] == 1 else "unasked"
        return {"messages": [AIMessage(f"{task['number']} {decision}")]}

    builder: Any = StateGraph(State)
    builder.add_node("work", work)
    builder.add_conditional_edges(START, fan_out, ["work"])
    builder.add_edge("work", END)
    return builder.compile(checkpointer=saver)


async def test_messages_sends_and_interrupts_survive_a_reopened_store(checkpoints_url: str) -> None:
    async with open_checkpoints(checkpoints_url) as saver:
        await graph_of(saver).ainvoke({"messages": [HumanMessage("go", id="1")]}, THREAD)
    async with open_checkpoints(checkpoints_url) as saver:
        graph = graph_of(saver)
        state = await graph.aget_state(THREAD)
        assert [found.value for found in state.interrupts] == [{"may I": HumanMessage("go", id="1")}]
        ended = await graph.ainvoke(Command(resume="yes"), THREAD)
        assert [message.content for message in ended["messages"]] == ["go", "0 unasked", "1 yes", "2 unasked"]
        assert [seen.next async for seen in graph.aget_state_history(THREAD)] == [(), ("work",) * 3, ("__start__",)]


class Scripted(BaseChatModel):
    script: list[AIMessage]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        said = sum(isinstance(message, AIMessage) for message in messages)
        return ChatResult(generations=[ChatGeneration(message=self.script[said])])


@tool(response_format="content_and_artifact")
def look(order: str) -> tuple[str, Any]:
    """Look an order up."""
    return f"found {order}", {"order": order, "seen": [datetime(2026, 11, 20, tzinfo=UTC)]}


def calls(name: str, **arguments: Any) -> AIMessage:
    call = {"name": name, "args": arguments, "id": name, "type": "tool_call"}
    usage = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    return AIMessage("", tool_calls=[call], usage_metadata=usage)


async def test_a_langchain_agent_with_tools_and_approvals_works_as_it_stands(checkpoints_url: str) -> None:
    model = Scripted(script=[calls("look", order="1001"), calls("Answer", text="It is on its way.")])

    def agent(saver: Any) -> Any:
        approval = HumanInTheLoopMiddleware(interrupt_on={"look": True})
        return create_agent(model, [look], middleware=[approval], response_format=Answer, checkpointer=saver)

    async with open_checkpoints(checkpoints_url, allowed_types=[Answer]) as saver:
        asked = await agent(saver).ainvoke({"messages": [HumanMessage("Where is 1001?")]}, THREAD)
        assert asked["__interrupt__"]
    async with open_checkpoints(checkpoints_url, allowed_types=[Answer]) as saver:
        await agent(saver).ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), THREAD)
    async with open_checkpoints(checkpoints_url, allowed_types=[Answer]) as saver:
        ended = (await agent(saver).aget_state(THREAD)).values
    assert ended["structured_response"] == Answer(text="It is on its way.")
    assert ended["messages"][2].artifact["seen"] == [datetime(2026, 11, 20, tzinfo=UTC)]
    assert ended["messages"][1].usage_metadata["total_tokens"] == 9


def planner_of(saver: Any, state: Any = State) -> Any:
    builder = StateGraph(state)
    builder.add_node("think", lambda _: {"plan": Plan(["a", "b"])})
    builder.add_edge(START, "think")
    return builder.compile(checkpointer=saver)


async def test_a_graph_that_keeps_what_was_not_allowed_is_told_in_its_first_run(checkpoints_url: str) -> None:
    async with open_checkpoints(checkpoints_url) as saver:
        with pytest.raises(CheckpointRefused, match=r"Plan is not among the types .* -> allowed_types="):
            await planner_of(saver).ainvoke({"messages": []}, THREAD)
    async with open_checkpoints(checkpoints_url, allowed_types=[Plan]) as saver:
        assert (await planner_of(saver).ainvoke({"messages": []}, THREAD))["plan"] == Plan(["a", "b"])


class Planned(TypedDict):
    plan: Plan


async def test_the_types_that_langgraph_adds_for_a_graph_add_nothing_else(
    checkpoints_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_serde, "STRICT_MSGPACK_ENABLED", True)  # as LANGGRAPH_STRICT_MSGPACK=true does
    async with open_checkpoints(checkpoints_url) as saver:
        graph = planner_of(saver, Planned)
        assert graph.checkpointer is not saver, "LangGraph made its own copy"
        assert isinstance(graph.checkpointer.serde, StrictSerializer)
        await graph.ainvoke({}, THREAD)
        assert (await graph.aget_state(THREAD)).values == {"plan": Plan(["a", "b"])}
        tamper(checkpoints_url, "checkpoint", extension(wire.EXT_CONSTRUCTOR_SINGLE_ARG, "os", "system", "true"))
        with pytest.raises(CheckpointRefused, match=r"os\.system"):
            await graph.aget_state(THREAD)
        with pytest.raises(CheckpointRefused, match="Answer"):
            graph.checkpointer.serde.dumps_typed(Answer(text="a"))


def tamper(url: str, column: str, hostile: Any) -> None:
    """Put a hostile object into the newest checkpoint, or into its pending write, as somebody who can seal a row."""
    value = Kept("msgpack", [ormsgpack.packb([hostile])])
    place = Place(tenant="", thread_id="1")
    with closing(Store(url)) as store, store.write() as connection:
        held = Held(connection, place)
        newest = str(held.newest(""))
        if column == "value":
            for one in held.writes("", newest):
                connection.execute(delete(write).where(write.c.task == one.task, write.c.idx == one.idx))
                held.put_write("", newest, replace(one, value=value))
            return
        row = held.row("", newest)
        assert row is not None
        channel = next(name for name in ("messages", "plan") if name in row.values)
        version, _ = row.values[channel]
        held.put("", newest, None, replace(row, values={**row.values, channel: (version, value)}))


@pytest.mark.parametrize("column", ["checkpoint", "value"])
@pytest.mark.parametrize(
    ("code", "content"),
    [
        (wire.EXT_CONSTRUCTOR_POS_ARGS, ("subprocess", "Popen", (["touch", "owned"],))),
        (wire.EXT_CONSTRUCTOR_SINGLE_ARG, ("os", "system", "touch owned")),
        (wire.EXT_METHOD_SINGLE_ARG, ("subprocess", "Popen", ["touch", "owned"], "__init__")),
        (wire.EXT_METHOD_SINGLE_ARG, ("datetime", "datetime", "2026", "utcnow")),
    ],
)
async def test_a_graph_over_a_hostile_store_executes_nothing_and_stops(
    column: str,
    code: int,
    content: tuple[Any, ...],
    checkpoints_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_: started.append(arguments))
    async with open_checkpoints(checkpoints_url) as saver:
        await graph_of(saver).ainvoke({"messages": [HumanMessage("go", id="1")]}, THREAD)
    tamper(checkpoints_url, column, extension(code, *content))
    async with open_checkpoints(checkpoints_url) as saver:
        graph = graph_of(saver)
        for use in (
            graph.ainvoke(Command(resume="yes"), THREAD),
            graph.ainvoke(None, THREAD),
            graph.aget_state(THREAD),
        ):
            with pytest.raises(CheckpointRefused, match=content[1]):
                await use
        with pytest.raises(CheckpointRefused):
            _ = [seen async for seen in graph.aget_state_history(THREAD)]
    assert not started
    assert not (tmp_path / "owned").exists()


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "memory" / "README.md").read_text(), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example)
    with Child(script, tmp_path / "checkpoints.db") as child:
        assert child.wait() == 0, child.stderr
