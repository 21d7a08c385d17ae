"""Where much fails, or an answer is doubtful, a person is asked, once; what they say is what happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent, Escalate, Judge
from bursar.runtime import Runtime
from bursar.tools import tool
from tests.acceptance.support import QUESTION, opened, write_config
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

Script = Callable[[dict[str, Any], int], Answer]


@pytest.fixture
async def runtime(tmp_path: Path, true_provider: TrueProvider) -> AsyncIterator[Runtime]:
    async with opened(write_config(tmp_path, true_provider)) as runtime:
        yield runtime


@tool(effect="none")
def look(place: int) -> str:
    """Look."""
    raise ValueError(f"nothing at {place}")


def clerk(escalate: Escalate) -> Agent:
    return Agent(name="clerk", instructions="Answer.", tools=[look], escalate=escalate)


def looks_on(body: dict[str, Any], _: int) -> Answer:
    """Looks somewhere else each time, until it is told to stop."""
    said = [message["content"] for message in body["messages"] if message["role"] == "user"]
    if "stop looking" in said:
        return Answer(text="It is nowhere.")
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    return Answer(tool_calls=[("look", {"place": turn})])


async def test_after_so_many_failures_in_a_row_a_person_is_asked(runtime: Runtime, true_provider: TrueProvider) -> None:
    """The advice goes to the model, and the next failures are counted anew."""
    true_provider.behaviour = Behaviour(script=looks_on)
    run = await runtime.run(clerk(Escalate(failures=3)), QUESTION, tenant="acme")
    [asked] = run.interrupts
    assert (asked.reason, run.steps) == ("failures", 3)
    assert [f"nothing at {place}" in asked.payload["failures"][place] for place in range(3)] == [True] * 3
    run = await runtime.resume(run.id, {asked.id: {"type": "approve"}}, by="dana")
    [asked] = run.interrupts
    assert run.steps == 6
    run = await runtime.resume(run.id, {asked.id: {"type": "respond", "message": "stop looking"}}, by="dana")
    assert (run.status, run.output, run.steps) == ("succeeded", "It is nowhere.", 7)


async def test_a_person_may_end_what_fails(runtime: Runtime, true_provider: TrueProvider) -> None:
    true_provider.behaviour = Behaviour(script=looks_on)
    run = await runtime.run(clerk(Escalate(failures=2)), QUESTION, tenant="acme")
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "stop"}}, by="dana")
    assert (run.status, run.steps) == ("stopped", 2)
    assert "a person stopped it" in run.stop_reason


async def test_a_call_that_works_ends_the_row(runtime: Runtime, true_provider: TrueProvider) -> None:
    """Two failures, a success, and two failures are no three in a row."""
    places = iter([0, 0, 1, 0, 0])

    @tool(effect="none", name="look")
    def sometimes() -> str:
        """Look."""
        if next(places):
            return "found"
        raise ValueError("nothing")

    def script(body: dict[str, Any], calls_before: int) -> Answer:
        return Answer(tool_calls=[("look", {})]) if calls_before < 5 else Answer(text="Found.")

    true_provider.behaviour = Behaviour(script=script)
    agent = Agent(name="clerk", instructions="Answer.", tools=[sometimes], escalate=Escalate(failures=3))
    run = await runtime.run(agent, QUESTION, tenant="acme")
    assert (run.status, run.output) == ("succeeded", "Found.")


async def test_a_model_that_fails_again_and_again_is_a_matter_for_a_person(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(faults=lambda *_: Fault("bad_request"))
    run = await runtime.run(clerk(Escalate(failures=2)), QUESTION, tenant="acme")
    [asked] = run.interrupts
    assert (asked.reason, len(asked.payload["failures"])) == ("failures", 2)
    assert "model calls" in asked.words
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="Here I am."))
    run = await runtime.resume(run.id, {asked.id: {"type": "approve"}}, by="dana")
    assert (run.status, run.output) == ("succeeded", "Here I am.")


def drafts(body: dict[str, Any], _: int) -> Answer:
    """Its first answer is a guess; a better one comes when it is told why."""
    if not body.get("tools"):
        return Answer(text="no")  # the judge
    return Answer(text="It is in Paris." if "look again" in str(body["messages"][-1]) else "I guess Rome.")


def certain(answer: Mapping[str, Any]) -> bool:
    return "guess" not in answer["content"]


@pytest.mark.parametrize("verify", [certain, Judge(), lambda _: 1 / 0])
@pytest.mark.parametrize(
    ("decision", "output"),
    [
        ({"type": "approve"}, "I guess Rome."),
        ({"type": "respond", "message": "It is in Oslo."}, "It is in Oslo."),
    ],
)
async def test_a_person_decides_on_an_answer_that_is_not_accepted(
    decision: dict[str, Any], output: str, verify: Any, runtime: Runtime, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=drafts)
    run = await runtime.run(clerk(Escalate(verify=verify)), QUESTION, tenant="acme")
    [asked] = run.interrupts
    assert (asked.reason, asked.payload["answer"]) == ("doubt", "I guess Rome.")
    calls = true_provider.bill.calls
    run = await runtime.resume(run.id, {asked.id: decision}, by="dana")
    assert (run.status, run.output) == ("succeeded", output)
    assert true_provider.bill.calls == calls


async def test_a_rejected_answer_is_given_anew_and_verified_anew(runtime: Runtime, true_provider: TrueProvider) -> None:
    verified: list[str] = []

    def verify(answer: Mapping[str, Any]) -> bool:
        verified.append(answer["content"])
        return certain(answer)

    true_provider.behaviour = Behaviour(script=drafts)
    run = await runtime.run(clerk(Escalate(verify=verify)), QUESTION, tenant="acme")
    rejection = {"type": "reject", "message": "look again"}
    run = await runtime.resume(run.id, {run.interrupts[0].id: rejection}, by="dana")
    assert (run.status, run.output) == ("succeeded", "It is in Paris.")
    assert verified == ["I guess Rome.", "It is in Paris."]


async def test_an_answer_that_is_accepted_goes_to_nobody(runtime: Runtime, true_provider: TrueProvider) -> None:
    true_provider.behaviour = Behaviour(script=lambda *_: Answer(text="It is in Paris."))
    run = await runtime.run(clerk(Escalate(verify=certain)), QUESTION, tenant="acme")
    assert (run.status, run.steps) == ("succeeded", 1)
