"""Agents behind the gateway: asked for like a model, run for the tenant, and paid by the key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bursar.budget.amounts import Amounts
from bursar.budget.limits import Limits
from tests.support.gateway import Gateway, config_text
from tests.support.provider import Answer, Behaviour, TrueProvider

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "agent:support", "messages": [{"role": "user", "content": "Refund order 1001."}]}

AGENTS = """
from bursar.agents import Agent
from bursar.tools import tool

@tool(effect="none")
def look_up(order: int) -> str:
    "Look an order up."
    return "found"

@tool(effect="irreversible", approval="always")
def refund(order: int) -> str:
    "Pay an order back."
    return "refunded"

support = Agent(name="support", instructions="Help.", tools=[look_up, refund], max_output_tokens=50, on_limit="stop")
"""

LOOKS_UP = Behaviour(script=[Answer(tool_calls=[("look_up", {"order": 1001})]), Answer(text="It is on its way.")])


@pytest.fixture
def gateway(tmp_path: Path, true_provider: TrueProvider) -> Iterator[Gateway]:
    """A gateway that offers an agent, which looks something up and answers."""
    (tmp_path / "agents.py").write_text(AGENTS)
    true_provider.behaviour = LOOKS_UP
    with Gateway(tmp_path, config_text(true_provider.api_base, more="agents: {support: agents.py:support}\n")) as found:
        yield found


def test_an_agent_answers_like_a_model_by_a_run_of_its_own(gateway: Gateway, true_provider: TrueProvider) -> None:
    key, text = gateway.made_key()
    with gateway.client(text) as client:
        assert "agent:support" in [one["id"] for one in client.get("/v1/models").json()["data"]]
        answer = client.post(CHAT, json=ASKED)
    assert answer.status_code == 200, answer.text
    body, run_id = answer.json(), answer.headers["x-bursar-run"]
    assert body["choices"][0]["message"]["content"] == "It is on its way."
    assert body["bursar"] == {"run": run_id, "status": "succeeded"}
    bill = true_provider.bill.nanousd("1", "100")
    assert answer.headers["x-bursar-cost-usd"] == f"0.{bill:09d}"
    assert gateway.spent(f"acme/support/{run_id}") == gateway.spent(f"acme/gateway/{key.id}") == bill
    of_key = gateway.runtime.ledger.reports.bill(key.id)
    assert sum((attempt.posted for attempt in of_key.attempts), Amounts()) == of_key.posted, "its bill names them, too"


@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_answers_clients_of_every_api(streamed: bool, gateway: Gateway, true_provider: TrueProvider) -> None:
    asked = {"model": "agent:support", "stream": streamed}
    with gateway.client(gateway.key()) as client:
        response = client.post("/v1/responses", json={**asked, "input": "Refund order 1001."})
        true_provider.reset(LOOKS_UP)
        message = client.post("/v1/messages", json={**asked, "max_tokens": 9, "messages": ASKED["messages"]})
    assert "It is on its way." in response.text
    assert "It is on its way." in message.text


def test_a_streamed_agents_answer_comes_in_one_piece(gateway: Gateway) -> None:
    with gateway.client(gateway.key()) as client:
        answer = client.post(CHAT, json={**ASKED, "stream": True})
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    said = [one["choices"][0]["delta"].get("content") for one in chunks]
    assert [text for text in said if text] == ["It is on its way."]
    assert chunks[-1]["bursar"]["status"] == "succeeded"
    assert answer.headers["x-bursar-call"] == chunks[-1]["bursar"]["run"]


def test_a_keys_limit_holds_over_the_agents_that_it_asks_for(gateway: Gateway, true_provider: TrueProvider) -> None:
    key, text = gateway.made_key(limits=Limits(steps=3))
    with gateway.client(text) as client:
        assert client.post(CHAT, json=ASKED).status_code == 200
        true_provider.reset(LOOKS_UP)
        refused = client.post(CHAT, json=ASKED)
        plain = client.post(CHAT, json={**ASKED, "model": "small"})
        gateway.grant(f"acme/gateway/{key.id}", steps=1)
        again = client.post(CHAT, json={**ASKED, "model": "small"})
    assert refused.status_code == 402
    assert refused.headers["x-should-retry"] == "false"
    assert "key_" in refused.json()["detail"]
    assert (plain.status_code, again.status_code) == (402, 200)
    assert true_provider.bill.calls == 2, "the third call of three, and the one that was granted"


def test_what_an_agent_uses_counts_against_the_keys_rate_of_tokens(gateway: Gateway) -> None:
    with gateway.client(gateway.key(tokens_per_minute=40)) as client:
        answers = [client.post(CHAT, json=ASKED) for _ in range(2)]
    assert answers[0].json()["usage"]["total_tokens"] > 40
    assert [one.status_code for one in answers] == [200, 429]


def test_a_budget_of_all_keys_holds_over_the_agents_that_they_ask_for(gateway: Gateway) -> None:
    gateway.runtime.ledger.budgets.set("acme/gateway", limit={"steps": 2}, author="dana")
    with gateway.client(gateway.key()) as client:
        assert client.post(CHAT, json=ASKED).status_code == 200
        refused = client.post(CHAT, json=ASKED)
    assert refused.status_code == 402
    assert "acme/gateway" in refused.json()["detail"]


def test_a_run_that_waits_for_a_person_says_so(gateway: Gateway, true_provider: TrueProvider) -> None:
    true_provider.behaviour = Behaviour(script=[Answer(tool_calls=[("refund", {"order": 1001})])])
    with gateway.client(gateway.key()) as client:
        answer = client.post(CHAT, json=ASKED)
    assert answer.status_code == 200
    assert answer.headers["x-bursar-status"] == answer.json()["bursar"]["status"] == "interrupted"
    assert answer.json()["choices"][0]["message"]["content"].startswith("This waits for a person: ")


def test_a_revoked_key_stops_the_agent_that_works_for_it(gateway: Gateway, true_provider: TrueProvider) -> None:
    key, text = gateway.made_key()

    def script(body: dict[str, Any], calls_before: int) -> Answer:
        gateway.keys.revoke(key.id, by="dana")
        return Answer(tool_calls=[("look_up", {"order": 1001})])

    true_provider.behaviour = Behaviour(script=script)
    with gateway.client(text) as client:
        refused = client.post(CHAT, json=ASKED)
    assert refused.json()["error"]["code"] == "agent_failed"
    assert true_provider.bill.calls == 1


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": []}, "tools"),
        ({"temperature": 1}, "temperature"),
        ({"messages": [{"role": "system", "content": "Obey."}]}, "messages[0]"),
    ],
)
def test_what_an_agent_decides_itself_is_not_taken_of_a_caller(
    gateway: Gateway, true_provider: TrueProvider, more: dict[str, Any], param: str
) -> None:
    with gateway.client(gateway.key()) as client:
        refused = client.post(CHAT, json={**ASKED, **more})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert true_provider.bill.requests == 0


def test_what_is_wrong_in_an_agents_file_is_told_to_the_operator_alone(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text("support = undefined_name")
    with gateway.client(gateway.key()) as client:
        refused = client.post(CHAT, json=ASKED)
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "not_configured")
    assert "undefined_name" not in refused.text
    assert str(tmp_path) not in refused.text


def test_a_key_of_one_agent_asks_for_no_other(gateway: Gateway) -> None:
    with gateway.client(gateway.key(agent="research")) as client:
        assert client.post(CHAT, json=ASKED).status_code == 404
    with gateway.client(gateway.key(agent="support")) as client:
        assert client.post(CHAT, json=ASKED).status_code == 200
