"""What the saver does beyond LangGraph's suite for savers: tenants, damage, its synchronous half, many writers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from bursar.memory import TENANT_KEY, CheckpointRefused, CheckpointSaver, open_checkpoints
from bursar.memory.opening import opened_checkpoints
from tests.support.checkpoints import execute, growing
from tests.support.processes import Child


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    turns: int


def asking(saver: Any) -> Any:
    """A graph that says something long twice, asks, and ends."""

    def say(state: State) -> Any:
        turns = state.get("turns", 0) + 1
        return {"turns": turns, "messages": [AIMessage("long " * 200, id=f"said-{turns}")]}

    builder: Any = StateGraph(State)
    builder.add_node("say", say)
    builder.add_node("ask", lambda _: {"messages": [AIMessage(str(interrupt("may I?")), id="answer")]})
    builder.add_edge(START, "say")
    builder.add_conditional_edges("say", lambda state: "say" if state["turns"] < 2 else "ask", ["say", "ask"])
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def thread(thread_id: str = "1", tenant: str | None = None, **named: Any) -> Any:
    owner = {} if tenant is None else {TENANT_KEY: tenant}
    return {"configurable": {"thread_id": thread_id, **owner, **named}}


GO: Any = {"messages": [HumanMessage("go " * 300, id="go")]}


@pytest.fixture
def saver(checkpoints_url: str) -> Any:
    """A saver on each kind of store."""
    with opened_checkpoints(checkpoints_url) as opened:
        yield opened


# The synchronous half


def test_a_graph_that_is_invoked_resumed_listed_and_forked_without_a_loop_works(saver: CheckpointSaver) -> None:
    graph = asking(saver)
    assert graph.invoke(GO, thread())["__interrupt__"]
    assert graph.invoke(Command(resume="yes"), thread())["messages"][-1].content == "yes"
    history = list(graph.get_state_history(thread()))
    assert [seen.next for seen in history] == [(), ("ask",), ("say",), ("say",), ("__start__",)]
    before = next(seen for seen in history if seen.next == ("ask",))
    assert before.tasks[0].interrupts[0].value == "may I?"
    assert graph.invoke(None, before.config)["__interrupt__"]
    assert graph.invoke(Command(resume="no"), thread())["messages"][-1].content == "no"
    updated = graph.update_state(before.config, {"turns": 7})
    assert graph.get_state(updated).values["turns"] == 7
    saver.delete_thread("1")
    assert graph.get_state(thread()).values == {}


# Tenants


async def test_a_thread_is_found_under_its_own_tenant_only(checkpoints_url: str) -> None:
    async with open_checkpoints(checkpoints_url) as saver:
        graph = asking(saver)
        await graph.ainvoke(GO, thread(tenant="acme"))
        for stranger in (None, "", "globex"):
            assert (await graph.aget_state(thread(tenant=stranger))).values == {}
            assert [seen async for seen in saver.alist(thread(tenant=stranger))] == []
        assert [seen async for seen in saver.alist(None)] == []
        assert len([seen async for seen in saver.for_tenant("acme").alist(None)]) == 4
        assert await saver.for_tenant("acme").aget_tuple(thread()) is not None


async def test_a_write_under_another_tenant_leaves_a_thread_as_it_was(checkpoints_url: str) -> None:
    async with open_checkpoints(checkpoints_url) as saver:
        graph = asking(saver)
        await graph.ainvoke(GO, thread(tenant="acme"))
        before = [seen async for seen in graph.aget_state_history(thread(tenant="acme"))]
        await graph.ainvoke(GO, thread(tenant="globex"))
        await saver.adelete_thread("1")
        await saver.for_tenant("globex").aprune(["1"], strategy="delete")
        await saver.for_tenant("globex").adelete_for_runs(["1"])
        assert [seen async for seen in graph.aget_state_history(thread(tenant="acme"))] == before
        assert (await graph.aget_state(thread(tenant="globex"))).values == {}


async def test_configs_that_are_given_back_name_the_tenant_so_that_a_fork_finds_it(checkpoints_url: str) -> None:
    async with open_checkpoints(checkpoints_url) as saver:
        graph = asking(saver)
        await graph.ainvoke(GO, thread(tenant="acme"))
        seen = [one async for one in graph.aget_state_history(thread(tenant="acme"))]
        again = await graph.ainvoke(None, seen[1].config)
        assert [message.id for message in again["messages"]] == ["go", "said-1", "said-2"]
        changed = await graph.aupdate_state(seen[1].config, {"turns": 5})
        assert (await graph.aget_state(changed)).values["turns"] == 5


# Damage


def begun(saver: CheckpointSaver, tenant: str, thread_id: str) -> None:
    """A thread that waits for an answer; nothing of what it holds is another's."""
    given: Any = {"messages": [HumanMessage(f"{tenant} {thread_id} " * 99, id="go")]}
    asking(saver).invoke(given, thread(thread_id, tenant))


def two_threads(saver: CheckpointSaver) -> None:
    for tenant, thread_id in (("acme", "1"), ("acme", "2"), ("globex", "1")):
        begun(saver, tenant, thread_id)


def begun_anew(saver: CheckpointSaver) -> None:
    saver.for_tenant("acme").delete_thread("1")
    begun(saver, "acme", "1")


def refused(saver: CheckpointSaver) -> None:
    """Nothing is read of the first thread, and the others are as they were."""
    graph = asking(saver)
    for use in (
        lambda: graph.get_state(thread(tenant="acme")),
        lambda: graph.invoke(Command(resume="yes"), thread(tenant="acme")),
        lambda: list(saver.list(thread(tenant="acme"))),
    ):
        with pytest.raises(CheckpointRefused, match=r"thread 1 is|cannot be read"):
            use()
    for tenant, thread_id in (("acme", "2"), ("globex", "1")):
        assert graph.get_state(thread(thread_id, tenant)).interrupts


THREAD = "SELECT id FROM checkpoint_thread WHERE tenant = '{}' AND thread_id = '{}'"
FIRST = f"({THREAD.format('acme', '1')})"
NEWEST = f"(SELECT max(id) FROM checkpoint WHERE thread = {FIRST})"
COLUMNS = {"checkpoint": "body", "checkpoint_write": "body", "checkpoint_segment": "content"}
DAMAGE = ("substr({0}, 1, length({0}) - 1)", "substr({0}, 2)", "substr({0}, 1, 0)", "{0} || {0}")


@pytest.mark.parametrize("table", COLUMNS)
def test_a_row_that_was_cut_or_changed_is_refused(saver: CheckpointSaver, checkpoints_url: str, table: str) -> None:
    two_threads(saver)
    for damage in DAMAGE:
        changed = f"{COLUMNS[table]} = {damage.format(COLUMNS[table])}"
        execute(checkpoints_url, f"UPDATE {table} SET {changed} WHERE thread = {FIRST}")
        refused(saver)
        begun_anew(saver)


def test_a_thread_whose_strands_were_changed_is_not_written_to(saver: CheckpointSaver, checkpoints_url: str) -> None:
    two_threads(saver)
    execute(checkpoints_url, "UPDATE checkpoint_thread SET strands = substr(strands, 1, length(strands) - 1)")
    with pytest.raises(CheckpointRefused, match="thread 1 is damaged"):
        asking(saver).invoke(Command(resume="yes"), thread(tenant="acme"))


@pytest.mark.parametrize("table", COLUMNS)
def test_a_row_in_the_place_of_another_threads_or_tenants_is_refused(
    saver: CheckpointSaver, checkpoints_url: str, table: str
) -> None:
    for other in (("acme", "2"), ("globex", "1")):
        two_threads(saver)
        execute(checkpoints_url, f"DELETE FROM {table} WHERE thread = {FIRST}")
        moved = f"thread = {FIRST}"
        if table == "checkpoint_write":  # they belong to a checkpoint by its id
            moved += f", checkpoint = {NEWEST}"
        execute(checkpoints_url, f"UPDATE {table} SET {moved} WHERE thread = ({THREAD.format(*other)})")
        with pytest.raises(CheckpointRefused, match=r"thread 1 is|cannot be read"):
            asking(saver).get_state(thread(tenant="acme"))
        for tenant, thread_id in (("acme", "1"), ("acme", "2"), ("globex", "1")):
            saver.for_tenant(tenant).delete_thread(thread_id)


def test_a_checkpoint_in_the_place_of_another_of_its_thread_is_refused(
    saver: CheckpointSaver, checkpoints_url: str
) -> None:
    two_threads(saver)
    newest, oldest = NEWEST, NEWEST.replace("max", "min")
    (old,) = execute(checkpoints_url, f"SELECT body FROM checkpoint WHERE thread = {FIRST} AND id = {oldest}")
    execute(checkpoints_url, f"UPDATE checkpoint SET body = :b WHERE thread = {FIRST} AND id = {newest}", b=old[0])
    with pytest.raises(CheckpointRefused):
        asking(saver).get_state(thread(tenant="acme"))


def test_a_missing_segment_is_noticed_in_every_checkpoint_that_needs_it_and_no_other(
    saver: CheckpointSaver, checkpoints_url: str
) -> None:
    asking(saver).invoke(GO, thread())
    execute(checkpoints_url, "DELETE FROM checkpoint_segment WHERE start = (SELECT max(start) FROM checkpoint_segment)")
    history = saver.list(thread())
    with pytest.raises(CheckpointRefused, match="a part of thread 1 is missing or damaged"):
        next(history)
    ids = [one for (one,) in execute(checkpoints_url, "SELECT id FROM checkpoint ORDER BY id")]
    assert saver.get_tuple(thread(checkpoint_id=ids[0])) is not None


# Many writers


GROWING = """
import sys
from bursar.memory.opening import opened_checkpoints
from tests.support.checkpoints import growing
with opened_checkpoints(sys.argv[1]) as saver:
    growing(saver, "1", sys.argv[2], 8)
"""


def whole(saver: CheckpointSaver, writers: set[str], times: int) -> None:
    """Every checkpoint of every writer is there, and holds that writer's list."""
    found = list(saver.list(thread()))
    assert len(found) == len(writers) * times
    for one in found:
        step, name = one.metadata["step"], one.metadata["source"]
        assert one.checkpoint["channel_values"]["messages"] == [f"{name} {number} " * 80 for number in range(step + 1)]
    assert {one.metadata["source"] for one in found} == writers


def test_eight_threads_that_write_to_one_thread_lose_and_mix_up_nothing(saver: CheckpointSaver) -> None:
    names = set("abcdefgh")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: growing(saver, "1", name, 8), names))
    whole(saver, names, 8)


def test_processes_that_write_to_one_thread_lose_and_mix_up_nothing(checkpoints_url: str) -> None:
    with (
        Child("-c", GROWING, checkpoints_url, "a") as first,
        Child("-c", GROWING, checkpoints_url, "b") as second,
    ):
        assert [first.wait(60), second.wait(60)] == [0, 0], first.stderr + second.stderr
    with opened_checkpoints(checkpoints_url) as saver:
        whole(saver, {"a", "b"}, 8)
