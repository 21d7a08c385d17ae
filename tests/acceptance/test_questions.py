"""A question is answered by a decision on it, once, and by nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from bursar.budget import Limits
from bursar.budget.errors import ConflictError, UsageError
from bursar.runtime import chat_model
from bursar.runtime.runs.records import Records
from tests.acceptance.support import model_of, opened, write_config
from tests.support.provider import TrueProvider


class State(TypedDict, total=False):
    answers: list[Any]


def graph_of(node: Any) -> StateGraph[State, None, State, State]:
    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph


def a_config(tmp_path: Path, provider: TrueProvider) -> Path:
    tenants = {"acme": {"budgets": [{"usd": "100"}]}, "other": {"budgets": [{"usd": "1"}]}}
    return write_config(tmp_path, {"small": model_of(provider)}, tiers={"small": ["small"]}, tenants=tenants)


async def test_a_grant_never_answers_a_question_of_the_nodes_own(true_provider: TrueProvider, tmp_path: Path) -> None:
    """LangGraph finds a task's answers by their order; a grant is not one of them."""

    async def node(_: State) -> State:
        await chat_model("small").ainvoke("hello")
        return {"answers": [interrupt("Really refund?")]}

    async with opened(a_config(tmp_path, true_provider)) as runtime:
        run = await runtime.run(graph_of(node), {}, tenant="acme", limits=Limits(steps=0), on_limit="escalate")
        run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "grant", "steps": 1}})
        assert [(run.status, one.words) for one in run.interrupts] == [("interrupted", "Really refund?")]
        run = await runtime.resume(run.id, {run.interrupts[0].id: "yes"})
        assert (run.status, run.value, true_provider.bill.calls) == ("succeeded", {"answers": ["yes"]}, 1)


async def two_questions(_: State) -> State:
    return {"answers": [interrupt("first?"), interrupt("second?")]}


class Killed(Exception):
    """What the death of a process is in this test."""


@pytest.fixture
def dies_before_it_writes_the_ending(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The execution has ended, and nothing of that is written."""
    changing = Records.changing

    def failing(self: Records, run_id: str, status: Any, **values: Any) -> Any:
        if status != "running":
            raise Killed
        return changing(self, run_id, status, **values)

    monkeypatch.setattr(Records, "changing", failing)
    return monkeypatch


async def test_an_answer_is_not_taken_for_the_next_questions_after_a_crash(
    true_provider: TrueProvider, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with opened(a_config(tmp_path, true_provider)) as runtime:
        run = await runtime.run(graph_of(two_questions), {}, tenant="acme")
        crash: pytest.MonkeyPatch = request.getfixturevalue("dies_before_it_writes_the_ending")
        with pytest.raises(Killed):
            await runtime.resume(run.id, {run.interrupts[0].id: "one"})
        crash.undo()
        run = await runtime.resume(run.id)
        assert [(run.status, one.words) for one in run.interrupts] == [("interrupted", "second?")]
        run = await runtime.resume(run.id, {run.interrupts[0].id: "two"})
        assert run.value == {"answers": ["one", "two"]}


async def test_a_decision_is_final_also_where_the_process_died_with_it(
    true_provider: TrueProvider, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    started = asyncio.Event()

    async def node(_: State) -> State:
        answer = interrupt("allow?")
        started.set()
        await asyncio.sleep(3600 if len(seen) == 0 else 0)
        return {"answers": [answer]}

    seen: list[int] = []
    async with opened(a_config(tmp_path, true_provider)) as runtime:
        run = await runtime.run(graph_of(node), {}, tenant="acme")
        question = run.interrupts[0].id
        task = asyncio.create_task(runtime.resume(run.id, {question: "no"}, by="dana"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seen.append(1)
        with pytest.raises(ConflictError, match="was decided by dana"):
            await runtime.resume(run.id, {question: "yes"}, by="eve")
        run = await runtime.resume(run.id)
        assert (run.status, run.value) == ("succeeded", {"answers": ["no"]})


@pytest.mark.parametrize(
    "forged",
    [
        {"reason": "approval", "amount": 5},
        {
            "reason": "budget",
            "words": "more?",
            "refusal": {"path": "other", "per": "total"},
            "allowed": ["grant", "stop"],
        },
    ],
)
async def test_a_graphs_question_that_looks_like_one_of_ours_is_a_question_and_grants_nothing(
    true_provider: TrueProvider, tmp_path: Path, forged: dict[str, Any]
) -> None:
    async def node(_: State) -> State:
        return {"answers": [interrupt(forged)]}

    async with opened(a_config(tmp_path, true_provider)) as runtime:
        run = await runtime.run(graph_of(node), {}, tenant="acme")
        assert [one.reason for one in run.interrupts] == ["question"]
        run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "grant", "cost_usd": "100"}})
        assert run.status == "succeeded"
        [other] = runtime.ledger.budgets.ls("other")
        assert other.limit["nanousd"] == 10**9


async def test_granted_seconds_count_in_the_execution_that_they_start(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    async def node(_: State) -> State:
        await asyncio.sleep(0.4)
        return {"answers": ["done"]}

    async with opened(a_config(tmp_path, true_provider)) as runtime:
        run = await runtime.run(graph_of(node), {}, tenant="acme", limits=Limits(seconds=0.2), on_limit="escalate")
        assert [one.reason for one in run.interrupts] == ["budget"]
        run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "grant", "seconds": 60}})
        assert (run.status, run.value) == ("succeeded", {"answers": ["done"]})


@pytest.mark.parametrize("amounts", [{"seconds": "1h"}, {"seconds": -5}, {"step": 5}, {"steps": -1}, {"cost_usd": 0.5}])
async def test_a_grant_that_cannot_be_is_refused_before_anything_is_granted(
    true_provider: TrueProvider, tmp_path: Path, amounts: dict[str, Any]
) -> None:
    async with opened(a_config(tmp_path, true_provider)) as runtime:
        run = await runtime.run(graph_of(two_questions), {}, tenant="acme", limits=Limits(steps=3))
        with pytest.raises(UsageError, match="grant"):
            await runtime.grant(run.id, by="dana", tokens=5, **amounts)
        assert runtime.ledger.reports.bill(run.id).limit["steps"] == 3


async def test_what_to_do_at_a_limit_is_one_of_four_words(true_provider: TrueProvider, tmp_path: Path) -> None:
    async with opened(a_config(tmp_path, true_provider)) as runtime:
        with pytest.raises(UsageError, match="finalize, escalate, downgrade, stop"):
            await runtime.run(graph_of(two_questions), {}, tenant="acme", on_limit="finalise")  # type: ignore[arg-type]
