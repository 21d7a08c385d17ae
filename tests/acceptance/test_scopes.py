"""A run is charged to everyone above it, in every process, and none of them ever pays more than its limit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from sqlalchemy import select

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.amounts import Amounts
from bursar.budget.errors import UsageError
from bursar.budget.schema import reservation
from bursar.runtime import Runtime, chat_model
from bursar.runtime.runs.run import Run
from tests.acceptance.other_process import DIARY, TARGET, clerk
from tests.acceptance.support import QUESTION, Texts, answers, charged, fan_out, one_call, opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider


def posted(runtime: Runtime) -> Mapping[str, Amounts]:
    """What was posted to each path that has a budget, or is a run."""
    return {line.path: line.posted for line in runtime.ledger.budgets.ls(runs=True)}


def budget(steps: int) -> dict[str, Any]:
    return {"budgets": [{"steps": steps}]}


def everybody(steps: int = 100) -> dict[str, Any]:
    """Sections in which everyone above a run has a budget."""
    acme = {
        "organisation": "globex",
        **budget(steps),
        "teams": {"red": {**budget(steps), "users": {"dana": budget(steps)}}},
        "users": {"dana": budget(steps)},
        "agents": {"clerk": {**budget(steps), "nodes": {"model": budget(steps)}}},
    }
    return {"organisations": {"globex": budget(steps)}, "tenants": {"acme": acme}}


EVERYONE = {
    "org:globex",
    "acme",
    "acme/team:red",
    "acme/team:red/user:dana",
    "acme/user:dana",
    "acme/clerk",
}


def signs_once(body: dict[str, Any], _: int) -> Answer:
    signed = any(message["role"] == "tool" for message in body["messages"])
    return Answer(text="Signed.") if signed else Answer(tool_calls=[("sign", {"line": "once"})])


async def test_a_run_is_charged_to_everyone_above_it_also_after_a_resume_elsewhere(
    tmp_path: Path, true_provider: TrueProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIARY, str(tmp_path / "diary.txt"))
    true_provider.behaviour = Behaviour(script=signs_once)
    config = write_config(tmp_path, true_provider, **everybody())
    async with opened(config) as first:
        run = await first.run(clerk, "Sign it.", tenant="acme", team="red", user="dana", target=TARGET)
        assert (run.team, run.user) == ("red", "dana")
    async with opened(config) as second:
        ended = await second.resume(run.id, {run.interrupts[0].id: {"type": "approve"}})
        assert ended.status == "succeeded"
        found = posted(second)
    assert {path: found[path] for path in EVERYONE} == dict.fromkeys(EVERYONE, ended.spent)
    assert found["acme/clerk/node:model"] == Amounts(ended.spent.nanousd, ended.spent.tokens, ended.spent.steps)
    assert ended.spent.nanousd == charged(true_provider.bill)


@pytest.mark.parametrize("full", [*sorted(EVERYONE), "acme/clerk/node:model"])
async def test_whoever_above_a_run_has_nothing_left_refuses_it(
    tmp_path: Path, true_provider: TrueProvider, full: str
) -> None:
    async with opened(write_config(tmp_path, true_provider, **everybody())) as runtime:
        runtime.ledger.budgets.set(full, limit={"steps": 0}, author="dana", oversubscribed=True)
        run = await runtime.run(clerk, "Sign it.", tenant="acme", team="red", user="dana", on_limit="stop")
    assert run.status == "stopped"
    assert f"bursar budget grant {full} --steps 20" in run.stop_reason
    assert not true_provider.bill.entries


async def test_an_agent_used_as_a_tool_is_charged_to_the_same_team_and_user(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    def delegates(body: dict[str, Any], _: int) -> Answer:
        asked = body.get("tools") and not any(message["role"] == "tool" for message in body["messages"])
        return Answer(tool_calls=[("clerk", {"task": "Look."})]) if asked else Answer(text="Done.")

    true_provider.behaviour = Behaviour(script=delegates)
    helper = Agent(name="clerk", instructions="Look.")
    boss = Agent(name="boss", instructions="Delegate.", tools=[helper])
    async with opened(write_config(tmp_path, true_provider, **everybody())) as runtime:
        run = await runtime.run(boss, "Do it.", tenant="acme", team="red", user="dana")
        found = posted(runtime)
    assert run.status == "succeeded"
    assert (run.steps, found["acme/team:red/user:dana"]) == (3, run.spent)
    assert found["acme/clerk"].steps == 1


async def test_two_tenants_at_once_never_spend_more_than_their_organisation_has(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=answers())
    sections = {
        "organisations": {"globex": {"budgets": [{"usd": "0.05"}]}},
        "tenants": {name: {"organisation": "globex"} for name in ("acme", "rival")},
    }
    async with opened(write_config(tmp_path, true_provider, **sections)) as runtime:
        limits = Limits(cost_usd="1", steps=50)
        runs: list[Run] = await asyncio.gather(
            *(
                runtime.run(fan_out(5), {"question": QUESTION}, tenant=tenant, limits=limits, on_limit="stop")
                for tenant in ("acme", "rival") * 2
            )
        )
        spent = posted(runtime)["org:globex"].nanousd
    assert spent == charged(true_provider.bill) <= 50_000_000
    assert {run.status for run in runs} <= {"stopped", "succeeded"}
    assert any("organisation globex" in run.stop_reason for run in runs)


def drafts() -> StateGraph[Texts, None, Texts, Texts]:
    """Drafts for ever, and reviews each draft."""

    async def ask(state: Texts) -> Texts:
        return {"texts": [str((await chat_model().ainvoke(state["question"])).text)]}

    graph = StateGraph(Texts)
    graph.add_node("draft", ask)
    graph.add_node("review", ask)
    graph.add_edge(START, "draft")
    graph.add_edge("draft", "review")
    graph.add_edge("review", "draft")
    return graph


async def test_a_node_is_bound_in_one_run_by_what_is_written_down_and_the_run_goes_on_after_a_grant(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    async with opened(write_config(tmp_path, true_provider)) as runtime:
        begun = await runtime.run(
            drafts(),
            {"question": QUESTION},
            tenant="acme",
            limits=Limits(steps=20),
            node_limits={"draft": Limits(steps=3)},
            name="writer",
        )
        node = f"acme/writer/{begun.id}/node:draft"
        assert begun.status == "stopped"
        assert f"node draft of acme/writer/{begun.id} has 0 steps left of 3 steps" in begun.stop_reason
        assert (posted(runtime)[node].steps, begun.steps) == (3, 6)
        assert runtime.ledger.budgets.ls(node) == [], "one run's nodes are shown with its run only"
        [line] = runtime.ledger.budgets.ls(node, runs=True)
        assert line.limit == {"nanousd": None, "tokens": None, "steps": 3, "tool_calls": None}
        runtime.ledger.budgets.grant(node, Amounts(steps=1), author="dana", note="one more draft")
        again = await runtime.resume(begun.id)
        assert (posted(runtime)[node].steps, again.steps) == (4, 8)


async def test_a_node_or_team_that_is_none_would_limit_nothing_and_is_refused(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    async with opened(write_config(tmp_path, true_provider, **everybody())) as runtime:
        limits = {"drafft": Limits(steps=1)}
        with pytest.raises(UsageError, match="writer has no node 'drafft'; it has draft, review"):
            await runtime.run(drafts(), {}, tenant="acme", node_limits=limits, name="writer")
        with pytest.raises(UsageError, match="team 'rde' is none of tenant acme's"):
            await runtime.run(clerk, "Sign it.", tenant="acme", team="rde")
        with pytest.raises(UsageError, match="needs a name"):
            await runtime.run(clerk, "Sign it.", tenant="acme", user="a/b")
    assert not true_provider.bill.entries


async def test_the_same_request_has_the_same_digest_and_so_has_the_same_tool_call(
    tmp_path: Path, true_provider: TrueProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIARY, str(tmp_path / "diary.txt"))

    def looks_twice(body: dict[str, Any], _: int) -> Answer:
        told = sum(message["role"] == "tool" for message in body["messages"])
        return Answer(tool_calls=[("look", {"where": "drawer"})]) if told < 2 else Answer(text="Nothing.")

    async with opened(write_config(tmp_path, true_provider)) as runtime:
        for _ in range(2):
            await runtime.run(one_call(), {"question": QUESTION}, tenant="acme", limits=Limits())
        true_provider.behaviour = Behaviour(script=looks_twice)
        await runtime.run(clerk, "Look.", tenant="acme")
        with runtime.ledger.store.read() as connection:
            rows = connection.execute(select(reservation.c.kind, reservation.c.call, reservation.c.digest)).all()
    asked = [row for row in rows if row.kind == "model" and row.digest]
    looked = [row.digest for row in rows if row.kind == "tool"]
    assert [row.digest == row.call.split(":")[2] for row in asked] == [True, True]
    assert asked[0].digest == asked[1].digest
    assert len(looked) == 2
    assert looked[0] is not None
    assert looked[0] == looked[1]
