from __future__ import annotations

import operator
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from bursar.memory import EPOCH_KEY, TENANT_KEY, CheckpointFenced, CheckpointSaver, open_checkpoints
from bursar.memory.threads import Held
from tests.support.checkpoints import content, execute, written


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


async def test_a_worker_that_lost_the_thread_writes_nothing_and_leaves_the_file_unlocked(checkpoints_url: str) -> None:
    async with open_checkpoints(checkpoints_url) as lost, open_checkpoints(checkpoints_url) as taker:
        await lost.afence("1", 1)
        await asking(lost).ainvoke({"said": []}, held(1))
        await taker.afence("1", 2)
        before = content(checkpoints_url)
        found = await lost.aget_tuple(held(1))
        assert found is not None
        with pytest.raises(CheckpointFenced, match=r"1 was taken over by another worker \(epoch 2, here 1\)"):
            await lost.aput(row("1", 1), found.checkpoint, {}, {})
        with pytest.raises(CheckpointFenced):
            await lost.aput_writes(row("1", 1), [("a", 1)], "late")
        with pytest.raises(CheckpointFenced):
            await asking(lost).ainvoke(Command(resume="yes"), held(1))
        assert content(checkpoints_url) == before
        ended = await asking(taker).ainvoke(Command(resume="yes"), held(2))
        assert ended == {"said": ["asked", "yes"]}


@pytest.mark.parametrize("inner_saver", [None, True])
async def test_the_fence_holds_inside_a_subgraph_too(inner_saver: Any, checkpoints_url: str) -> None:
    seen: list[Any] = []
    async with open_checkpoints(checkpoints_url) as saver, open_checkpoints(checkpoints_url) as taker:

        async def lose(_: State) -> dict[str, Any]:
            await taker.afence("1", 2)
            seen.append(content(checkpoints_url))
            return {"said": ["late"]}

        inner: Any = StateGraph(State)
        inner.add_node("lose", lose)
        inner.add_edge(START, "lose")
        outer: Any = StateGraph(State)
        outer.add_node("inner", inner.compile(checkpointer=inner_saver))
        outer.add_edge(START, "inner")
        with pytest.raises(CheckpointFenced):
            await outer.compile(checkpointer=saver).ainvoke({"said": []}, held(1), durability="sync")
    namespaces = {ns.split(":")[0] for (ns,) in execute(checkpoints_url, "SELECT ns FROM checkpoint")}
    assert namespaces == {"", "inner"}
    assert content(checkpoints_url) == seen[0]


async def test_a_saver_copied_for_one_graph_shares_the_fence(checkpoints_url: str) -> None:
    async with open_checkpoints(checkpoints_url) as saver:
        copied = saver.with_allowlist([(Plan.__module__, Plan.__name__)])
        assert copied is not saver
        await saver.afence("1", 2)
        with pytest.raises(CheckpointFenced):
            await copied.aput_writes(row("1", 1), [("a", 1)], "late")


async def test_the_fence_is_never_lowered_and_holds_for_its_thread_and_named_epochs_only(
    checkpoints_url: str,
) -> None:
    async with open_checkpoints(checkpoints_url) as saver:
        await saver.afence("1", 3)
        await saver.afence("1", 2)
        with pytest.raises(CheckpointFenced):
            await saver.aput_writes(row("1", 2), [("a", 1)], "lower")
        await saver.aput_writes(row("1", 3), [("a", 1)], "equal")
        await saver.aput_writes(row("1", 4), [("a", 1)], "higher")
        await saver.aput_writes(row("1"), [("a", 1)], "unnamed")
        await saver.aput_writes(row("2", 1), [("a", 1)], "another thread")
    assert written(checkpoints_url) == [("1", "equal"), ("1", "higher"), ("1", "unnamed"), ("2", "another thread")]


async def test_a_fence_is_one_tenants(checkpoints_url: str) -> None:
    async with open_checkpoints(checkpoints_url) as saver:
        await saver.for_tenant("acme").afence("1", 2)
        await saver.aput_writes(row("1", 1), [("a", 1)], "no tenant's")
        theirs: Any = {"configurable": row("1", 1)["configurable"] | {TENANT_KEY: "acme"}}
        with pytest.raises(CheckpointFenced):
            await saver.aput_writes(theirs, [("a", 1)], "late")
        with pytest.raises(CheckpointFenced):
            await saver.for_tenant("acme").aput_writes(row("1", 1), [("a", 1)], "late")
    assert written(checkpoints_url) == [("1", "no tenant's")]


async def test_a_deleted_thread_keeps_its_fence(checkpoints_url: str) -> None:
    async with open_checkpoints(checkpoints_url) as saver:
        await asking(saver).ainvoke({"said": []}, held(1))
        await saver.afence("1", 2)
        await saver.adelete_thread("1")
        with pytest.raises(CheckpointFenced):
            await saver.aput_writes(row("1", 1), [("a", 1)], "late")
        assert await saver.aget_tuple(held(1)) is None


async def test_a_fence_raised_while_a_write_is_being_made_waits_for_it(
    checkpoints_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inserted, go_on = threading.Event(), threading.Event()
    put_write = Held.put_write

    def slowly(self: Held, *arguments: Any) -> None:
        put_write(self, *arguments)
        inserted.set()
        assert go_on.wait(30)

    monkeypatch.setattr(Held, "put_write", slowly)
    async with open_checkpoints(checkpoints_url) as holder, open_checkpoints(checkpoints_url) as taker:
        with ThreadPoolExecutor(2) as threads:
            write = threads.submit(holder.put_writes, row("1", 1), [("a", 1)], "in time")
            assert inserted.wait(30)
            fence = threads.submit(taker.fence, "1", 2)
            go_on.set()
            write.result()
            fence.result()
        with pytest.raises(CheckpointFenced):
            await holder.aput_writes(row("1", 1), [("a", 1)], "late")
    assert written(checkpoints_url) == [("1", "in time")]
