"""What goes wrong at the provider goes wrong on the wire, and is on the true bill exactly where a real one charges."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.behaviour import UNBILLED
from tests.support.client import QUESTION, STREAM, ask, events, text_of
from tests.support.provider import Behaviour, Fault, FaultKind, TrueProvider


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault("rate_limit"), 429, "rate_limit_exceeded"),
        (Fault("server_error"), 500, None),
        (Fault("server_error", status=503), 503, None),
        (Fault("overloaded"), 503, "server_is_overloaded"),
        (Fault("quota"), 429, "insufficient_quota"),
        (Fault("unauthorized"), 401, "invalid_api_key"),
        (Fault("model_missing"), 404, "model_not_found"),
        (Fault("content_filter"), 400, "content_filter"),
        (Fault("bad_request"), 400, None),
        (Fault("context_length"), 400, "context_length_exceeded"),
    ],
)
async def test_a_refusal_is_an_openai_error_and_costs_nothing(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient, fault: Fault, status: int, code: str | None
) -> None:
    true_provider.behaviour = Behaviour(faults=[fault])
    response = await ask(provider_client)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert "retry-after" not in response.headers
    assert (true_provider.bill.calls, true_provider.bill.requests) == (0, 1)


async def test_a_rate_limit_says_how_long_to_wait(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(faults=[Fault("rate_limit", retry_after_s=0.25)])
    assert (await ask(provider_client)).headers["retry-after"] == "0.25"


async def test_a_connection_dropped_before_a_byte_costs_nothing(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(faults=[Fault("drop_before")])
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        await ask(provider_client)
    assert (true_provider.bill.calls, true_provider.bill.requests) == (0, 1)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"model": "house-7b"},
        {"model": "house-7b", "messages": []},
        {"model": "house-7b", "messages": "hello"},
        {"messages": QUESTION["messages"]},
        {**QUESTION, "max_tokens": 0},
        {**QUESTION, "max_tokens": "many"},
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_for_free(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient, body: Any
) -> None:
    assert (await ask(provider_client, body)).status_code == 400
    assert true_provider.bill.calls == 0


@pytest.mark.parametrize("body", [QUESTION, STREAM], ids=["whole", "stream"])
async def test_a_billed_timeout_is_silence_that_costs_the_whole_answer(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    true_provider.behaviour = Behaviour(faults=[Fault("billed_timeout")])
    with pytest.raises(httpx.ReadTimeout):
        await provider_client.post("/v1/chat/completions", json=body, timeout=0.2)
    assert true_provider.bill.output_tokens == 100


@pytest.mark.parametrize(("body", "written"), [(QUESTION, 100), (STREAM, 5)], ids=["whole", "stream"])
async def test_a_stalled_answer_is_silent_after_its_beginning_and_costs_what_was_written(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient, body: dict[str, Any], written: int
) -> None:
    true_provider.behaviour = Behaviour(faults=[Fault("stalled", after_tokens=5)])
    async with provider_client.stream("POST", "/v1/chat/completions", json=body, timeout=0.3) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            await response.aread()
    assert true_provider.bill.output_tokens == written


@pytest.mark.parametrize("body", [QUESTION, STREAM], ids=["whole", "stream"])
async def test_a_billed_drop_breaks_off_and_costs_the_whole_answer(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    true_provider.behaviour = Behaviour(faults=[Fault("billed_drop")])
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        await ask(provider_client, body)
    assert true_provider.bill.output_tokens == 100


async def test_a_broken_stream_costs_what_it_has_sent(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(faults=[Fault("broken_stream", after_tokens=3)])
    stream = events(provider_client)
    chunks = [await anext(stream) for _ in range(4)]  # the opening and three tokens
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        await anext(stream)
    assert text_of(chunks) == " token token token"
    assert true_provider.bill.output_tokens == 3


@pytest.mark.parametrize("body", [QUESTION, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("kind", "content", "media_type"),
    [("html", "<html>", "text/html"), ("empty", "", "application/json"), ("bad_json", '{"id": ', None)],
)
async def test_an_answer_that_is_none_is_billed_all_the_same(
    true_provider: TrueProvider,
    provider_client: httpx.AsyncClient,
    body: dict[str, Any],
    kind: FaultKind,
    content: str,
    media_type: str | None,
) -> None:
    true_provider.behaviour = Behaviour(faults=[Fault(kind)])
    response = await ask(provider_client, body)
    assert response.status_code == 200
    assert response.text.removeprefix("data: ").startswith(content)
    with pytest.raises(json.JSONDecodeError):
        json.loads(response.text.removeprefix("data: "))
    assert media_type is None or response.headers["content-type"].startswith(media_type)
    assert true_provider.bill.output_tokens == 100


async def test_an_answer_without_usage_is_billed(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(faults=[Fault("no_usage")] * 2)
    assert "usage" not in (await ask(provider_client)).json()
    assert not any("usage" in chunk for chunk in [chunk async for chunk in events(provider_client)])
    assert true_provider.bill.output_tokens == 200


async def test_an_answer_with_negative_usage_is_billed(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(faults=[Fault("negative_usage")] * 2)
    whole = (await ask(provider_client)).json()
    last = [chunk async for chunk in events(provider_client)][-1]
    assert whole["usage"]["completion_tokens"] == last["usage"]["completion_tokens"] == -100
    assert true_provider.bill.output_tokens == 200


def test_every_fault_before_generation_is_free_and_every_other_is_not() -> None:
    before = {"rate_limit", "overloaded", "quota", "server_error", "unauthorized", "model_missing", "drop_before"}
    assert before | {"bad_request", "content_filter", "context_length"} == UNBILLED
