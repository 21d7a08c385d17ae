"""The sum over nodes and attempts of a run is its cost and the provider's true bill, to the nano-USD.

Where the outcome of a call is unknown, the ledger has what was reserved for it, marked so, and no less than the bill.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy, interrupt

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.amounts import Amounts
from bursar.budget.reports.report import GROUPS, Attempt
from bursar.runtime import Runtime, chat_model
from bursar.runtime.runs.run import Run
from bursar.runtime.stop import ModelCallFailed
from bursar.tools import tool
from tests.acceptance.support import QUESTION, Texts, answers, fan_out, model_of, one_call, opened, write_config
from tests.support.bill import Billed
from tests.support.provider import Answer, Behaviour, Fault, FaultKind, TrueProvider

PRICES = {"first": ("0.137", "0.5931"), "second": ("2.718281828", "31.415926535")}
"""USD per million tokens of input and output, as uneven as they may be."""

UNKNOWN: Sequence[FaultKind] = (
    *("billed_drop", "billed_timeout", "html", "empty", "bad_json", "negative_usage", "broken_stream", "drop_before"),
)


@asynccontextmanager
async def a_runtime(folder: Path, provider: TrueProvider, **changes: Any) -> AsyncIterator[Runtime]:
    """A runtime whose tier `small` has both models, the first of them first, and whose tier `large` the second only."""

    async def at_once(_: float) -> None:
        """No pauses between attempts."""

    models = {
        name: model_of(
            provider,
            model=name,
            price={"input_usd_per_mtok": input_price, "output_usd_per_mtok": output_price},
            **changes,
        )
        for name, (input_price, output_price) in PRICES.items()
    }
    tiers = {"small": ["first", "second"], "large": ["second"]}
    async with opened(write_config(folder, models, tiers=tiers), sleep=at_once) as runtime:
        yield runtime


async def test_retries_fallbacks_tools_and_agents_as_tools_add_up_to_the_bill(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    @tool(effect="none")
    def look_up(word: str) -> str:
        """Look a word up, with a model of its own."""
        return str(chat_model("large").invoke(f"What is {word}?").text)

    researcher = Agent(name="researcher", instructions="Look it up.", tools=[look_up], tier="large")
    clerk = Agent(name="clerk", instructions="Answer with what you find.", tools=[look_up, researcher])
    true_provider.behaviour = Behaviour(script=_busy, faults=_first_is_shaky)
    async with a_runtime(tmp_path, true_provider) as runtime:
        run = await runtime.run(clerk, QUESTION, tenant="acme")
        attempts = explained(runtime, run, true_provider)
    assert run.status == "succeeded"
    assert {one.agent for one in attempts} == {"clerk", "researcher"}
    assert {one.model for one in attempts} == {"first", "second", "look_up", "researcher"}
    assert run.steps == true_provider.bill.calls < true_provider.bill.requests
    assert run.spent.tool_calls == 3


def _busy(body: dict[str, Any], calls_before: int) -> Answer:
    """Calls every tool it is offered, once, then answers."""
    spread = answers(seed=5)(body, calls_before)
    offered = [one["function"] for one in body.get("tools", ())]
    if not offered or body["messages"][-1]["role"] == "tool":
        return spread
    calls = [(one["name"], dict.fromkeys(one["parameters"]["required"], "tea")) for one in offered]
    return Answer(tool_calls=calls, output_tokens=spread.output_tokens)


def _first_is_shaky(body: dict[str, Any], requests_before: int) -> Fault | None:
    """The first model answers every fourth request only, and is not billed for the others."""
    if body["model"] == "second" or requests_before % 4 == 3:
        return None
    return Fault("rate_limit") if requests_before % 2 else Fault("server_error", status=503)


async def test_calls_whose_output_was_capped_add_up_to_the_bill(true_provider: TrueProvider, tmp_path: Path) -> None:
    true_provider.behaviour = Behaviour(script=answers(median_tokens=300))
    async with a_runtime(tmp_path, true_provider) as runtime:
        limits = Limits(tokens=900, cost_usd="0.01")
        run = await runtime.run(fan_out(20, "large"), {"question": QUESTION}, tenant="acme", limits=limits)
        attempts = explained(runtime, run, true_provider)
    assert run.status == "stopped"
    assert all(one.capped for one in attempts)


@pytest.mark.parametrize("kind", UNKNOWN)
async def test_a_call_of_unknown_outcome_stays_charged_at_what_was_reserved(
    true_provider: TrueProvider, tmp_path: Path, kind: FaultKind
) -> None:
    true_provider.behaviour = Behaviour(script=answers(), faults=[Fault(kind)])
    async with a_runtime(tmp_path, true_provider, timeout_s=1.5 if kind == "billed_timeout" else 10) as runtime:
        run = await runtime.run(one_call("large"), {"question": QUESTION}, tenant="acme")
        unknown, exact = explained(runtime, run, true_provider)
    *lost, answered = [_true_cost(one) for one in true_provider.bill.entries]
    assert (unknown.outcome, exact.outcome) == ("unknown", "exact")
    assert (unknown.posted, exact.posted.nanousd) == (unknown.held, answered)
    assert run.spent.nanousd - sum(lost) - answered == unknown.held.nanousd - sum(lost) > 0


async def test_a_stream_that_breaks_off_stays_charged_at_what_was_reserved(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    async def node(state: Texts) -> Texts:
        with contextlib.suppress(ModelCallFailed):
            async for _ in chat_model("large").astream(state["question"]):
                pass
        return {"texts": []}

    true_provider.behaviour = Behaviour(faults=[Fault("broken_stream", after_tokens=7)])
    async with a_runtime(tmp_path, true_provider, retries=0) as runtime:
        run = await runtime.run(_graph(node), {"question": QUESTION}, tenant="acme")
        [unknown] = explained(runtime, run, true_provider)
    [billed] = true_provider.bill.entries
    assert (unknown.outcome, unknown.posted, billed.output_tokens) == ("unknown", unknown.held, 7)


async def test_an_answer_without_usage_is_charged_at_what_was_reserved_since_a_model_may_think_out_of_sight(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    thoughtful = Answer(text="Yes.", output_tokens=900)
    true_provider.behaviour = Behaviour(script=[thoughtful], faults=[Fault("no_usage")])
    async with a_runtime(tmp_path, true_provider) as runtime:
        run = await runtime.run(one_call("large"), {"question": QUESTION}, tenant="acme")
        [unknown] = explained(runtime, run, true_provider)
    [billed] = true_provider.bill.entries
    assert (unknown.outcome, unknown.posted, billed.output_tokens) == ("unknown", unknown.held, 900)
    assert run.status == "succeeded"
    assert _true_cost(billed) <= run.spent.nanousd


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_goes_wrong_the_ledger_exceeds_the_bill_by_the_unknown_calls_only(
    true_provider: TrueProvider, tmp_path: Path, seed: int
) -> None:
    """Forty calls side by side; two requests of three meet a fault of any kind."""
    chance = random.Random(seed)
    kinds = get_args(FaultKind)

    def faults(_: dict[str, Any], __: int) -> Fault | None:
        return Fault(chance.choice(kinds)) if chance.random() < 2 / 3 else None

    async def ask(state: Texts) -> Texts:
        with contextlib.suppress(ModelCallFailed):
            await chat_model("small").ainvoke(state["question"])
        return {"texts": []}

    true_provider.behaviour = Behaviour(script=answers(seed=seed), faults=faults)
    async with a_runtime(tmp_path, true_provider, timeout_s=2) as runtime:
        limits = Limits(steps=None, cost_usd=None)
        run = await runtime.run(fan_out(40, node=ask), {"question": QUESTION}, tenant="acme", limits=limits)
        attempts = explained(runtime, run, true_provider)
    assert run.status == "succeeded"
    assert {one.outcome for one in attempts} == {"exact", "unknown", None}


async def _ask_twice(state: Texts) -> list[str]:
    replies = [await chat_model("large").ainvoke(f"{number}. {state['question']}") for number in range(2)]
    return [str(reply.text) for reply in replies]


async def test_what_was_paid_before_a_nodes_retry_is_replayed_for_nothing(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    tries = []

    async def node(state: Texts) -> Texts:
        texts = await _ask_twice(state)
        tries.append(texts)
        if len(tries) < 3:
            raise ConnectionError("the node fails after its calls")
        return {"texts": texts}

    true_provider.behaviour = Behaviour(script=answers())
    retry = RetryPolicy(max_attempts=3, initial_interval=0.001, jitter=False)
    async with a_runtime(tmp_path, true_provider) as runtime:
        run = await runtime.run(_graph(node, retry_policy=retry), {"question": QUESTION}, tenant="acme")
        attempts = explained(runtime, run, true_provider)
    assert (run.status, len(attempts), true_provider.bill.requests) == ("succeeded", 2, 2)
    assert tries == [tries[0]] * 3


async def test_what_was_paid_before_a_failure_or_a_question_is_replayed_for_nothing_on_resume(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    tries = []

    async def node(state: Texts) -> Texts:
        texts = await _ask_twice(state)
        tries.append(texts)
        if len(tries) == 1:
            raise ValueError("the node fails after its calls")
        return {"texts": [*texts, interrupt("more?")]}

    true_provider.behaviour = Behaviour(script=answers())
    async with a_runtime(tmp_path, true_provider) as runtime:
        graph = _graph(node)
        failed = await runtime.run(graph, {"question": QUESTION}, tenant="acme")
        asking = await runtime.resume(failed.id, source=graph)
        run = await runtime.resume(failed.id, {asking.interrupts[0].id: "no"}, source=graph)
        attempts = explained(runtime, run, true_provider)
    assert [one.status for one in (failed, asking, run)] == ["failed", "interrupted", "succeeded"]
    assert failed.cost_usd == asking.cost_usd == run.cost_usd
    assert (len(attempts), true_provider.bill.requests) == (2, 2)
    assert tries == [tries[0]] * 3


def explained(runtime: Runtime, run: Run, provider: TrueProvider) -> Sequence[Attempt]:
    """The run's attempts, after a look at whether they explain every nano-USD of its cost and of the true bill."""
    bill = runtime.ledger.reports.bill(run.id)
    attempts = [one for one in bill.attempts if one.kind == "model"]
    by_node: dict[tuple[str, str], Amounts] = {}
    for one in bill.attempts:
        by_node[one.agent, one.node] = by_node.get((one.agent, one.node), Amounts()) + one.posted
    assert sum(by_node.values(), Amounts()) == bill.posted == run.spent
    assert run.cost_usd == Decimal(run.spent.nanousd).scaleb(-9)
    assert not bill.held
    for group in GROUPS:
        assert sum((line.posted for line in runtime.ledger.reports.spend(group)), Amounts()) == run.spent
    _assert_priced_line_by_line(attempts)

    known = Counter(_as_billed(one) for one in attempts if one.outcome == "exact")
    billed = Counter((one.model, one.input_tokens, one.output_tokens) for one in provider.bill.entries)
    assert known <= billed
    uncertain = sum(one.posted.nanousd for one in attempts if one.outcome == "unknown")
    missing = sum(_cost(PRICES[model], *used) * count for (model, *used), count in (billed - known).items())
    assert run.spent.nanousd - sum(map(_true_cost, provider.bill.entries)) == uncertain - missing >= 0
    assert bill.posted.steps >= provider.bill.calls
    return bill.attempts if len(bill.attempts) > len(attempts) else attempts


def _assert_priced_line_by_line(attempts: Sequence[Attempt]) -> None:
    """What a call cost is the sum of its price row's lines in Decimal, rounded up once."""
    for one in attempts:
        if one.usage is not None and one.price is not None:
            exact = sum((line.usd for line in one.price.explain(one.usage)), Decimal(0))
            assert one.posted.nanousd == math.ceil(exact.scaleb(9))
            assert one.posted.tokens == one.usage.total_tokens


def _as_billed(one: Attempt) -> tuple[str, int, int]:
    assert one.model is not None
    assert one.usage is not None
    return one.model, one.usage.input_tokens, one.usage.output_tokens


def _true_cost(billed: Billed) -> int:
    return billed.nanousd(*PRICES[billed.model])


def _cost(price: tuple[str, str], input_tokens: int, output_tokens: int) -> int:
    usd_per_mtok = input_tokens * Decimal(price[0]) + output_tokens * Decimal(price[1])
    return math.ceil(usd_per_mtok * 1000)


def _graph(node: Any, **options: Any) -> StateGraph[Texts, None, Texts, Texts]:
    graph = StateGraph(Texts)
    graph.add_node("node", node, **options)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph
