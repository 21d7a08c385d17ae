from __future__ import annotations

import asyncio
import operator
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from bursar.memory import EPOCH_KEY, CheckpointFenced, CheckpointSaver, open_checkpoints


class State(TypedDict):
    said: Annotated[list[str], operator.add]


@dataclass
class Plan:
    steps: list[str]


def asking(saver: CheckpointSaver) -> Any:
    """A graph that says one thing, and another when it was answered."""
    builder: Any = StateGraph(State)
    builder.add_node("say", lambda _: {"said": ["asked"]})
    builder.add_node("ask", lambda _: {"said": [interrupt("may I?")]})
    builder.add_edge(START, "say")
    builder.add_edge("say", "ask")
    return builder.compile(checkpointer=saver)


def row(thread_id: str, epoch: int | None = None) -> Any:
    """The config of a write as LangGraph passes it."""
    named = {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": "1"}
    return {"configurable": named if epoch is None else named | {EPOCH_KEY: epoch}}


def held(epoch: int) -> Any:
    """The config of a worker that holds the thread with this epoch."""
    return {"configurable": {"thread_id": "1", EPOCH_KEY: epoch}}


def content(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4").fetchall()
            for table in ("checkpoints", "writes")
        ]


async def test_a_worker_that_lost_the_thread_writes_nothing_and_leaves_the_file_unlocked(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.db"
    async with open_checkpoints(path) as lost, open_checkpoints(path) as taker:
        await lost.fence("1", 1)
        await asking(lost).ainvoke({"said": []}, held(1))
        await taker.fence("1", 2)
        before = content(path)
        found = await lost.aget_tuple(held(1))
        assert found is not None
        with pytest.raises(CheckpointFenced, match=r"1 was taken over by another worker \(epoch 2, here 1\)"):
            await lost.aput(row("1", 1), found.checkpoint, {}, {})
        with pytest.raises(CheckpointFenced):
            await lost.aput_writes(row("1", 1), [("a", 1)], "late")
        with pytest.raises(CheckpointFenced):
            await asking(lost).ainvoke(Command(resume="yes"), held(1))
        assert content(path) == before
        ended = await asking(taker).ainvoke(Command(resume="yes"), held(2))
        assert ended == {"said": ["asked", "yes"]}


@pytest.mark.parametrize("inner_saver", [None, True])
async def test_the_fence_holds_inside_a_subgraph_too(inner_saver: Any, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.db"
    seen: list[Any] = []
    async with open_checkpoints(path) as saver, open_checkpoints(path) as taker:

        async def lose(_: State) -> dict[str, Any]:
            await taker.fence("1", 2)
            seen.append(content(path))
            return {"said": ["late"]}

        inner: Any = StateGraph(State)
        inner.add_node("lose", lose)
        inner.add_edge(START, "lose")
        outer: Any = StateGraph(State)
        outer.add_node("inner", inner.compile(checkpointer=inner_saver))
        outer.add_edge(START, "inner")
        with pytest.raises(CheckpointFenced):
            await outer.compile(checkpointer=saver).ainvoke({"said": []}, held(1), durability="sync")
    namespaces = {row[1].split(":")[0] for row in seen[0][0]}
    assert namespaces == {"", "inner"}
    assert content(path) == seen[0]


async def test_a_saver_copied_for_one_graph_shares_the_fence(tmp_path: Path) -> None:
    async with open_checkpoints(tmp_path / "checkpoints.db") as saver:
        copied = saver.with_allowlist([(Plan.__module__, Plan.__name__)])
        assert copied is not saver
        await saver.fence("1", 2)
        with pytest.raises(CheckpointFenced):
            await copied.aput_writes(row("1", 1), [("a", 1)], "late")


async def test_the_fence_is_never_lowered_and_holds_for_its_own_thread_and_named_epochs_only(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.db"
    async with open_checkpoints(path) as saver:
        await saver.fence("1", 3)
        await saver.fence("1", 2)
        with pytest.raises(CheckpointFenced):
            await saver.aput_writes(row("1", 2), [("a", 1)], "lower")
        await saver.aput_writes(row("1", 3), [("a", 1)], "equal")
        await saver.aput_writes(row("1", 4), [("a", 1)], "higher")
        await saver.aput_writes(row("1"), [("a", 1)], "unnamed")
        await saver.aput_writes(row("2", 1), [("a", 1)], "another thread")
    assert [(written[0], written[3]) for written in content(path)[1]] == [
        ("1", "equal"),
        ("1", "higher"),
        ("1", "unnamed"),
        ("2", "another thread"),
    ]


async def test_a_fence_raised_while_a_write_is_being_made_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoints.db"
    inserted, go_on = asyncio.Event(), asyncio.Event()
    async with open_checkpoints(path) as holder, open_checkpoints(path) as taker:
        commit = holder.conn.commit

        async def slow_commit() -> None:
            inserted.set()
            await go_on.wait()
            await commit()

        monkeypatch.setattr(holder.conn, "commit", slow_commit)
        write = asyncio.create_task(holder.aput_writes(row("1", 1), [("a", 1)], "in time"))
        await inserted.wait()
        fence = asyncio.create_task(taker.fence("1", 2))
        go_on.set()
        await asyncio.gather(write, fence)
        with pytest.raises(CheckpointFenced):
            await holder.aput_writes(row("1", 1), [("a", 1)], "late")
    assert [written[3] for written in content(path)[1]] == ["in time"]
