"""The provider that keeps the true bill must bill like a real one, or no test of a limit means anything."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from decimal import Decimal

import httpx
import pytest

from tests.support.client import QUESTION, STREAM, ask, events, text_of
from tests.support.provider import Answer, Behaviour, Bill, Billed, Fault, TrueProvider
from tests.support.tokens import tokens_for

TOKENS = tokens_for("real")
INPUT_TOKENS = 3 + 4 + len(TOKENS.split("Where is order 1001?"))


async def test_an_answer_without_a_bound_is_billed_in_full(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    reply = (await ask(provider_client)).json()
    assert len(TOKENS.split(reply["choices"][0]["message"]["content"])) == 100
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"] == {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": 100,
        "total_tokens": INPUT_TOKENS + 100,
    }
    assert (true_provider.bill.input_tokens, true_provider.bill.output_tokens) == (INPUT_TOKENS, 100)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_callers_bound_is_obeyed_to_the_token(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient, name: str
) -> None:
    reply = (await ask(provider_client, {**QUESTION, name: 7})).json()
    assert len(TOKENS.split(reply["choices"][0]["message"]["content"])) == 7
    assert reply["choices"][0]["finish_reason"] == "length"
    assert true_provider.bill.output_tokens == reply["usage"]["completion_tokens"] == 7


async def test_an_answer_as_long_as_its_bound_is_not_cut(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    reply = (await ask(provider_client, {**QUESTION, "max_tokens": 100})).json()
    assert reply["choices"][0]["finish_reason"] == "stop"


async def test_no_answer_is_longer_than_the_models_cap(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(output_tokens=20_000)
    assert (await ask(provider_client)).json()["choices"][0]["finish_reason"] == "length"
    assert true_provider.bill.output_tokens == 16_384


async def test_each_of_n_choices_is_billed(true_provider: TrueProvider, provider_client: httpx.AsyncClient) -> None:
    reply = (await ask(provider_client, {**QUESTION, "n": 3, "max_tokens": 10})).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert true_provider.bill.output_tokens == 30


async def test_hidden_reasoning_is_billed_and_uses_up_the_bound(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(script=[Answer(text="Yes.", output_tokens=500)])
    whole, cut = [(await ask(provider_client, {**QUESTION, "max_tokens": bound})).json() for bound in (600, 200)]
    assert whole["choices"][0]["message"]["content"] == "Yes."
    assert cut["choices"][0]["message"]["content"] == ""
    assert [entry.output_tokens for entry in true_provider.bill.entries] == [500, 200]


async def test_a_prompt_is_billed_with_its_tool_calls_and_tools(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    function = {"name": "find", "arguments": '{"order":1}'}
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]},
    ]
    await ask(provider_client, {"model": "house-7b", "messages": messages, "tools": tools})
    compact = [json.dumps(value, separators=(",", ":")) for value in (function, tools)]
    expected = 3 + 4 + 4 + sum(len(TOKENS.split(text)) for text in ["Where?", *compact])
    assert true_provider.bill.input_tokens == expected


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_of_any_characters_arrives_whole(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient, stream: bool
) -> None:
    text = "Größe 😀🏽 漢字 <|endoftext|>"
    true_provider.behaviour = Behaviour(script=[Answer(text=text)])
    if stream:
        got = text_of([chunk async for chunk in events(provider_client)])
    else:
        got = (await ask(provider_client)).json()["choices"][0]["message"]["content"]
    assert got == text
    assert true_provider.bill.output_tokens == len(TOKENS.split(text))


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_arrive_whole_and_their_tokens_are_billed(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient, stream: bool
) -> None:
    answer = Answer(tool_calls=[("find_order", {"order_id": "1001"}), ("refund", "not json")])
    true_provider.behaviour = Behaviour(script=[answer])
    got: dict[int, dict[str, str]] = {}
    if stream:
        chunks = [chunk async for chunk in events(provider_client)]
        finish = chunks[-2]["choices"][0]["finish_reason"]
        for chunk in chunks[:-1]:
            for call in chunk["choices"][0]["delta"].get("tool_calls", []):
                whole = got.setdefault(call["index"], {"name": "", "arguments": ""})
                for key, part in call["function"].items():
                    whole[key] += part
    else:
        choice = (await ask(provider_client)).json()["choices"][0]
        finish = choice["finish_reason"]
        assert choice["message"]["content"] is None
        assert len({call["id"] for call in choice["message"]["tool_calls"]}) == 2
        got = {index: call["function"] for index, call in enumerate(choice["message"]["tool_calls"])}
    assert finish == "tool_calls"
    assert list(got.values()) == [
        {"name": "find_order", "arguments": '{"order_id":"1001"}'},
        {"name": "refund", "arguments": "not json"},
    ]
    said = ["find_order", '{"order_id":"1001"}', "refund", "not json"]
    assert true_provider.bill.output_tokens == sum(len(TOKENS.split(text)) for text in said)


async def test_tool_calls_are_cut_at_the_bound_too(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(script=[Answer(tool_calls=[("find", {"order_id": "1001"})])])
    choice = (await ask(provider_client, {**QUESTION, "max_tokens": 4})).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert '{"order_id":"1001"}'.startswith(choice["message"]["tool_calls"][0]["function"]["arguments"])
    assert true_provider.bill.output_tokens == 4


async def test_a_stream_is_billed_as_the_same_answer_in_one_piece(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    chunks = [chunk async for chunk in events(provider_client, {**STREAM, "max_tokens": 30})]
    assert len(TOKENS.split(text_of(chunks))) == 30
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == true_provider.bill.output_tokens == 30


async def test_a_stream_tells_its_usage_only_when_asked(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    chunks = [chunk async for chunk in events(provider_client, {**QUESTION, "stream": True})]
    assert not any("usage" in chunk for chunk in chunks)
    assert true_provider.bill.output_tokens == 100


async def test_an_aborted_stream_is_billed_up_to_where_it_was_left(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(chunk_s=0.01, output_tokens=10_000)
    stream = events(provider_client)
    for _ in range(6):  # the opening and five tokens
        await anext(stream)
    await stream.aclose()
    await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 0)
    assert true_provider.bill.input_tokens == INPUT_TOKENS
    assert 5 <= true_provider.bill.output_tokens < 500


async def test_a_client_that_leaves_before_the_answer_has_paid_for_it(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(latency_s=60)
    waiting = asyncio.create_task(ask(provider_client))
    await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.calls == 1)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 0)
    assert true_provider.bill.output_tokens == 100


async def test_only_billed_requests_use_up_the_script(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    """A flaky provider gives the same answers in the same order, and its last answer repeats."""
    true_provider.behaviour = Behaviour(
        script=[Answer(text="first"), Answer(text="last")],
        faults=[Fault("server_error"), None, Fault("rate_limit")],
    )
    replies = [await ask(provider_client) for _ in range(5)]
    said = [reply.json()["choices"][0]["message"]["content"] for reply in replies if reply.is_success]
    assert [reply.status_code for reply in replies] == [500, 200, 429, 200, 200]
    assert said == ["first", "last", "last"]
    assert (true_provider.bill.calls, true_provider.bill.requests) == (3, 5)


async def test_functions_decide_on_the_request_and_its_number(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(
        script=lambda body, calls: Answer(text=f"{calls}: {body['messages'][-1]['content']}"),
        faults=lambda body, requests: Fault("server_error") if requests == 0 else None,
    )
    assert (await ask(provider_client)).status_code == 500
    assert (await ask(provider_client)).json()["choices"][0]["message"]["content"] == "0: Where is order 1001?"


async def test_the_bill_names_who_asked_what(true_provider: TrueProvider, provider_client: httpx.AsyncClient) -> None:
    before_ns = time.time_ns()
    headers = {"authorization": "Bearer sk-acme", "x-run-id": "r1", "idempotency-key": "k1"}
    reply = (await ask(provider_client, headers=headers)).json()
    again = (await ask(provider_client)).json()
    await ask(provider_client, {**QUESTION, "messages": [{"role": "user", "content": "Another"}]})
    first, second, third = true_provider.bill.entries
    assert (first.request_id, first.model, first.key) == (reply["id"], "house-7b", "sk-acme")
    assert first.headers["x-run-id"] == "r1"
    assert first.headers["idempotency-key"] == "k1"
    assert "authorization" not in first.headers
    assert before_ns <= first.at_ns <= second.at_ns <= time.time_ns()
    assert (second.request_id, second.key) == (again["id"], "")
    assert first.request_id != second.request_id
    assert first.digest == second.digest != third.digest


def test_money_is_rounded_up_once_per_call() -> None:
    bill = Bill()
    for number in range(3):
        bill.charge(
            Billed(
                request_id=str(number),
                model="house-7b",
                key="",
                input_tokens=1,
                output_tokens=1,
                at_ns=0,
                headers={},
                digest="",
            )
        )
    assert bill.nanousd("0.0001", "0.0001") == 3  # 0.2 each
    assert bill.nanousd(Decimal("1"), 100) == 3 * 101_000


async def test_two_hundred_calls_at_once_take_as_long_as_one(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(latency_s=0.5)
    started = time.monotonic()
    replies = await asyncio.gather(*(ask(provider_client) for _ in range(200)))
    assert time.monotonic() - started < 10  # one after the other would be 100 s
    assert len({reply.json()["id"] for reply in replies}) == 200
    assert true_provider.bill.in_flight_max > 100
    assert (true_provider.bill.calls, true_provider.bill.output_tokens) == (200, 20_000)


def test_latencies_are_drawn_by_the_seed_and_the_calls_number() -> None:
    fixed, spread = Behaviour(latency_s=0.5), Behaviour(latency_s=0.5, latency_sigma=0.4, seed=7)
    draws = [spread.latency(number) for number in range(201)]
    assert {fixed.latency(number) for number in range(5)} == {0.5}
    assert draws == [spread.latency(number) for number in range(201)]
    assert len(set(draws)) == 201
    assert 0.4 < sorted(draws)[100] < 0.6


async def test_fixed_counting_bills_the_same_for_every_call(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(counting="fixed", script=[Answer(text="A longer answer than just ok")])
    reply = (await ask(provider_client)).json()
    assert reply["choices"][0]["message"]["content"] == "A longer answer than just ok"
    assert (await ask(provider_client, {**QUESTION, "max_tokens": 20})).json()["choices"][0][
        "finish_reason"
    ] == "length"
    assert [(entry.input_tokens, entry.output_tokens) for entry in true_provider.bill.entries] == [(100, 50), (100, 20)]


async def test_models_are_listed(true_provider: TrueProvider, provider_client: httpx.AsyncClient) -> None:
    true_provider.behaviour = Behaviour(models=["a", "b"])
    assert [model["id"] for model in (await provider_client.get("/v1/models")).json()["data"]] == ["a", "b"]


async def test_a_reset_starts_a_new_bill_that_calls_in_flight_do_not_touch(
    true_provider: TrueProvider, provider_client: httpx.AsyncClient
) -> None:
    true_provider.behaviour = Behaviour(chunk_s=0.01, output_tokens=20)
    stream, old = events(provider_client), true_provider.bill
    await anext(stream)
    true_provider.reset()
    async for _ in stream:
        pass
    assert old.output_tokens == 20
    assert (true_provider.bill.calls, true_provider.bill.requests) == (0, 0)
