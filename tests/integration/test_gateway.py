"""The gateway over real HTTP: what it answers, whom it answers, and what it never tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from bursar.budget.errors import LedgerUnavailable
from bursar.budget.limits import Limits
from tests.support.gateway import Gateway, config_text
from tests.support.provider import Answer, Behaviour, Fault, FaultKind, TrueProvider

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 20}
TENANTS = '  acme: {budgets: [{usd: "5", per: month}]}\n  globex: {tiers: [frontier]}\n'


@pytest.fixture
def gateway(tmp_path: Path, true_provider: TrueProvider) -> Iterator[Gateway]:
    """A gateway for two tenants, whose provider answers in one word."""
    true_provider.behaviour = Behaviour(script=[Answer(text="Hi.")])
    with Gateway(tmp_path, config_text(true_provider.api_base, tenants=TENANTS)) as serving:
        yield serving


def ask(client: httpx.Client, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(CHAT, json=HELLO if body is None else body, headers=named)


def test_an_answer_comes_in_openais_shape_with_its_cost_in_headers(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    with gateway.client(gateway.key()) as client:
        answer = ask(client)
    body = answer.json()
    assert answer.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "Hi."
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    bill = true_provider.bill.nanousd("1", "100")
    assert answer.headers["x-bursar-cost-usd"] == f"0.{bill:09d}"
    assert answer.headers["x-bursar-remaining-usd"] == f"4.{10**9 - bill:09d}"
    assert (answer.headers["x-bursar-model"], answer.headers["x-bursar-tier"]) == ("house", "small")
    assert answer.headers["x-bursar-reason"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_tools_schemas_and_images_are_sent_on_as_they_stand(gateway: Gateway, true_provider: TrueProvider) -> None:
    sent: list[dict[str, Any]] = []

    def script(body: dict[str, Any], calls_before: int) -> Answer:
        sent.append(body)
        return Answer(tool_calls=[("find", {"order": 1001})])

    true_provider.behaviour = Behaviour(script=script)
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    asked = {
        "model": "small",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image], "documents": ["uncounted"]},
            {"role": "assistant", "content": None, "tool_calls": [], "refusal": None, "annotations": [], "seen": True},
        ],
        "tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "find"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        "temperature": 0.5,
        "top_p": 1,
        "seed": 7,
        "stop": "END",
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "max_completion_tokens": 50,
        "user": "u1",
        "metadata": {"a": "b"},
        "store": False,
        "n": 1,
    }
    with gateway.client(gateway.key()) as client:
        answer = ask(client, asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "find"
    assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"
    [body] = sent
    kept = ("tools", "tool_choice", "response_format", "temperature", "top_p", "seed", "parallel_tool_calls")
    assert {name: body[name] for name in kept} == {name: asked[name] for name in kept}
    assert (body["stop"], body["reasoning_effort"], body["max_tokens"]) == (["END"], "low", 50)
    assert body["messages"][1]["content"] == asked["messages"][1]["content"]  # type: ignore[index]
    assert "documents" not in body["messages"][1], "what nobody counts is not sent"
    assert not {"refusal", "annotations", "seen"} & body["messages"][2].keys(), "clients send back all they were told"
    assert not {"user", "metadata", "store"} & body.keys()


def test_a_model_may_be_named_in_place_of_a_tier(gateway: Gateway, true_provider: TrueProvider) -> None:
    with gateway.client(gateway.key()) as client:
        answer = ask(client, {**HELLO, "model": "large"})
    assert answer.headers["x-bursar-model"] == "large"
    assert true_provider.bill.entries[0].model == "house-70b"


def test_a_key_sees_the_names_that_it_may_ask_for_and_no_others(gateway: Gateway) -> None:
    def names(key: str) -> list[str]:
        with gateway.client(key) as client:
            return [one["id"] for one in client.get("/v1/models").json()["data"]]

    assert names(gateway.key()) == ["small", "frontier", "house", "large", "vectors"]
    assert names(gateway.key("globex")) == ["frontier", "large", "vectors"], "no chat model beside its tiers"
    only = gateway.key(asks_for=("house",))
    assert names(only) == ["house"]
    with gateway.client(only) as client:
        refused = ask(client, {**HELLO, "model": "small"})
        assert refused.status_code == 404
        assert client.get("/v1/models/house").json()["id"] == "house"
        assert client.get("/v1/models/small").status_code == 404
        assert ask(client, {**HELLO, "model": "house"}).status_code == 200


def test_an_unknown_model_is_told_with_the_near_names(gateway: Gateway, true_provider: TrueProvider) -> None:
    with gateway.client(gateway.key()) as client:
        refused = ask(client, {**HELLO, "model": "smal"})
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"
    assert "small" in refused.json()["next"]
    assert true_provider.bill.requests == 0


def test_no_key_a_wrong_one_and_a_dead_one_are_told_in_the_same_words(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    revoked, revoked_text = gateway.made_key()
    gateway.keys.revoke(revoked.id, by="dana")
    expired, expired_text = gateway.made_key(expires_at=datetime.now(UTC) + timedelta(hours=1))
    wrong_sum = f"{gateway.key()[:-1]}x"
    gateway.expire(expired)
    bodies = set()
    for key in (None, "bsr_", "sk-1234", "a b", revoked_text, expired_text, wrong_sum):
        with gateway.client(key) as client:
            refused = ask(client)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        bodies.add(refused.text)
    assert len(bodies) == 1
    assert true_provider.bill.requests == 0


def test_a_revoked_key_is_refused_at_once_though_it_was_used_a_moment_ago(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    key, text = gateway.made_key()
    with gateway.client(text) as client:
        assert ask(client).status_code == 200
        gateway.keys.revoke(key.id, by="dana")
        refused = ask(client)
    assert refused.status_code == 401
    assert true_provider.bill.requests == 1


def test_of_a_key_only_its_keyed_hash_is_kept(gateway: Gateway, tmp_path: Path) -> None:
    key, text = gateway.made_key()
    secret_part = text.removeprefix(key.hint)
    for file in tmp_path.iterdir():
        assert secret_part.encode() not in file.read_bytes()
    assert gateway.keys.get(key.id).hint == text[:8]


def test_a_keys_limit_holds_over_all_sessions_and_refuses_call_by_call(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    key, text = gateway.made_key(limits=Limits(steps=3))
    with gateway.client(text) as client:
        answers = [ask(client, x_bursar_run=f"session-{number}") for number in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 402]
        problem = answers[3].json()
        assert answers[3].headers["x-should-retry"] == "false"
        assert answers[3].headers["content-type"] == "application/problem+json"
        assert (problem["scope"], problem["limit"], problem["spent"]) == (f"acme/gateway/{key.id}", 3, 3)
        assert problem["error"]["code"] == "budget_exceeded"
        assert problem["detail"].startswith("refused: ")
        assert problem["next"] == f"bursar budget grant acme/gateway/{key.id} --steps 20"
        assert problem["detail"].endswith(problem["next"])
        gateway.grant(f"acme/gateway/{key.id}", steps=1)
        assert [ask(client).status_code for _ in range(2)] == [200, 402]
    assert true_provider.bill.calls == 4


async def test_callers_at_once_are_let_through_exactly_as_far_as_the_limit_goes(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=[Answer(text="Hi.")], latency_s=0.1)
    headers = {"authorization": f"Bearer {gateway.key(limits=Limits(steps=5))}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30, trust_env=False) as client:
        answers = await asyncio.gather(*(client.post(CHAT, json=HELLO) for _ in range(25)))
    assert sorted(one.status_code for one in answers) == [200] * 5 + [402] * 20
    assert true_provider.bill.requests == 5


def test_nothing_is_sent_while_the_ledger_is_away(
    gateway: Gateway, true_provider: TrueProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: object, **options: object) -> None:
        raise LedgerUnavailable(f"the ledger {gateway.folder}/bursar.db is away")

    with gateway.client(gateway.key()) as client:
        assert client.get("/v1/models").status_code == 200
        monkeypatch.setattr(gateway.runtime.ledger, "reserve", away)
        monkeypatch.setattr(gateway.runtime.ledger.policies, "ls", away)
        refused = ask(client)
        assert client.get("/readyz").status_code == 503
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert "bursar.db" not in refused.text
    assert true_provider.bill.requests == 0


def test_a_tenants_budget_refuses_with_what_was_needed_and_when_it_resets(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    tenants = '  acme: {budgets: [{usd: "0.000001", per: month, zone: UTC}]}\n'
    text = config_text(true_provider.api_base, tenants=tenants)
    with Gateway(tmp_path, text) as gateway, gateway.client(gateway.key()) as client:
        refused = ask(client)
    problem = refused.json()
    assert refused.status_code == problem["status"] == 402
    assert (problem["scope"], problem["unit"], problem["limit"]) == ("acme", "usd", "0.000001000")
    assert problem["needed"] > problem["limit"]
    assert problem["resets_at"].endswith("+00:00")
    assert "bursar budget grant acme" in problem["next"]
    assert true_provider.bill.requests == 0


def test_a_call_is_attributed_to_its_session_agent_and_node(gateway: Gateway) -> None:
    key, text = gateway.made_key()
    with gateway.client(text) as client:
        assert ask(client, x_bursar_run="s1", x_bursar_agent="support", x_bursar_node="draft").status_code == 200
        for name in ("x-bursar-run", "x-bursar-agent", "x-bursar-node"):
            refused = client.post(CHAT, json=HELLO, headers={name: "a/b"})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)
    cost = gateway.spent(f"acme/gateway/{key.id}")
    assert cost > 0
    assert gateway.spent(f"acme/gateway/{key.id}/session:s1") == cost


def test_no_session_is_the_account_of_an_agent_that_is_used_as_a_tool(gateway: Gateway) -> None:
    """Whoever opened that first would have opened it without the agent's limits."""
    key, text = gateway.made_key()
    with gateway.client(text) as client:
        assert ask(client, x_bursar_run="researcher.0a1b2c3d").status_code == 200
    lines = gateway.runtime.ledger.budgets.ls("acme", runs=True)
    assert f"acme/gateway/{key.id}/researcher.0a1b2c3d" not in {line.path for line in lines}


def test_an_agent_that_a_call_names_pays_for_it_too(tmp_path: Path, true_provider: TrueProvider) -> None:
    tenants = '  acme: {agents: {support: {budgets: [{usd: "0.000001", per: month}]}}}\n'
    text = config_text(true_provider.api_base, tenants=tenants)
    with Gateway(tmp_path, text) as gateway, gateway.client(gateway.key()) as client:
        refused = ask(client, x_bursar_agent="support")
        assert ask(client).status_code == 200
    assert (refused.status_code, refused.json()["scope"]) == (402, "acme/support")


def test_a_key_that_belongs_to_an_agent_pays_for_no_other(gateway: Gateway) -> None:
    with gateway.client(gateway.key(agent="support")) as client:
        assert ask(client, x_bursar_agent="support").status_code == 200
        refused = ask(client, x_bursar_agent="research")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "foreign_agent")


def test_nothing_that_is_secret_is_in_any_error(gateway: Gateway, true_provider: TrueProvider) -> None:
    secrets = ["provider-secret-key", "globex", "127.0.0.1", "house-7b", "sqlite", str(gateway.folder)]
    kinds: tuple[FaultKind, ...] = ("rate_limit", "server_error", "unauthorized", "bad_request", "html", "bad_json")
    faults = [Fault(kind) for kind in kinds]
    with gateway.client(gateway.key()) as client:
        seen = [ask(client, body) for body in ({}, {**HELLO, "model": "frontie"}, {**HELLO, "nope": 1})]
        for fault in faults:
            true_provider.behaviour = Behaviour(faults=[fault] * 1_000)
            seen += [ask(client), ask(client, {**HELLO, "stream": True, "model": "globex"})]
            gateway.forget_failures()
    assert all(one.status_code >= 400 for one in seen)
    for answer in seen:
        told = f"{answer.text} {json.dumps(dict(answer.headers))}"
        assert not [secret for secret in secrets if secret in told.replace("'globex'", "")], told


def test_why_another_model_answered_is_told_by_the_cause_and_not_in_its_providers_words(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    def faults(body: dict[str, Any], before: int) -> Fault | None:
        return Fault("unauthorized") if body["model"] == "house-7b" else None

    true_provider.behaviour = Behaviour(faults=faults)
    text = config_text(true_provider.api_base).replace("small: [house]", "small: [house, large]")
    with Gateway(tmp_path, text) as gateway, gateway.client(gateway.key()) as client:
        failed_over, passed_by = ask(client), ask(client)
        metrics = client.get("/metrics").text
    assert 'bursar_model_cooling{cause="auth",model="house"} 1.0' in metrics
    assert failed_over.headers["x-bursar-reason"] == "after house, next of tier small; house: auth"
    assert passed_by.headers["x-bursar-reason"] == "house cools down (auth), next of tier small"


@pytest.mark.parametrize(
    ("fault", "status", "retry"),
    [
        (Fault("rate_limit", retry_after_s=7), 429, "true"),
        (Fault("server_error", status=503), 503, "true"),
        (Fault("unauthorized"), 502, "false"),
        (Fault("bad_request"), 400, "false"),
        (Fault("context_length"), 400, "false"),
        (Fault("html"), 502, "false"),
    ],
)
def test_a_providers_failure_is_told_by_its_cause(
    gateway: Gateway, true_provider: TrueProvider, fault: Fault, status: int, retry: str
) -> None:
    true_provider.behaviour = Behaviour(faults=lambda body, before: fault)
    with gateway.client(gateway.key()) as client:
        refused = ask(client)
    assert refused.status_code == status, refused.text
    assert refused.headers["x-should-retry"] == retry
    assert refused.json()["error"]["message"].startswith("no model answered: house: ")
    if fault.retry_after_s:
        assert 0 < int(refused.headers["retry-after"]) <= 7


def test_health_readiness_metrics_and_the_openapi_document_need_no_key(gateway: Gateway) -> None:
    with gateway.client(gateway.key()) as client:
        ask(client)
        ask(client, {})
    with gateway.client() as client:
        assert client.get("/healthz").text == "ok\n"
        assert client.get("/readyz").status_code == 200
        metrics = client.get("/metrics").text
        document = client.get("/openapi.json").json()
        assert client.get("/v1/nothing").status_code == 404
        assert client.get(CHAT).status_code == 405
    assert 'bursar_requests_total{path="/v1/chat/completions",status="200"} 1.0' in metrics
    assert 'bursar_calls_total{model="house",replayed="no",tier="small"} 1.0' in metrics
    assert 'bursar_spent_usd_total{tenant="acme"}' in metrics
    assert 'bursar_refusals_total{code="missing_required_parameter"} 1.0' in metrics
    assert document["openapi"].startswith("3.1")
    body = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"model", "messages"} == set(body["required"])
    assert "402" in document["paths"][CHAT]["post"]["responses"]
