"""A rule is asked once; what a person refused is not done, whatever it says later and however often it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent
from bursar.budget.errors import ConflictError
from bursar.runtime import Runtime
from bursar.tools import above, ask_human, tool
from bursar.tools.approval import Approval
from tests.acceptance.support import QUESTION, opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider


@pytest.fixture
async def runtime(tmp_path: Path, true_provider: TrueProvider) -> AsyncIterator[Runtime]:
    async with opened(write_config(tmp_path, true_provider)) as runtime:
        yield runtime


class Desk:
    """An agent that refunds by a rule, what it did, and what the model was told."""

    def __init__(self, provider: TrueProvider, rule: Approval, *turns: list[tuple[str, dict[str, Any]]]) -> None:
        self.turns = turns
        self.paid: list[tuple[str, float]] = []
        self.told: list[str] = []
        provider.behaviour = Behaviour(script=self)

        @tool(effect="irreversible", approval=rule)
        async def refund(order_id: str, amount_usd: float) -> str:
            """Pay an order back."""
            self.paid.append((order_id, amount_usd))
            return f"paid {amount_usd}"

        self.agent = Agent(name="support", instructions="Settle refunds.", tools=[refund, ask_human])

    def __call__(self, body: dict[str, Any], _: int) -> Answer:
        self.told = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        return Answer(tool_calls=self.turns[turn]) if turn < len(self.turns) else Answer(text="Settled.")


def refund_of(amount_usd: float, order_id: str = "1") -> tuple[str, dict[str, Any]]:
    return ("refund", {"order_id": order_id, "amount_usd": amount_usd})


async def test_only_calls_above_the_amount_wait_for_a_person(runtime: Runtime, true_provider: TrueProvider) -> None:
    desk = Desk(true_provider, above("amount_usd", "50"), [refund_of(50, "1"), refund_of(50.01, "2")])
    run = await runtime.run(desk.agent, QUESTION, tenant="acme")
    [asked] = run.interrupts
    assert (asked.payload["args"]["order_id"], desk.paid) == ("2", [("1", 50)])
    run = await runtime.resume(run.id, {asked.id: {"type": "approve"}}, by="dana")
    assert (run.status, desk.paid) == ("succeeded", [("1", 50), ("2", 50.01)])


@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_a_rule_is_asked_once_for_each_call_and_never_when_the_run_goes_on(
    decision: str, runtime: Runtime, true_provider: TrueProvider
) -> None:
    """One whose answer flips would else turn a rejection into an execution."""
    asked: list[bool] = []

    def flips(_: Mapping[str, Any]) -> bool:
        asked.append(not asked)
        return asked[-1]

    desk = Desk(true_provider, flips, [refund_of(60)])
    run = await runtime.run(desk.agent, QUESTION, tenant="acme")
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": decision}}, by="dana")
    assert run.status == "succeeded"
    assert len(asked) == 1
    assert len(desk.paid) == (decision == "approve")


async def test_the_same_call_is_not_asked_for_again_after_a_rejection(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Another one is. The order of the arguments makes no other call of it."""
    again = ("refund", {"amount_usd": 60, "order_id": "1"})
    desk = Desk(true_provider, "always", [refund_of(60)], [again], [refund_of(10)])
    run = await runtime.run(desk.agent, QUESTION, tenant="acme")
    no = {"type": "reject", "message": "too much"}
    run = await runtime.resume(run.id, {run.interrupts[0].id: no}, by="dana")
    [asked] = run.interrupts
    assert asked.payload["args"]["amount_usd"] == 10
    run = await runtime.resume(run.id, {asked.id: {"type": "approve"}}, by="dana")
    assert (run.status, desk.paid) == ("succeeded", [("1", 10)])
    assert all("too much" in told for told in desk.told[:2])
    assert "nobody is asked again" in desk.told[1]


@pytest.mark.parametrize("decision", [{"type": "approve"}, {"type": "edit", "args": refund_of(5)[1]}])
async def test_a_decision_on_a_tool_that_is_gone_does_nothing(
    decision: dict[str, Any], runtime: Runtime, true_provider: TrueProvider
) -> None:
    """The agent was changed while it waited. Who decides is told; or, where its code is not known there, the model."""
    desk = Desk(true_provider, "always", [refund_of(60)])
    run = await runtime.run(desk.agent, QUESTION, tenant="acme")
    [asked] = run.interrupts
    without = Agent(name="support", instructions="Settle refunds.", tools=[ask_human])
    with pytest.raises(ConflictError, match="has no tool refund any more"):
        await runtime.resume(run.id, {asked.id: decision}, by="dana", source=without)
    async with Runtime.open(runtime.config) as elsewhere:
        [open_] = await elsewhere.escalations.ls(run_id=run.id)
        await elsewhere.escalations.decide(open_.id, decision, by="dana")
        run = await elsewhere.resume(run.id, source=without)
    assert (run.status, desk.paid) == ("succeeded", [])
    assert "there is no tool 'refund'" in desk.told[0]


async def test_a_decision_on_a_tool_whose_name_an_agent_has_now_does_nothing(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    desk = Desk(true_provider, "always", [("refund", {"task": "Refund all."})])

    @tool(name="refund")
    def before(task: str) -> str:
        """Refund."""
        raise AssertionError("it must not be called")

    run = await runtime.run(Agent(name="support", instructions="-", tools=[before]), QUESTION, tenant="acme")
    now = Agent(name="support", instructions="-", tools=[Agent(name="refund", instructions="Refund.")])
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "approve"}}, by="dana", source=now)
    assert (run.status, run.steps) == ("succeeded", 2)
    assert "there is no tool 'refund'" in desk.told[0]


async def test_a_decision_on_a_tool_whose_parameters_changed_does_nothing(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    desk = Desk(true_provider, "always", [refund_of(60)])
    run = await runtime.run(desk.agent, QUESTION, tenant="acme")

    @tool(name="refund")
    def other(order_id: str) -> str:
        """Pay an order back in full."""
        raise AssertionError("it must not be called")

    changed = Agent(name="support", instructions="Settle refunds.", tools=[other])
    [asked] = run.interrupts
    run = await runtime.resume(run.id, {asked.id: {"type": "approve"}}, by="dana", source=changed)
    assert (run.status, desk.paid) == ("succeeded", [])
    assert "were refused" in desk.told[0]


async def test_an_agent_used_as_a_tool_is_not_let_ask_again_either(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    """Nor is the next one, nor the agent above: what was refused is refused in this run."""
    desk = Desk(true_provider, "always")
    manager = Agent(name="manager", instructions="Delegate.", tools=[desk.agent, *desk.agent.tools])

    def script(body: dict[str, Any], _: int) -> Answer:
        said = [message for message in body["messages"] if message["role"] == "assistant"]
        if body["messages"][0]["content"] == "Delegate.":
            turns = [("support", {"task": "Refund."}), ("support", {"task": "Do."}), refund_of(60)]
            desk.told = [message["content"] for message in body["messages"] if message["role"] == "tool"]
            return Answer(tool_calls=[turns[len(said)]]) if len(said) < 3 else Answer(text="Settled.")
        return Answer(text=body["messages"][-1]["content"]) if said else Answer(tool_calls=[refund_of(60)])

    true_provider.behaviour = Behaviour(script=script)
    run = await runtime.run(manager, QUESTION, tenant="acme")
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "reject", "message": "no"}}, by="dana")
    assert (run.status, desk.paid) == ("succeeded", [])
    assert ["nobody is asked again" in told for told in desk.told] == [False, True, True]


async def test_a_person_answers_what_the_agent_asks(runtime: Runtime, true_provider: TrueProvider) -> None:
    """For one tool call; the answer is its result."""
    question = {"question": "Blue or red?", "choices": ["blue", "red"]}
    desk = Desk(true_provider, "always", [("ask_human", question)])
    run = await runtime.run(desk.agent, QUESTION, tenant="acme")
    [asked] = run.interrupts
    assert (asked.reason, asked.words) == ("question", "Blue or red?")
    run = await runtime.resume(run.id, {asked.id: {"type": "respond", "message": "red"}}, by="dana")
    assert (run.status, desk.told, run.spent.tool_calls) == ("succeeded", ["red"], 1)


async def test_nobody_has_to_answer(runtime: Runtime, true_provider: TrueProvider) -> None:
    desk = Desk(true_provider, "always", [("ask_human", {"question": "Why?"})])
    run = await runtime.run(desk.agent, QUESTION, tenant="acme")
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "reject", "message": "look it up"}}, by="dana")
    assert run.status == "succeeded"
    assert "look it up" in desk.told[0]
