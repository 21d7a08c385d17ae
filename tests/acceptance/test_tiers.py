"""Who answers a call: by tier, by what is left and allowed, by who is free, and by who wrote the conversation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from bursar.agents import Agent, Cascade
from bursar.budget import Limits
from bursar.budget.errors import UsageError
from bursar.budget.scope import Scope
from bursar.runtime import chat_model
from bursar.runtime.ask import Ask
from bursar.runtime.routing.classifier import Verdict
from bursar.tools import tool
from tests.acceptance.support import QUESTION, fan_out, model_of, opened, reasons, write_config
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

FREE = {"price": "free"}
CHEAP = {"price": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "10"}}
TIERS = {"local": ["llama"], "small": ["mini"], "frontier": ["big"]}


def house(provider: TrueProvider, **of: Mapping[str, Any]) -> dict[str, Any]:
    """llama is free, mini cheap, big dear: 10 tokens of its output are a tenth of a cent."""
    changes: dict[str, Mapping[str, Any]] = {"llama": FREE, "mini": CHEAP, "big": {}}
    return {name: model_of(provider, model=name, **{**changes[name], **of.get(name, {})}) for name in changes}


def asked(provider: TrueProvider) -> list[str]:
    return [entry.model for entry in provider.bill.entries]


def clerk(**settings: Any) -> Agent:
    return Agent(**{"name": "clerk", "instructions": "Help.", "max_output_tokens": 200, **settings})


async def test_where_the_money_is_gone_a_free_model_of_a_lower_tier_still_answers(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    config = write_config(tmp_path, house(true_provider), tiers=TIERS)
    async with opened(config) as runtime:
        limits = Limits(cost_usd="0")
        run = await runtime.run(clerk(tier="frontier"), QUESTION, tenant="acme", limits=limits, on_limit="downgrade")
        assert (run.status, asked(true_provider), run.spent.nanousd) == ("succeeded", ["llama"], 0)
        assert reasons(runtime, run.id) == [("local", "no money left for frontier; first of tier local")]
        stopped = await runtime.run(clerk(tier="frontier"), QUESTION, tenant="acme", limits=limits)
        assert (stopped.status, asked(true_provider)) == ("stopped", ["llama"])


async def test_a_node_may_forbid_that_a_lower_tier_answers(true_provider: TrueProvider, tmp_path: Path) -> None:
    config = write_config(tmp_path, house(true_provider), tiers=TIERS)
    async with opened(config) as runtime:
        run = await runtime.run(
            clerk(tier="frontier", min_tier="small"),
            QUESTION,
            tenant="acme",
            limits=Limits(cost_usd="0"),
            on_limit="downgrade",
        )
        assert (run.status, asked(true_provider)) == ("stopped", [])
        with pytest.raises(UsageError, match="tier small is below its min_tier frontier"):
            await runtime.run(clerk(tier="small", min_tier="frontier"), QUESTION, tenant="acme")


async def test_a_free_model_answers_when_all_of_the_budget_is_spent(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    """Also where the last call has spent the budget to the nano-dollar."""
    config = write_config(tmp_path, house(true_provider), tiers={"small": ["mini", "llama"]})
    true_provider.reset(Behaviour(script=lambda _, __: Answer(text="Sorry.")))
    async with opened(config) as runtime:
        first = await runtime.run(clerk(), QUESTION, tenant="acme")
        runtime.ledger.budgets.set("acme", limit={"nanousd": first.spent.nanousd}, author="dana")
        run = await runtime.run(clerk(), QUESTION, tenant="acme")
        assert (run.status, asked(true_provider)) == ("succeeded", ["mini", "llama"])


async def test_a_falling_budget_leads_a_tenants_calls_down_its_ladder(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    ladder = [{"below_percent": 60, "tier": "small"}, {"below_percent": 54, "tier": "local"}]
    acme = {"budgets": [{"usd": "0.10"}], "downgrade": ladder}
    config = write_config(tmp_path, house(true_provider), tiers=TIERS, tenants={"acme": acme})
    true_provider.reset(Behaviour(script=lambda _, __: Answer(output_tokens=150)))
    async with opened(config) as runtime:
        runs = [await runtime.run(clerk(tier="frontier"), QUESTION, tenant="acme") for _ in range(8)]
        assert {run.status for run in runs} == {"succeeded"}
        models = asked(true_provider)
        assert models == sorted(models, key=["big", "mini", "llama"].index)
        assert set(models) == {"big", "mini", "llama"}
        [(tier, why)] = reasons(runtime, runs[models.index("mini")].id)
        assert tier == "small"
        assert why is not None
        assert why.startswith("acme's ladder, ")
        assert why.endswith(" % of $0.10 left (frontier asked); first of tier small")
    async with opened(config) as runtime:  # and a new process knows it at once
        await runtime.run(clerk(tier="frontier"), QUESTION, tenant="acme")
        assert asked(true_provider)[-1] == "llama"


async def test_a_full_model_spills_to_the_next_and_where_there_is_none_calls_wait(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    models = house(true_provider, llama={"slots": 1})
    true_provider.reset(Behaviour(latency_s=0.1))
    config = write_config(tmp_path, models, tiers={"small": ["llama", "mini"], "alone": ["llama"]})
    async with opened(config) as runtime:
        run = await runtime.run(fan_out(3), {"question": QUESTION}, tenant="acme")
        assert sorted(asked(true_provider)) == ["llama", "mini", "mini"]
        assert ("small", "llama busy (1 of 1 slots), next of tier small") in reasons(runtime, run.id)
        true_provider.reset(Behaviour(latency_s=0.05))
        run = await runtime.run(fan_out(4, "alone"), {"question": QUESTION}, tenant="acme")
        assert (run.status, asked(true_provider)) == ("succeeded", ["llama"] * 4)
        assert true_provider.bill.in_flight_max == 1


async def test_a_call_that_waits_for_a_slot_is_given_up_with_its_run(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    models = house(true_provider, llama={"slots": 1})
    true_provider.reset(Behaviour(latency_s=30))
    config = write_config(tmp_path, models, tiers={"small": ["llama"]})
    async with opened(config) as runtime:
        first = asyncio.create_task(runtime.run(clerk(), QUESTION, tenant="acme"))
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 1)
        run = await runtime.run(clerk(), QUESTION, tenant="acme", limits=Limits(seconds=1))
        assert (run.status, run.spent.nanousd) == ("stopped", 0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_what_may_not_leave_the_house_is_sent_to_no_model_outside_it(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    models = house(true_provider, mini={"local": False}, big={"local": False})
    config = write_config(tmp_path, models, tiers=TIERS)
    async with opened(config) as runtime:
        run = await runtime.run(clerk(tier="frontier", data="local_only"), QUESTION, tenant="acme")
        assert (run.status, asked(true_provider)) == ("failed", [])
        assert "no model of tier frontier answered: big is not local" in run.stop_reason
        run = await runtime.run(clerk(tier="local", data="local_only"), QUESTION, tenant="acme")
        assert (run.status, asked(true_provider)) == ("succeeded", ["llama"])


@tool(effect="none")
def find_order(order_id: int) -> str:
    """Look an order up."""
    return f"order {order_id} was delivered"


class Restless:
    """Wants another tier with each call."""

    digest = "0" * 16

    def __init__(self, _: Path) -> None:
        self._calls = 0

    def classify(self, messages: Any) -> Verdict:
        self._calls += 1
        tier = ("small", "frontier", None)[self._calls % 3 - 1]
        return Verdict(tier=tier, confidence=0.9 if tier else 0.0, reason=f"auto: {tier or 'no evidence'}")


async def test_auto_asks_the_classifier_but_not_in_a_tool_exchange_and_the_state_says_who_wrote_what(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    auto = {"incumbent": "frontier", "classifier": f"{__name__}:Restless"}
    config = write_config(tmp_path, house(true_provider), tiers=TIERS, auto=auto)
    sent: list[Mapping[str, Any]] = []

    def script(body: dict[str, Any], _: int) -> Answer:
        sent.append(body)
        if body["messages"][-1]["role"] == "tool":
            return Answer(text="It was delivered.")
        return Answer(tool_calls=[("find_order", {"order_id": 1001})])

    true_provider.reset(Behaviour(script=script))
    async with opened(config) as runtime:
        agent = clerk(tier="auto", tools=[find_order])
        runs = [await runtime.run(agent, QUESTION, tenant="acme") for _ in range(3)]
    assert asked(true_provider) == ["mini", "mini", "big", "big", "big", "big"]
    assert [message.get("model") for message in runs[0].value["messages"]] == [None, "mini", None, "mini"]
    assert not any("model" in message for body in sent for message in body["messages"])


async def test_what_an_agent_asks_for_is_checked_before_anything_is_spent(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    config = write_config(tmp_path, house(true_provider), tiers=TIERS)
    wrong = {
        "there is no tier 'smal'": clerk(tier=Cascade("smal", "frontier", accept="tools")),
        "leads down from frontier to small": clerk(tier=Cascade("frontier", "small", accept="tools")),
        "there is no model 'lama'": clerk(models=["lama"]),
        r"none of its models \(big\) stands in tier small": clerk(models=["big"]),
        "bursar.yaml has no section auto": clerk(tier="auto"),
        "there is no tier 'middle'": clerk(min_tier="middle"),
    }
    async with opened(config) as runtime:
        for words, agent in wrong.items():
            with pytest.raises(UsageError, match=words):
                await runtime.run(agent, QUESTION, tenant="acme")
    assert asked(true_provider) == []


async def test_a_tool_exchange_waits_for_the_slot_of_its_own_model(true_provider: TrueProvider, tmp_path: Path) -> None:
    """Four agents on a model with one slot: whoever begins on it ends on it, whoever spills stays where it went."""
    models = house(true_provider, llama={"slots": 1})
    config = write_config(tmp_path, models, tiers={"small": ["llama", "mini"]})

    def script(body: dict[str, Any], _: int) -> Answer:
        turns = sum(message["role"] == "tool" for message in body["messages"])
        return Answer(text="done") if turns == 3 else Answer(tool_calls=[("find_order", {"order_id": turns})])

    true_provider.reset(Behaviour(script=script, latency_s=0.02))
    async with opened(config) as runtime:
        agent = clerk(tools=[find_order])
        runs = await asyncio.gather(*(runtime.run(agent, QUESTION, tenant="acme") for _ in range(4)))
    written = [{message.get("model") for message in run.value["messages"]} - {None} for run in runs]
    assert [len(models) for models in written] == [1] * 4, written
    assert {"llama"} in written


async def test_an_exchange_goes_on_elsewhere_where_its_model_fails_and_the_reason_says_so(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    config = write_config(tmp_path, house(true_provider, llama={"retries": 0}), tiers={"small": ["llama", "mini"]})

    def script(body: dict[str, Any], _: int) -> Answer:
        is_last = body["messages"][-1]["role"] == "tool"
        return Answer(text="done") if is_last else Answer(tool_calls=[("find_order", {"order_id": 1})])

    def faults(body: dict[str, Any], _: int) -> Fault | None:
        fails = body["model"] == "llama" and body["messages"][-1]["role"] == "tool"
        return Fault("server_error", status=503) if fails else None

    true_provider.reset(Behaviour(script=script, faults=faults))
    async with opened(config) as runtime:
        run = await runtime.run(clerk(tools=[find_order]), QUESTION, tenant="acme")
        assert (run.status, asked(true_provider)) == ("succeeded", ["llama", "mini"])
        tier, why = reasons(runtime, run.id)[-1]
        assert tier == "small"
        assert why is not None
        assert why.startswith("after llama, next of tier small; llama: ")


async def test_a_graph_of_ones_own_keeps_its_exchanges_with_the_model_that_called(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    """The messages are LangChain's, and say in their metadata who wrote them."""
    models = house(true_provider, llama={"slots": 1})
    config = write_config(tmp_path, models, tiers={"small": ["llama", "mini"]})
    sent: list[Mapping[str, Any]] = []

    def script(body: dict[str, Any], _: int) -> Answer:
        sent.append(body)
        is_last = body["messages"][-1]["role"] == "tool"
        return Answer(text="done") if is_last else Answer(tool_calls=[("find_order", {"order_id": 1})])

    model = chat_model("small", data="local_only").bind_tools([dict(find_order.spec)])

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def act(state: MessagesState) -> dict[str, Any]:
        last = state["messages"][-1]
        assert isinstance(last, AIMessage)
        assert last.response_metadata["tier"] == "small"
        last.response_metadata["model_name"] = "mini"  # as if llama had been full
        return {"messages": [last, ToolMessage("delivered", tool_call_id=last.tool_calls[0]["id"] or "")]}

    made = StateGraph(MessagesState)
    made.add_node("ask", ask)
    made.add_node("act", act)
    made.add_node("answer", ask)
    made.add_edge(START, "ask")
    made.add_edge("ask", "act")
    made.add_edge("act", "answer")
    made.add_edge("answer", END)
    true_provider.reset(Behaviour(script=script))
    async with opened(config) as runtime:
        run = await runtime.run(made, {"messages": [("user", QUESTION)]}, tenant="acme")
        assert (run.status, asked(true_provider)) == ("succeeded", ["llama", "mini"])
        assert reasons(runtime, run.id)[-1] == ("small", "stays on mini, which called the tools")
        assert run.value["messages"][-1].response_metadata["reason"] == "stays on mini, which called the tools"
    assert not any("model" in message for body in sent for message in body["messages"])


async def test_what_auto_is_asked_is_kept_to_be_labelled_only_where_a_file_is_named(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    for log in (None, "log.jsonl"):
        auto = {"incumbent": "small"} | ({"log": log} if log else {})
        config = write_config(tmp_path, house(true_provider), tiers=TIERS, auto=auto)
        async with opened(config) as runtime:
            run = await runtime.run(clerk(tier="auto"), QUESTION, tenant="acme")
            await runtime.run(clerk(tier="small"), "another question", tenant="acme")
        assert (tmp_path / "log.jsonl").exists() is bool(log)
    [line] = (tmp_path / "log.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert (kept["text"], kept["run_id"], kept["node"]) == (QUESTION, run.id, "model")


async def test_a_tenants_downgrade_holds_for_calls_that_no_execution_makes(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    """Such as a gateway's: a free model answers when the tenant's money is gone."""
    acme = {"budgets": [{"usd": "0"}], "on_limit": "downgrade"}
    config = write_config(tmp_path, house(true_provider), tiers=TIERS, tenants={"acme": acme})
    async with opened(config) as runtime:
        scope = Scope(tenant="acme", agents=("gateway",), run_id="key_1")
        runtime.ledger.gates.open(scope, Limits.unlimited())
        run = runtime.standing(scope, tiers=None)
        ask = Ask(tier="frontier", node="-", messages=[{"role": "user", "content": QUESTION}], max_output_tokens=50)
        paid = await run.calls.make(run, ask, "call 1")
        assert (paid.model, paid.tier, paid.posted.nanousd) == ("llama", "local", 0)
        assert paid.reason == "no money left for frontier; first of tier local"
        assert paid.money_left is not None
        assert paid.money_left.left_nanousd == 0
