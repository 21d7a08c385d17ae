"""A cascade asks the cheap tier first, verifies, climbs where it must, and is left where it does not pay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph

from bursar.agents import Agent, Cascade, Judge
from bursar.agents.tier import Accept
from bursar.budget import Limits
from bursar.budget.errors import UsageError
from bursar.runtime import Runtime, chat_model
from bursar.runtime.runs.cascades import Cascades
from bursar.tools import tool
from tests.acceptance.support import QUESTION, Texts, charged, model_of, opened, reasons, write_config
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "reply", "schema": {"type": "object", "required": ["days"], "additionalProperties": False,
                                                "properties": {"days": {"type": "integer"}}}},
}  # fmt: skip
Script = Callable[[Mapping[str, Any]], Answer]


def says(**of: Answer) -> Callable[[dict[str, Any], int], Answer]:
    """A provider that answers by the model that is asked."""
    return lambda body, _: of[body["model"]]


@pytest.fixture
async def runtime(true_provider: TrueProvider, tmp_path: Path) -> AsyncIterator[Runtime]:
    models = {
        "cheap": model_of(true_provider, model="cheap", price={"input_usd_per_mtok": "1", "output_usd_per_mtok": "1"}),
        "strong": model_of(true_provider, model="strong"),
        "judge": model_of(true_provider, model="judge"),
    }
    tiers = {"small": ["cheap"], "middle": ["judge"], "frontier": ["strong"]}
    async with opened(write_config(tmp_path, models, tiers=tiers)) as runtime:
        yield runtime


def graph(accept: Accept, **asked: Any) -> StateGraph[Texts, None, Texts, Texts]:
    model = chat_model(Cascade("small", "frontier", accept=accept), max_output_tokens=200).bind(**asked)

    async def ask(state: Texts) -> Texts:
        answer = await model.ainvoke(state["question"])
        return {"texts": [str(answer.text)]}

    made = StateGraph(Texts)
    made.add_node("ask", ask)
    made.add_edge(START, "ask")
    made.add_edge("ask", END)
    return made


def asked(provider: TrueProvider) -> list[str]:
    return [entry.model for entry in provider.bill.entries]


async def test_an_answer_that_obeys_the_schema_is_accepted_and_nobody_else_is_asked(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    true_provider.reset(Behaviour(script=says(cheap=Answer(text='{"days": 3}'))))
    run = await runtime.run(graph("schema", response_format=SCHEMA), {"question": QUESTION}, tenant="acme")
    assert (run.value["texts"], asked(true_provider)) == (['{"days": 3}'], ["cheap"])


async def test_an_answer_off_the_schema_is_shown_to_the_stronger_model_with_what_is_wrong(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    seen: list[Mapping[str, Any]] = []

    def script(body: dict[str, Any], _: int) -> Answer:
        seen.append(body)
        return Answer(text='{"days": "three"}' if body["model"] == "cheap" else '{"days": 3}')

    true_provider.reset(Behaviour(script=script))
    run = await runtime.run(graph("schema", response_format=SCHEMA), {"question": QUESTION}, tenant="acme")
    assert (run.value["texts"], asked(true_provider)) == (['{"days": 3}'], ["cheap", "strong"])
    first, second = (body["messages"] for body in seen)
    assert second[: len(first)] == first
    assert reasons(runtime, run.id) == [
        ("small", "cascade: try 1 of the first 20; first of tier small"),
        ("frontier", "cascade: small's answer was not accepted (schema); first of tier frontier"),
    ]
    assert second[len(first)] == {"role": "assistant", "content": '{"days": "three"}'}
    assert "$.days: 'three' is not of type 'integer'" in second[-1]["content"]


async def test_a_judge_is_a_paid_call_that_says_yes_or_no(runtime: Runtime, true_provider: TrueProvider) -> None:
    judge = Judge(tier="middle", question="Is it polite?")
    said = {"cheap": Answer(text="Go away."), "strong": Answer(text="Please wait."), "judge": Answer(text="No.")}
    true_provider.reset(Behaviour(script=says(**said)))
    run = await runtime.run(graph(judge), {"question": QUESTION}, tenant="acme")
    assert (run.value["texts"], asked(true_provider)) == (["Please wait."], ["cheap", "judge", "strong"])
    assert run.spent.steps == 3
    true_provider.reset(Behaviour(script=says(**said | {"judge": Answer(text="Yes")})))
    run = await runtime.run(graph(judge), {"question": QUESTION}, tenant="acme")
    assert (run.value["texts"], asked(true_provider)) == (["Go away."], ["cheap", "judge"])


async def test_a_judge_has_room_to_think_before_it_says_yes(runtime: Runtime, true_provider: TrueProvider) -> None:
    said = {"cheap": Answer(text="Please wait."), "judge": Answer(text="Yes", output_tokens=500)}
    true_provider.reset(Behaviour(script=says(**said)))
    run = await runtime.run(graph(Judge(tier="middle")), {"question": QUESTION}, tenant="acme")
    assert (run.value["texts"], asked(true_provider)) == (["Please wait."], ["cheap", "judge"])


async def test_a_function_of_the_teams_own_may_verify(runtime: Runtime, true_provider: TrueProvider) -> None:
    true_provider.reset(Behaviour(script=says(cheap=Answer(text="maybe"), strong=Answer(text="surely"))))
    run = await runtime.run(
        graph(lambda message: "surely" in message["content"]), {"question": QUESTION}, tenant="acme"
    )
    assert (run.value["texts"], asked(true_provider)) == (["surely"], ["cheap", "strong"])


async def test_an_answer_that_was_cut_off_is_never_accepted(runtime: Runtime, true_provider: TrueProvider) -> None:
    true_provider.reset(Behaviour(script=says(cheap=Answer(output_tokens=300), strong=Answer(text="short"))))
    run = await runtime.run(graph(lambda _: True), {"question": QUESTION}, tenant="acme")
    assert run.value["texts"] == ["short"]


async def test_a_check_of_a_schema_needs_one(runtime: Runtime, true_provider: TrueProvider) -> None:
    run = await runtime.run(graph("schema"), {"question": QUESTION}, tenant="acme")
    assert run.status == "failed"
    assert isinstance(run.error, UsageError)
    assert "response_format" in run.stop_reason


@tool(effect="none")
def find_order(order_id: int) -> str:
    """Look an order up."""
    return f"order {order_id} was delivered"


async def test_an_agents_tool_call_that_does_not_fit_is_not_made_and_the_stronger_tier_keeps_the_exchange(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    agent = Agent(
        name="clerk", instructions="Help.", tools=[find_order], tier=Cascade("small", "frontier", accept="tools")
    )
    call = ("find_order", {"order_id": 1001})

    def script(body: dict[str, Any], _: int) -> Answer:
        if body["messages"][-1]["role"] == "tool":
            return Answer(text="It was delivered.")
        return Answer(tool_calls=[("find_order", "{}") if body["model"] == "cheap" else call])

    true_provider.reset(Behaviour(script=script))
    run = await runtime.run(agent, "Where is order 1001?", tenant="acme")
    assert (run.output, asked(true_provider)) == ("It was delivered.", ["cheap", "strong", "strong"])


async def test_nothing_of_an_answer_is_passed_on_before_it_is_accepted(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    heard: list[str] = []
    model = chat_model(Cascade("small", "frontier", accept=lambda message: "good" in message["content"]))

    async def ask(state: Texts) -> Texts:
        heard.extend([str(chunk.text) async for chunk in model.astream(state["question"])])
        return {"texts": heard}

    made = StateGraph(Texts)
    made.add_node("ask", ask)
    made.add_edge(START, "ask")
    made.add_edge("ask", END)
    true_provider.reset(Behaviour(script=says(cheap=Answer(text="a bad one"), strong=Answer(text="a good one"))))
    await runtime.run(made, {"question": QUESTION}, tenant="acme")
    assert "".join(heard) == "a good one"
    heard.clear()
    true_provider.reset(Behaviour(script=says(cheap=Answer(text="good at once"), strong=Answer(text="never"))))
    await runtime.run(made, {"question": QUESTION}, tenant="acme")
    assert "".join(heard) == "good at once"


async def test_a_cascade_that_does_not_pay_goes_straight_to_the_stronger_tier_and_says_so(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    true_provider.reset(Behaviour(script=says(cheap=Answer(text="no", output_tokens=150), strong=Answer(text="yes"))))
    refuse = graph(lambda _: False)
    for _ in range(24):
        await runtime.run(refuse, {"question": QUESTION}, tenant="acme")
    [tally] = Cascades(runtime.ledger.store).ls("acme").values()
    assert (tally.accepted, tally.tried + tally.straight) == (0, 24)
    assert 20 <= tally.tried <= 22
    assert tally.saved_nanousd == -tally.first_nanousd < 0
    assert tally.first_nanousd + tally.then_nanousd == sum(
        entry.nanousd("1", "1" if entry.model == "cheap" else "100") for entry in true_provider.bill.entries
    )


async def test_a_cascade_spends_within_the_runs_limit(runtime: Runtime, true_provider: TrueProvider) -> None:
    true_provider.reset(Behaviour(script=says(cheap=Answer(text="no"), strong=Answer(text="yes"))))
    run = await runtime.run(graph(lambda _: False), {"question": QUESTION}, tenant="acme", limits=Limits(steps=1))
    assert (run.status, asked(true_provider)) == ("stopped", ["cheap"])
    assert charged(true_provider.bill) > 0


async def test_a_cascade_that_is_run_again_pays_for_nothing_twice(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    died: list[bool] = []

    def dies_once(message: Mapping[str, Any]) -> bool:
        if not died:
            died.append(True)
            raise RuntimeError("the process dies here")
        return "yes" in message["content"]

    true_provider.reset(Behaviour(script=says(cheap=Answer(text="no"), strong=Answer(text="yes"))))
    run = await runtime.run(graph(dies_once), {"question": QUESTION}, tenant="acme")
    assert (run.status, asked(true_provider)) == ("failed", ["cheap"])
    run = await runtime.resume(run.id)
    assert (run.status, run.value["texts"], asked(true_provider)) == ("succeeded", ["yes"], ["cheap", "strong"])
    assert run.spent.nanousd == sum(
        entry.nanousd("1", "1" if entry.model == "cheap" else "100") for entry in true_provider.bill.entries
    )


async def test_a_cheap_tier_that_fails_leaves_the_call_to_the_stronger_one(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    def faults(body: dict[str, Any], _: int) -> Fault | None:
        return Fault("unauthorized") if body["model"] == "cheap" else None

    true_provider.reset(Behaviour(script=says(strong=Answer(text="yes")), faults=faults))
    run = await runtime.run(graph(lambda _: True), {"question": QUESTION}, tenant="acme")
    assert run.value["texts"] == ["yes"]


async def test_an_answer_that_its_judge_could_not_check_is_not_accepted(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    def faults(body: dict[str, Any], _: int) -> Fault | None:
        return Fault("unauthorized") if body["model"] == "judge" else None

    said = {"cheap": Answer(text="Go away."), "strong": Answer(text="Please wait.")}
    true_provider.reset(Behaviour(script=says(**said), faults=faults))
    run = await runtime.run(graph(Judge(tier="middle")), {"question": QUESTION}, tenant="acme")
    assert (run.status, run.value["texts"]) == ("succeeded", ["Please wait."])
