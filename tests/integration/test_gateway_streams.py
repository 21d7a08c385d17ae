"""Streams of the gateway: their chunks, how they break, and what becomes of those that nobody hears to the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway import Gateway, config_text
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {
    "model": "small",
    "messages": [{"role": "user", "content": "Hello."}],
    "max_tokens": 60,
    "stream": True,
}


@pytest.fixture
def gateway(tmp_path: Path, true_provider: TrueProvider) -> Iterator[Gateway]:
    """A gateway whose tenant has five dollars."""
    tenants = '  acme: {budgets: [{usd: "5", per: month}]}\n'
    with Gateway(tmp_path, config_text(true_provider.api_base, tenants=tenants)) as serving:
        yield serving


def events(answer: httpx.Response) -> list[Any]:
    """The data of a stream's events; `[DONE]` as text."""
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def text_of(chunks: list[Any]) -> str:
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"])


def test_a_stream_ends_with_why_what_it_cost_and_the_usage_that_was_asked_for(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(script=[Answer(text="Hello there, friend.")])
    with gateway.client(gateway.key()) as client:
        answer = client.post(CHAT, json={**ASKED, "stream_options": {"include_usage": True}})
        plain = events(client.post(CHAT, json=ASKED))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.headers["x-bursar-model"], answer.headers["x-bursar-tier"]) == ("house", "small")
    *chunks, ended, usage, done = events(answer)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(chunks) == "Hello there, friend."
    assert {one["id"] for one in (*chunks, ended, usage)} == {chunks[0]["id"]}
    assert (ended["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == true_provider.bill.entries[0].output_tokens
    cost = true_provider.bill.entries[0].nanousd("1", "100")
    assert ended["bursar"]["cost_usd"] == f"0.{cost:09d}"
    assert ended["bursar"]["remaining_usd"] == f"4.{10**9 - cost:09d}"
    assert all("usage" not in one for one in plain if one != "[DONE]")


def test_a_streamed_tool_call_comes_in_openais_pieces(gateway: Gateway, true_provider: TrueProvider) -> None:
    true_provider.behaviour = Behaviour(script=[Answer(tool_calls=[("find", {"order": 1001})])])
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
    with gateway.client(gateway.key()) as client:
        *chunks, done = events(client.post(CHAT, json={**ASKED, "tools": [tool]}))
    parts = [part for one in chunks for part in one["choices"][0]["delta"].get("tool_calls", ())]
    assert (parts[0]["function"]["name"], done) == ("find", "[DONE]")
    assert json.loads("".join(part["function"].get("arguments", "") for part in parts)) == {"order": 1001}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_stream_that_is_refused_is_told_by_its_status(gateway: Gateway, true_provider: TrueProvider) -> None:
    true_provider.behaviour = Behaviour(faults=lambda body, before: Fault("unauthorized"))
    with gateway.client(gateway.key()) as client:
        assert client.post(CHAT, json={**ASKED, "model": "nope"}).status_code == 404
        assert client.post(CHAT, json=ASKED).status_code == 502


def test_a_stream_that_breaks_off_says_so_in_an_event_and_never_says_done(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(faults=lambda body, before: Fault("broken_stream", after_tokens=3))
    with gateway.client(gateway.key()) as client:
        answer = client.post(CHAT, json=ASKED)
    *chunks, last = events(answer)
    assert answer.status_code == 200
    assert text_of(chunks)
    assert last["error"]["code"] == "broken_stream"
    assert "provider-secret-key" not in answer.text
    assert gateway.spent("acme") >= true_provider.bill.nanousd("1", "100"), "it stays charged"


async def test_a_client_that_hangs_up_ends_the_call_at_the_provider_and_it_stays_charged(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(output_tokens=60, chunk_s=0.2)
    headers = {"authorization": f"Bearer {gateway.key()}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as client:
        async with client.stream("POST", CHAT, json=ASKED) as answer:
            await anext(answer.aiter_lines())
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 0, 3)
    billed = true_provider.bill.nanousd("1", "100")
    assert true_provider.bill.output_tokens < 30, "the rest was never generated"
    assert await asyncio.to_thread(settled_at_least, gateway, billed)


async def test_a_client_that_does_not_wait_for_a_whole_answer_ends_the_call_too(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(latency_s=30)
    headers = {"authorization": f"Bearer {gateway.key()}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(CHAT, json={**ASKED, "stream": False}, timeout=0.5)
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 0, 3)
    assert await asyncio.to_thread(settled_at_least, gateway, true_provider.bill.nanousd("1", "100"))


async def test_an_answer_under_way_may_end_when_the_server_is_told_to(
    gateway: Gateway, true_provider: TrueProvider
) -> None:
    true_provider.behaviour = Behaviour(output_tokens=10, chunk_s=0.05)
    headers = {"authorization": f"Bearer {gateway.key()}"}
    client = httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False)
    async with client, client.stream("POST", CHAT, json=ASKED) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        gateway.stop()
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"


async def test_many_streams_are_open_at_once_and_each_is_whole(gateway: Gateway, true_provider: TrueProvider) -> None:
    true_provider.behaviour = Behaviour(output_tokens=5, latency_s=0.3, counting="fixed")
    headers = {"authorization": f"Bearer {gateway.key()}"}
    limits = httpx.Limits(max_connections=60)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, limits=limits, timeout=30, trust_env=False
    ) as client:
        answers = await asyncio.gather(*(client.post(CHAT, json=ASKED) for _ in range(60)))
    assert all(events(one)[-1] == "[DONE]" for one in answers)
    assert gateway.spent("acme") == true_provider.bill.nanousd("1", "100")


def settled_at_least(gateway: Gateway, nanousd: int, tries: int = 50) -> bool:
    """Whether so much is posted soon: a call that was broken off is settled behind its caller's back."""
    for _ in range(tries):
        if gateway.spent("acme") >= nanousd:
            return True
        gateway.wait(0.05)
    return False
