"""Asking the gateway twice: idempotency keys, and rates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from bursar.budget.limits import Limits
from bursar.budget.schema import pot
from bursar.runtime.service.calls import _digest
from tests.support.gateway import Gateway, config_text
from tests.support.provider import Answer, Behaviour, TrueProvider

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 20}
TENANTS = "  acme: {}\n  slow: {rates: {requests_per_minute: 2}}\n"


@pytest.fixture
def gateway(tmp_path: Path, true_provider: TrueProvider) -> Iterator[Gateway]:
    """A gateway whose provider answers in a word."""
    true_provider.behaviour = Behaviour(script=[Answer(text="Hi.")])
    with Gateway(tmp_path, config_text(true_provider.api_base, tenants=TENANTS)) as serving:
        yield serving


def test_an_idempotency_key_replays_the_answer_for_free(gateway: Gateway, true_provider: TrueProvider) -> None:
    with gateway.client(gateway.key(), **{"idempotency-key": "order-1001"}) as client:
        first, again = client.post(CHAT, json=HELLO), client.post(CHAT, json=HELLO)
        streamed = client.post(CHAT, json={**HELLO, "stream": True})
        spent = gateway.spent("acme")
    assert first.json()["choices"] == again.json()["choices"]
    assert first.json()["id"] == again.json()["id"]
    assert "x-bursar-replayed" not in first.headers
    assert (again.headers["x-bursar-replayed"], again.headers["x-bursar-cost-usd"]) == ("true", "0.000000000")
    pieces = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in pieces) == "Hi."
    assert pieces[-1]["bursar"] == {"cost_usd": "0.000000000", "replayed": True}
    for header in ("x-bursar-model", "x-bursar-tier", "x-bursar-reason"):
        assert streamed.headers[header] == first.headers[header]
    assert true_provider.bill.calls == 1
    assert spent == true_provider.bill.nanousd("1", "100")


def test_the_same_idempotency_key_for_another_body_is_refused(gateway: Gateway, true_provider: TrueProvider) -> None:
    with gateway.client(gateway.key(), **{"idempotency-key": "order-1001"}) as client:
        client.post(CHAT, json=HELLO)
        refused = client.post(CHAT, json={**HELLO, "temperature": 1})
        too_long = client.post(CHAT, json=HELLO, headers={"idempotency-key": "x" * 256})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert too_long.status_code == 400
    assert true_provider.bill.calls == 1


def test_an_idempotency_key_belongs_to_the_key_that_used_it(gateway: Gateway, true_provider: TrueProvider) -> None:
    for key in (gateway.key(), gateway.key()):
        with gateway.client(key, **{"idempotency-key": "order-1001"}) as client:
            assert "x-bursar-replayed" not in client.post(CHAT, json=HELLO).headers
    assert true_provider.bill.calls == 2


async def test_equal_requests_at_once_with_one_idempotency_key_are_one_call(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=[Answer(text="Hi.")], latency_s=0.3)
    headers = {"authorization": f"Bearer {gateway.key()}", "idempotency-key": "order-1001"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20, trust_env=False) as client:
        bodies = [HELLO, {**HELLO, "stream": True}, HELLO, {**HELLO, "stream": True}]
        answers = await asyncio.gather(*(client.post(CHAT, json=body) for body in bodies))
    assert [one.status_code for one in answers] == [200] * 4
    assert true_provider.bill.calls == 1


def test_a_call_that_another_process_has_under_way_is_a_conflict(gateway: Gateway, true_provider: TrueProvider) -> None:
    headers = {"idempotency-key": "order-1001"}
    with gateway.client(gateway.key(), **headers) as client, gateway.under_way("order-1001"):
        refused = client.post(CHAT, json=HELLO)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "call_in_flight")
    assert refused.headers["retry-after"] == "1"
    assert true_provider.bill.requests == 0


def test_embeddings_that_another_process_has_under_way_are_a_conflict(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    body = {"model": "vectors", "input": "Hello."}
    digest = _digest({"model": "vectors", "input": ["Hello."], "dimensions": None})
    with gateway.client(gateway.key(), **{"idempotency-key": "a"}) as client:
        with gateway.under_way(f"a:{digest}"):
            assert client.post("/v1/embeddings", json=body).status_code == 409
        assert client.post("/v1/embeddings", json=body).status_code == 200
    assert true_provider.bill.requests == 1


def test_a_key_is_held_to_its_rate_of_requests(gateway: Gateway, true_provider: TrueProvider) -> None:
    with gateway.client(gateway.key(requests_per_minute=2)) as client:
        answers = [client.post(CHAT, json=HELLO) for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert answers[2].json()["error"]["type"] == "rate_limit_error"
    with gateway.client(gateway.key()) as other:
        assert other.post(CHAT, json=HELLO).status_code == 200
    assert true_provider.bill.calls == 3


def test_who_asks_too_fast_opens_no_accounts(gateway: Gateway) -> None:
    key, text = gateway.made_key(requests_per_minute=1)
    with gateway.client(text) as client:
        answers = [client.post(CHAT, json=HELLO, headers={"x-bursar-run": f"s{place}"}) for place in range(3)]
    assert [one.status_code for one in answers] == [200, 429, 429]
    with gateway.runtime.ledger.store.read() as connection:
        paths = connection.execute(select(pot.c.path).where(pot.c.run_id == key.id)).scalars().all()
    assert sorted(paths) == [f"acme/gateway/{key.id}", f"acme/gateway/{key.id}/session:s0"]


def test_all_keys_of_a_tenant_share_its_rate(gateway: Gateway) -> None:
    seen = []
    for key in (gateway.key("slow"), gateway.key("slow"), gateway.key("slow")):
        with gateway.client(key) as client:
            seen.append(client.post(CHAT, json=HELLO).status_code)
    assert seen == [200, 200, 429]


def test_a_rate_of_tokens_counts_what_a_call_used_and_not_what_it_might_have(gateway: Gateway) -> None:
    # Each call may come to 28 tokens and comes to 10: three fit into 60 only where the rest is given back.
    with gateway.client(gateway.key(tokens_per_minute=60)) as client:
        answers = [client.post(CHAT, json=HELLO) for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 200]
        too_much = client.post(CHAT, json={**HELLO, "max_tokens": 60})
    assert too_much.status_code == 429


def test_a_call_that_a_budget_refuses_gives_its_rate_of_tokens_back(gateway: Gateway) -> None:
    with gateway.client(gateway.key(tokens_per_minute=60, limits=Limits(steps=0))) as client:
        answers = [client.post(CHAT, json=HELLO) for _ in range(4)]
    assert [one.status_code for one in answers] == [402] * 4
