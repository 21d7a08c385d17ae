"""A run waits for people and goes on by what they decide, whoever they are and whichever process executes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel, field_validator

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.errors import ConflictError, NotAllowedError
from bursar.budget.windows import utc_now
from bursar.runtime import Runtime
from bursar.runtime.runs.run import Run, RunStatus
from bursar.tools import above, tool
from tests.acceptance.support import QUESTION, model_of, opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider

APPROVE = {"type": "approve"}

PEOPLE: Mapping[str, Any] = {
    "people": {"dana": {"roles": ["lead"], "ceiling_usd": "50"}, "eve": {"roles": ["lead"]}},
    "escalations": {"rules": [{"levels": [{"roles": ["lead"]}], "two_people_above_usd": "100"}]},
}


class Desk:
    """A tool that pays, what it paid, and what the model was told."""

    def __init__(self, *amounts: int) -> None:
        self.paid: list[int] = []
        self.has_paid = asyncio.Event()
        self.told: list[str] = []

        @tool(effect="irreversible", approval=above("amount_usd", 10))
        async def refund(amount_usd: int) -> str:
            """Pay an amount back."""
            self.paid.append(amount_usd)
            self.has_paid.set()
            return f"paid {amount_usd}"

        self.amounts = amounts
        self.agent = Agent(name="support", instructions="Settle refunds.", tools=[refund])

    def script(self, body: dict[str, Any], _: int) -> Answer:
        self.told = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        return Answer(
            text="Settled." if self.told else "",
            tool_calls=[] if self.told else [("refund", {"amount_usd": amount}) for amount in self.amounts],
        )


def configured(tmp_path: Path, provider: TrueProvider, tenant: Mapping[str, Any]) -> Path:
    tiers = {"small": ["small"], "large": ["large"]}
    models = {"small": model_of(provider), "large": model_of(provider, model="house-70b")}
    tenants = {"acme": {"budgets": [{"usd": "1000"}], **tenant}}
    return write_config(tmp_path, models, tiers=tiers, tenants=tenants)


@pytest.fixture
def config(tmp_path: Path, true_provider: TrueProvider) -> Path:
    return configured(tmp_path, true_provider, PEOPLE)


@pytest.fixture
async def runtime(config: Path) -> AsyncIterator[Runtime]:
    async with opened(config) as runtime:
        yield runtime


async def begun(runtime: Runtime, provider: TrueProvider, desk: Desk, **options: Any) -> Run:
    provider.behaviour = Behaviour(script=desk.script)
    return await runtime.run(desk.agent, QUESTION, tenant="acme", **options)


async def ended(runtime: Runtime, run_id: str, status: RunStatus = "succeeded") -> Run:
    """The run, once it has come so far."""
    async with asyncio.timeout(30):
        while (run := await runtime.get(run_id)).status != status:
            assert run.status in ("queued", "running", "interrupted"), run.stop_reason
            await asyncio.sleep(0.01)
    return run


async def test_what_is_decided_in_the_inbox_is_done_by_itself(runtime: Runtime, true_provider: TrueProvider) -> None:
    desk = Desk(40)
    run = await begun(runtime, true_provider, desk)
    [one] = await runtime.escalations.ls("acme")
    assert (one.run_id, one.id, one.amount_nanousd) == (run.id, run.interrupts[0].escalation, 40 * 10**9)
    assert one.cost_nanousd == run.spent.nanousd > 0
    await runtime.escalations.decide(one.id, APPROVE, "dana", digest=one.digest)
    await ended(runtime, run.id)
    assert (desk.paid, desk.told) == ([40], ["paid 40"])


async def test_whom_the_policy_does_not_name_decides_nothing_by_any_door(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    desk = Desk(60)
    run = await begun(runtime, true_provider, desk)
    for person, words in {"mallory": "dana, eve may", "dana": r"\$50.00 at most"}.items():
        with pytest.raises(NotAllowedError, match=words):
            await runtime.resume(run.id, {run.interrupts[0].id: APPROVE}, by=person)
        with pytest.raises(NotAllowedError, match=words):
            await runtime.escalations.decide(run.interrupts[0].escalation, APPROVE, person)
    assert (desk.paid, (await runtime.get(run.id)).status) == ([], "interrupted")
    run = await runtime.resume(run.id, {run.interrupts[0].id: APPROVE}, by="eve")
    assert (run.status, desk.paid) == ("succeeded", [60])


async def test_an_edit_above_a_ceiling_is_no_way_around_it(runtime: Runtime, true_provider: TrueProvider) -> None:
    """The amount of the edited action is what counts, by the argument that the tool itself named."""
    desk = Desk(40)
    run = await begun(runtime, true_provider, desk)
    with pytest.raises(NotAllowedError, match=r"about \$900.00"):
        await runtime.resume(run.id, {run.interrupts[0].id: {"type": "edit", "args": {"amount_usd": 900}}}, by="dana")
    edit = {"type": "edit", "args": {"amount_usd": 50}}
    run = await runtime.resume(run.id, {run.interrupts[0].id: edit}, by="dana")
    assert (run.status, desk.paid) == ("succeeded", [50])


async def test_a_run_that_needs_two_waits_for_the_second(tmp_path: Path, true_provider: TrueProvider) -> None:
    people = {"people": {"ann": {"roles": ["lead"]}, "bob": {"roles": ["lead"]}, "cy": {"roles": ["lead"]}}}
    async with opened(configured(tmp_path, true_provider, {**PEOPLE, **people})) as runtime:
        desk = Desk(500)
        run = await begun(runtime, true_provider, desk, user="ann")
        decision = {run.interrupts[0].id: APPROVE}
        with pytest.raises(NotAllowedError, match="ann's own run"):
            await runtime.resume(run.id, decision, by="ann")
        first = await runtime.resume(run.id, decision, by="bob")
        assert (first.status, desk.paid) == ("interrupted", [])
        run = await runtime.resume(run.id, decision, by="cy")
        assert (run.status, desk.paid) == ("succeeded", [500])


async def test_a_deadline_is_kept_within_a_second(tmp_path: Path, true_provider: TrueProvider) -> None:
    """Also where no process was up: then at the start of the next one. What was not decided is not done."""
    config = configured(tmp_path, true_provider, {})
    desk = Desk(40)
    async with opened(config) as runtime:
        run = await begun(runtime, true_provider, desk)
    week = timedelta(days=7)
    expires = (run.changed_at or run.created_at) + week
    async with Runtime.open(config, clock=lambda: utc_now() + week) as later:
        before = perf_counter()
        [one] = await _in_status(later, run.id, "expired")
        assert perf_counter() - before < 1
        assert one.decided_at is not None
        assert one.decided_at >= expires - timedelta(seconds=1)
        run = await later.resume(run.id, source=desk.agent)
    assert (run.status, desk.paid) == ("succeeded", [])
    assert "nobody decided" in desk.told[0]


async def _in_status(runtime: Runtime, run_id: str, status: Any) -> Any:
    async with asyncio.timeout(30):
        while True:
            if found := await runtime.escalations.ls(run_id=run_id, status=status):
                return found
            await asyncio.sleep(0.01)


async def test_a_run_at_its_limit_says_what_it_has_and_goes_on_with_what_it_is_granted(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    desk = Desk(5)
    run = await begun(runtime, true_provider, desk, limits=Limits(steps=1), on_limit="escalate")
    [one] = await runtime.escalations.ls(run_id=run.id)
    assert (one.reason, one.cost_nanousd) == ("budget", run.spent.nanousd)
    assert one.payload["refusal"]["dimension"] == "steps"
    assert desk.paid == [5]
    await runtime.escalations.decide(one.id, {"type": "grant", "steps": 1}, "dana")
    await ended(runtime, run.id)
    assert true_provider.bill.calls == 2


async def test_a_run_that_is_downgraded_goes_on_with_a_lower_tier(tmp_path: Path, true_provider: TrueProvider) -> None:
    """Nothing was granted, so nothing more is spent."""
    models = {"small": model_of(true_provider, price="free"), "large": model_of(true_provider, model="house-70b")}
    tiers = {"small": ["small"], "large": ["large"]}
    config = write_config(tmp_path, models, tiers=tiers, tenants={"acme": {"budgets": [{"usd": "1"}]}})
    agent = Agent(name="support", instructions="Help.", tier="large")
    async with opened(config) as runtime:
        run = await runtime.run(agent, QUESTION, tenant="acme", limits=Limits(cost_usd="0.000001"), on_limit="escalate")
        assert (run.status, true_provider.bill.calls) == ("interrupted", 0)
        run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "downgrade"}}, by="dana")
    assert (run.status, run.spent.nanousd, true_provider.bill.calls) == ("succeeded", 0, 1)


async def test_a_run_that_is_stopped_at_its_limit_is_not_executed_again(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    desk = Desk(5)
    run = await begun(runtime, true_provider, desk, limits=Limits(steps=1), on_limit="escalate")
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "stop"}}, by="dana")
    assert (run.status, true_provider.bill.calls, run.interrupts) == ("stopped", 1, [])


async def test_a_granted_run_leaves_what_else_it_asks_open(runtime: Runtime, true_provider: TrueProvider) -> None:
    """What was stopped goes on; the question beside it is asked as before, and answered by nothing else."""
    desk = Desk(5, 40)
    run = await begun(runtime, true_provider, desk, limits=Limits(tool_calls=0), on_limit="escalate")
    asked = {one.reason: one for one in run.interrupts}
    assert sorted(asked) == ["approval", "budget"]
    run = await runtime.resume(run.id, {asked["budget"].id: {"type": "grant", "tool_calls": 2}}, by="dana")
    assert (run.status, [one.id for one in run.interrupts], desk.paid) == ("interrupted", [asked["approval"].id], [5])
    run = await runtime.resume(run.id, {asked["approval"].id: APPROVE}, by="dana")
    assert (run.status, sorted(desk.paid)) == ("succeeded", [5, 40])


async def test_an_action_whose_tool_is_gone_can_only_be_refused(runtime: Runtime, true_provider: TrueProvider) -> None:
    desk = Desk(40)
    run = await begun(runtime, true_provider, desk)
    bare = Agent(name="support", instructions="Settle refunds.")
    with pytest.raises(ConflictError, match="no tool refund any more"):
        await runtime.resume(run.id, {run.interrupts[0].id: APPROVE}, by="dana", source=bare)
    assert (await runtime.get(run.id)).interrupts == run.interrupts
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "reject"}}, by="dana", source=desk.agent)
    assert (run.status, desk.paid) == ("succeeded", [])


async def test_a_run_that_was_cancelled_asks_nothing(runtime: Runtime, true_provider: TrueProvider) -> None:
    desk = Desk(40)
    run = await begun(runtime, true_provider, desk)
    await runtime.cancel(run.id, by="ann")
    with pytest.raises(ConflictError, match="withdrawn"):
        await runtime.escalations.decide(run.interrupts[0].escalation, APPROVE, "dana")
    assert (desk.paid, await runtime.escalations.ls(run_id=run.id)) == ([], [])


async def test_a_run_goes_on_soon_after_its_decision(runtime: Runtime, true_provider: TrueProvider) -> None:
    """Half of them within 100 ms, on a machine that does nothing else; here with room for a busy one."""
    took = list[float]()
    for _ in range(5):
        desk = Desk(40)
        run = await begun(runtime, true_provider, desk)
        before = perf_counter()
        await runtime.escalations.decide(run.interrupts[0].escalation, APPROVE, "dana")
        await desk.has_paid.wait()
        took.append(perf_counter() - before)
        await ended(runtime, run.id)
    assert median(took) < 1, took


class Even(BaseModel):
    """What JSON Schema cannot say."""

    number: int

    @field_validator("number")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("expected an even number")
        return value


async def test_an_answer_that_the_graph_refuses_is_asked_for_again(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Its form said nothing against it; the run waits on, and says why."""

    def node(_: dict[str, Any]) -> dict[str, Any]:
        return {"number": interrupt("which number?", response_schema=Even).number}

    graph: Any = StateGraph(dict)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    run = await runtime.run(graph, {}, tenant="acme")
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"number": 3}}, by="eve")
    assert (run.status, [one.words for one in run.interrupts]) == ("interrupted", ["which number?"])
    assert "expected an even number" in run.stop_reason
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"number": 4}}, by="eve")
    assert run.status == "succeeded"
