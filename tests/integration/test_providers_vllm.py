"""What goes to a vLLM server beside a chat completion, byte for byte; tests/vllm asks a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bursar.runtime.models.catalog import Catalog
from bursar.runtime.models.provider import BadReply, ModelRequest, Unavailable
from bursar.runtime.models.vllm import VLLMProvider
from tests.acceptance.support import QUESTION, charged, model_of, one_call, opened, write_config
from tests.support.provider import TrueProvider
from tests.support.wire import Wire, http, served
from tests.unit.runtime.config_texts import model, parse

MESSAGES = [{"role": "user", "content": "hi"}]
ANSWER = {
    "id": "1",
    "choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, "prompt_tokens_details": None},
}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with served() as wire:
        wire.answer = http(200, ANSWER)
        yield wire


async def body_of(
    wire: Wire, *, key: str | None = None, priority: int | None = None, **request: Any
) -> Mapping[str, Any]:
    """What is sent for a request to a server with this key, at this priority."""
    provider = VLLMProvider(key, f"{wire.url}/v1", priority=priority)
    asked = {"model": "tiny", "messages": MESSAGES, "max_output_tokens": 50, "timeout_s": 10, **request}
    await provider.complete(ModelRequest(**asked))
    await provider.aclose()
    return wire.asked[-1][1]


async def test_a_tenants_cache_has_a_salt_that_is_always_the_same_and_shows_neither_tenant_nor_key(wire: Wire) -> None:
    acme, again = [(await body_of(wire, key="sk-house", tenant="acme"))["cache_salt"] for _ in range(2)]
    others = [await body_of(wire, key="sk-house", tenant="zeta"), await body_of(wire, key="sk-other", tenant="acme")]
    assert acme == again
    assert len({acme, *(other["cache_salt"] for other in others)}) == 3
    assert not {"acme", "sk-house"} & {acme}
    assert "acme" not in acme


@pytest.mark.parametrize("priority", [None, 5])
async def test_nobody_chooses_another_tenants_cache_or_a_better_place_in_the_queue(
    priority: int | None, wire: Wire
) -> None:
    chosen = {"cache_salt": "zeta", "priority": -1000}
    body = await body_of(wire, tenant="acme", priority=priority, extra=chosen)
    assert body.get("priority") == priority
    assert body["cache_salt"] == (await body_of(wire, tenant="acme"))["cache_salt"]


async def test_a_priority_is_sent_only_where_one_is_configured_and_a_salt_only_for_a_tenant(wire: Wire) -> None:
    assert not {"priority", "cache_salt"} & (await body_of(wire)).keys()
    assert (await body_of(wire, priority=0))["priority"] == 0


async def test_a_tenants_priority_goes_before_the_models(wire: Wire) -> None:
    section = f'{{provider: vllm, model: tiny, api_base: "{wire.url}/v1", price: free, priority: 3}}'
    catalog = Catalog(parse(f"{model(section)}tenants: {{acme: {{priority: -5}}, zeta: {{}}}}\n"))
    asked = ModelRequest(model="tiny", messages=MESSAGES, max_output_tokens=50, timeout_s=10)
    for tenant in ("acme", "zeta"):
        await catalog.model("m").provider.complete(replace(asked, tenant=tenant))
    await catalog.aclose()
    assert [body["priority"] for _, body in wire.asked] == [-5, 3]


@pytest.mark.parametrize("api_base", ["/v1", "/v1/", ""])
async def test_a_prompt_is_counted_at_the_servers_root_with_its_tools(api_base: str, wire: Wire) -> None:
    wire.answer = http(200, {"count": 12, "max_model_len": 1024, "tokens": []})
    tools = [{"type": "function", "function": {"name": "search"}}]
    provider = VLLMProvider("sk-house", wire.url + api_base)
    assert await provider.count_tokens("tiny", MESSAGES, tools) == 12
    await provider.aclose()
    [(head, body)] = wire.asked
    assert head.startswith("POST /tokenize ")
    assert "authorization: bearer sk-house" in head.lower()
    assert body == {"model": "tiny", "messages": MESSAGES, "tools": tools}


@pytest.mark.parametrize("answer", [{}, {"count": None}, {"count": -1}, {"count": True}, {"count": "12"}])
async def test_what_is_no_count_is_not_taken_for_one(answer: Mapping[str, Any], wire: Wire) -> None:
    wire.answer = http(200, answer)
    provider = VLLMProvider(None, f"{wire.url}/v1")
    with pytest.raises(BadReply, match="expected a count of tokens"):
        await provider.count_tokens("tiny", MESSAGES)
    await provider.aclose()


async def test_a_server_that_is_gone_counts_nothing() -> None:
    async with served() as wire:
        gone = f"{wire.url}/v1"
    provider = VLLMProvider(None, gone)
    with pytest.raises(Unavailable):
        await provider.count_tokens("tiny", MESSAGES)
    await provider.aclose()


async def test_where_the_server_does_not_count_a_call_is_made_on_our_own_count(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    config = write_config(tmp_path, {"tiny": model_of(true_provider) | {"provider": "vllm"}})
    async with opened(config) as runtime:
        run = await runtime.run(one_call(), {"question": QUESTION}, tenant="acme")
    assert (run.status, run.spent.nanousd) == ("succeeded", charged(true_provider.bill))
