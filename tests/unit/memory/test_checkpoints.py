from __future__ import annotations

import asyncio
import operator
import re
import sqlite3
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
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

import bursar.memory.checkpoints
from bursar.memory import CheckpointRefused, CheckpointsUnavailable, StrictSerializer, open_checkpoints
from tests.support.processes import REPOSITORY, Child

THREAD: Any = {"configurable": {"thread_id": "1"}}


def writes_of(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": "1"}}


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


async def test_messages_sends_and_interrupts_survive_a_reopened_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.db"
    async with open_checkpoints(path) as saver:
        await graph_of(saver).ainvoke({"messages": [HumanMessage("go", id="1")]}, THREAD)
    async with open_checkpoints(path) as saver:
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


async def test_a_langchain_agent_with_tools_and_approvals_works_as_it_stands(tmp_path: Path) -> None:
    model = Scripted(script=[calls("look", order="1001"), calls("Answer", text="It is on its way.")])

    def agent(saver: Any) -> Any:
        approval = HumanInTheLoopMiddleware(interrupt_on={"look": True})
        return create_agent(model, [look], middleware=[approval], response_format=Answer, checkpointer=saver)

    path = tmp_path / "checkpoints.db"
    async with open_checkpoints(path, allowed_types=[Answer]) as saver:
        asked = await agent(saver).ainvoke({"messages": [HumanMessage("Where is 1001?")]}, THREAD)
        assert asked["__interrupt__"]
    async with open_checkpoints(path, allowed_types=[Answer]) as saver:
        await agent(saver).ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), THREAD)
    async with open_checkpoints(path, allowed_types=[Answer]) as saver:
        ended = (await agent(saver).aget_state(THREAD)).values
    assert ended["structured_response"] == Answer(text="It is on its way.")
    assert ended["messages"][2].artifact["seen"] == [datetime(2026, 11, 20, tzinfo=UTC)]
    assert ended["messages"][1].usage_metadata["total_tokens"] == 9


def planner_of(saver: Any, state: Any = State) -> Any:
    builder = StateGraph(state)
    builder.add_node("think", lambda _: {"plan": Plan(["a", "b"])})
    builder.add_edge(START, "think")
    return builder.compile(checkpointer=saver)


async def test_a_graph_that_keeps_what_was_not_allowed_is_told_in_its_first_run(tmp_path: Path) -> None:
    async with open_checkpoints(tmp_path / "checkpoints.db") as saver:
        with pytest.raises(CheckpointRefused, match=r"Plan is not among the types .* -> allowed_types="):
            await planner_of(saver).ainvoke({"messages": []}, THREAD)
    async with open_checkpoints(tmp_path / "checkpoints.db", allowed_types=[Plan]) as saver:
        assert (await planner_of(saver).ainvoke({"messages": []}, THREAD))["plan"] == Plan(["a", "b"])


class Planned(TypedDict):
    plan: Plan


async def test_the_types_that_langgraph_adds_for_a_graph_add_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_serde, "STRICT_MSGPACK_ENABLED", True)  # as LANGGRAPH_STRICT_MSGPACK=true does
    path = tmp_path / "checkpoints.db"
    async with open_checkpoints(path) as saver:
        graph = planner_of(saver, Planned)
        assert graph.checkpointer is not saver, "LangGraph made its own copy"
        assert isinstance(graph.checkpointer.serde, StrictSerializer)
        await graph.ainvoke({}, THREAD)
        assert (await graph.aget_state(THREAD)).values == {"plan": Plan(["a", "b"])}
        tamper(path, "checkpoint", extension(wire.EXT_CONSTRUCTOR_SINGLE_ARG, "os", "system", "true"))
        with pytest.raises(CheckpointRefused, match=r"os\.system"):
            await graph.aget_state(THREAD)
        with pytest.raises(CheckpointRefused, match="Answer"):
            graph.checkpointer.serde.dumps_typed(Answer(text="a"))


def tamper(path: Path, column: str, hostile: Any) -> None:
    """Put a hostile object into the newest checkpoint, or into its pending write."""
    with closing(sqlite3.connect(path)) as connection, connection:
        if column == "value":
            connection.execute("UPDATE writes SET value = ?", (ormsgpack.packb([hostile]),))
            return
        newest = "SELECT rowid, checkpoint FROM checkpoints ORDER BY checkpoint_id DESC LIMIT 1"
        rowid, found = connection.execute(newest).fetchone()
        checkpoint = ormsgpack.unpackb(found, ext_hook=ormsgpack.Ext)
        checkpoint["channel_values"]["messages"] = [hostile]
        changed = ormsgpack.packb(checkpoint)
        connection.execute("UPDATE checkpoints SET checkpoint = ? WHERE rowid = ?", (changed, rowid))


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
async def test_a_graph_over_a_hostile_file_executes_nothing_and_stops(
    column: str, code: int, content: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_: started.append(arguments))
    path = tmp_path / "checkpoints.db"
    async with open_checkpoints(path) as saver:
        await graph_of(saver).ainvoke({"messages": [HumanMessage("go", id="1")]}, THREAD)
    tamper(path, column, extension(code, *content))
    async with open_checkpoints(path) as saver:
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


# The file


async def test_the_file_is_in_wal_mode_and_waits_for_other_writers(tmp_path: Path) -> None:
    async with open_checkpoints(tmp_path / "checkpoints.db") as saver:
        asked = ("journal_mode", "synchronous", "busy_timeout", "user_version")
        found = [await (await saver.conn.execute(f"PRAGMA {name}")).fetchone() for name in asked]
    assert found == [("wal",), (1,), (30_000,), (1,)]


WRITER = """
import asyncio, sys
from pathlib import Path
from bursar.memory import open_checkpoints

async def main(path, name):
    async with open_checkpoints(Path(path)) as saver:
        print("open", flush=True)
        for number in range(50):
            row = {"configurable": {"thread_id": name, "checkpoint_ns": "", "checkpoint_id": "1"}}
            await saver.aput_writes(row, [("a", number), ("b", number)], str(number))

asyncio.run(main(*sys.argv[1:]))
"""


def counted(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT thread_id, count(*) FROM writes GROUP BY thread_id").fetchall())


def test_processes_that_share_a_file_lose_no_write(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.db"
    with Child("-c", WRITER, path, "first") as first, Child("-c", WRITER, path, "second") as second:
        assert [first.wait(60), second.wait(60)] == [0, 0], first.stderr + second.stderr
    assert counted(path) == {"first": 100, "second": 100}


def test_threads_that_open_a_new_file_at_once_all_get_it_and_lose_no_write(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.db"
    together = threading.Barrier(4)

    async def write(name: str) -> None:
        async with open_checkpoints(path) as saver:
            for number in range(25):
                await saver.aput_writes(writes_of(name), [("a", number)], str(number))

    def thread(name: str) -> None:
        together.wait()
        asyncio.run(write(name))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(thread, "abcd"))
    assert counted(path) == dict.fromkeys("abcd", 25)


async def test_a_write_whose_caller_is_cancelled_is_still_made_whole_and_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoints.db"
    inserted, go_on = asyncio.Event(), asyncio.Event()
    async with open_checkpoints(path) as saver:
        commit = saver.conn.commit

        async def slow_commit() -> None:
            inserted.set()
            await go_on.wait()
            await commit()

        await saver.aput_writes(writes_of("1"), [("a", 1)], "before")
        monkeypatch.setattr(saver.conn, "commit", slow_commit)
        write = asyncio.create_task(saver.aput_writes(writes_of("1"), [("a", 1), ("b", 2)], "cancelled"))
        await inserted.wait()
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        go_on.set()
    assert counted(path) == {"1": 3}


def a_file(path: Path) -> None:
    async def make() -> None:
        async with open_checkpoints(path) as saver:
            await saver.aput_writes(writes_of("1"), [("a", "b" * 20_000)], "1")

    asyncio.run(make())


def change(path: Path, place: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[place : place + len(value)] = value
    path.write_bytes(content)


def read_only(path: Path) -> None:
    a_file(path)
    change(path, 18, b"\x03")  # SQLite reads a file of a later write version, and does not write it


def half(path: Path) -> None:
    a_file(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=2")


@pytest.mark.parametrize(
    ("make", "why", "next_step"),
    [
        (lambda path: path.write_bytes(b"junk" * 2000), "file is not a database", "name another file"),
        (lambda path: path.mkdir(), "unable to open", "check that its folder exists and is writable"),
        (read_only, "attempt to write a readonly database", "make the file and its folder writable"),
        (half, "malformed", "restore it from a backup"),
        (newer, "have version 2, and this Bursar knows versions up to 1", "pip install --upgrade bursar"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_opening_with_what_to_do(
    make: Any, why: str, next_step: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints.db"
    make(path)
    with pytest.raises(CheckpointsUnavailable, match=why) as refused:
        asyncio.run(use(path))
    assert str(path) in refused.value.message
    assert refused.value.next_step == next_step


async def use(path: Path) -> None:
    async with open_checkpoints(path):
        pass


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointsUnavailable, match=r"nowhere/checkpoints\.db .* check that its folder exists"):
        asyncio.run(use(tmp_path / "nowhere" / "checkpoints.db"))


async def test_a_file_that_stays_locked_is_given_up_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bursar.memory.checkpoints, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "checkpoints.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CheckpointsUnavailable, match="database is locked -> wait for the process"):
            await use(path)
        other.rollback()
        async with open_checkpoints(path) as saver:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(CheckpointsUnavailable, match="database is locked -> wait for the process"):
                await saver.aput_writes(writes_of("1"), [("a", 1)], "1")
            other.rollback()
            await saver.aput_writes(writes_of("1"), [("a", 1)], "1")
    assert counted(path) == {"1": 1}


async def test_damage_that_shows_only_in_use_is_explained_too(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.db"
    async with open_checkpoints(path) as saver:
        await graph_of(saver).ainvoke({"messages": [HumanMessage("go", id="1")]}, THREAD)
        await saver.conn.execute("UPDATE checkpoints SET metadata = '{'")
        with pytest.raises(CheckpointRefused, match="metadata of a checkpoint"):
            await saver.aget_tuple(THREAD)
        await saver.conn.execute("ALTER TABLE checkpoints RENAME COLUMN metadata TO facts")
        with pytest.raises(CheckpointsUnavailable, match="no such column: metadata") as refused:
            await saver.aget_tuple(THREAD)
        assert "another version" in str(refused.value)
        with pytest.raises(CheckpointsUnavailable, match="no such column: metadata"):
            _ = [seen async for seen in saver.alist(None)]


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "memory" / "README.md").read_text(), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example)
    with Child(script, tmp_path / "checkpoints.db") as child:
        assert child.wait() == 0, child.stderr
