"""What a real vLLM says of prompts: how long they are, what it had in its cache, and which adapter reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bursar.runtime import Runtime, chat_model
from bursar.runtime.models.provider import ModelMissing, ModelRequest
from bursar.runtime.models.vllm import VLLMProvider
from bursar.runtime.runs.run import Run
from tests.acceptance.support import opened, write_config
from tests.vllm.answers import OFFER, ORDER, OTHER_OFFER, TOOL
from tests.vllm.server import MODELS, VLLMServer
from tests.vllm.support import attempts, model_of, paid, run_node

BLOCK_TOKENS = 32
"""What the server caches at once."""

SYSTEM = {"role": "system", "content": "Settle refund requests, and be brief. " * 12}
USER = {"role": "user", "content": "Wo bleibt meine Bestellung — 1001? 我的订单在哪里 🙂"}
CALLS = [{"id": "c1", "type": "function", "function": {"name": TOOL, "arguments": '{"order_id": "1001"}'}}]
RESULT = {"role": "tool", "tool_call_id": "c1", "content": str(ORDER)}
TOOLS = [{"type": "function", "function": {"name": TOOL, "description": "Look.", "parameters": {"type": "object"}}}]


@pytest.fixture
async def provider(server: VLLMServer) -> AsyncIterator[VLLMProvider]:
    provider = VLLMProvider(None, server.api_base)
    yield provider
    await provider.aclose()


@pytest.mark.parametrize(
    ("messages", "tools"),
    [
        ([USER], []),
        ([SYSTEM, USER], []),
        ([SYSTEM, USER], TOOLS),
        ([SYSTEM, USER, {"role": "assistant", "content": None, "tool_calls": CALLS}, RESULT], TOOLS),
    ],
)
async def test_a_prompt_is_counted_before_the_call_to_the_token_that_the_call_is_charged(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], provider: VLLMProvider
) -> None:
    counted = await provider.count_tokens("tiny", messages, tools)
    request = ModelRequest(model="tiny", messages=messages, tools=tools, max_output_tokens=4, timeout_s=60)
    reply = await provider.complete(request)
    assert reply.usage is not None
    assert reply.usage.input_tokens == counted


async def test_a_call_is_reserved_for_just_the_tokens_that_it_reads(server: VLLMServer, tmp_path: Path) -> None:
    async with opened(write_config(tmp_path, {"tiny": model_of(server)})) as runtime:
        model = chat_model(max_output_tokens=20).bind_tools(TOOLS)
        run, _ = await run_node(runtime, lambda: model.ainvoke([SYSTEM, USER]))
    [attempt] = attempts(tmp_path, run)
    assert attempt.held.tokens == run.usage.input_tokens + 20


async def test_a_model_that_the_server_does_not_have_is_not_counted_for(provider: VLLMProvider) -> None:
    with pytest.raises(ModelMissing, match="nowhere"):
        await provider.count_tokens("nowhere", [USER])


@pytest.fixture
async def runtime(server: VLLMServer, tmp_path: Path) -> AsyncIterator[Runtime]:
    models = {
        "tiny": model_of(server),
        "first": model_of(server, priority=-1),
        "other": model_of(server, model="other"),
    }
    tiers = {"small": ["tiny"], "first": ["first"], "other": ["other"]}
    config = write_config(tmp_path, models, tiers=tiers, tenants={"acme": {}, "zeta": {}})
    async with opened(config) as runtime:
        yield runtime


async def test_a_prefix_is_cached_for_the_tenant_that_sent_it_and_for_no_other(
    server: VLLMServer, runtime: Runtime
) -> None:
    async def ask(question: str, tenant: str) -> Run:
        prompt = [SYSTEM, {"role": "user", "content": question}]
        run, _ = await run_node(runtime, lambda: chat_model().ainvoke(prompt), tenant=tenant)
        runs.append(run)
        return run

    with paid(server) as runs:
        first, again, elsewhere = await ask("Where?", "acme"), await ask("When?", "acme"), await ask("When?", "zeta")
    assert again.usage.cache_read_tokens >= 2 * BLOCK_TOKENS
    assert first.usage.cache_read_tokens == elsewhere.usage.cache_read_tokens == 0
    assert again.cost_usd < elsewhere.cost_usd


async def test_an_adapter_loaded_while_the_server_runs_is_a_model_that_answers_otherwise(
    server: VLLMServer, runtime: Runtime
) -> None:
    loaded = server.post("/v1/load_lora_adapter", lora_name="other", lora_path=str(MODELS / "other"))
    assert loaded.is_success, loaded.text
    with paid(server) as runs:
        run, answer = await run_node(runtime, lambda: chat_model("small").ainvoke("Hello"))
        other_run, other_answer = await run_node(runtime, lambda: chat_model("other").ainvoke("Hello"))
        runs.extend([run, other_run])
    assert answer is not None
    assert other_answer is not None
    assert (answer.text, other_answer.text) == (OFFER, OTHER_OFFER)


async def test_a_call_with_a_priority_is_taken(server: VLLMServer, runtime: Runtime) -> None:
    with paid(server) as runs:
        run, _ = await run_node(runtime, lambda: chat_model("first").ainvoke("Hello"))
        runs.append(run)
