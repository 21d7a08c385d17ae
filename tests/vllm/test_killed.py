"""A real vLLM dies: what it was writing is charged as unknown, and an agent goes on with the next model."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bursar.agents import Agent
from bursar.runtime import chat_model
from bursar.tools import tool
from tests.acceptance.support import Texts, charged, fan_out, opened, write_config
from tests.acceptance.support import model_of as cloud_of
from tests.support.provider import Answer, Behaviour, TrueProvider
from tests.vllm.answers import STORY_WISH, TOOL
from tests.vllm.server import Served, VLLMServer
from tests.vllm.support import attempts, charge, model_of

HEARD = 5
"""Pieces of an answer that had come when the server was killed."""


async def test_of_a_killed_server_a_stream_is_charged_as_unknown_and_an_agent_finishes_with_the_next_model(
    doomed_server: VLLMServer, true_provider: TrueProvider, tmp_path: Path
) -> None:
    true_provider.behaviour = Behaviour(script=[Answer(text="It is on its way.")])
    found, begun, killed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @tool(name=TOOL, effect="none")
    async def find_order(order_id: str) -> str:
        """Look an order up by its number."""
        found.set()
        await killed.wait()
        return "on its way"

    async def listen(_: Texts) -> Texts:
        heard = 0
        async for chunk in chat_model(max_output_tokens=900).astream(STORY_WISH):
            heard += bool(chunk.text)
            if heard == HEARD:
                begun.set()
        return {}

    support = Agent(name="support", instructions="Settle refund requests.", tools=[find_order], max_output_tokens=100)
    models = {"tiny": model_of(doomed_server, max_output_tokens=900), "cloud": cloud_of(true_provider)}
    async with opened(write_config(tmp_path, models)) as runtime:
        agent = asyncio.create_task(runtime.run(support, "Where is my order?", tenant="acme"))
        await found.wait()
        story = asyncio.create_task(runtime.run(fan_out(1, node=listen), {"question": ""}, tenant="acme"))
        await begun.wait()
        doomed_server.kill()
        killed.set()
        told, finished = await story, await agent

    assert told.status == "failed"
    [broken] = attempts(tmp_path, told)
    assert (broken.model, broken.state, broken.outcome) == ("tiny", "settled", "unknown")
    assert charge(Served(0, 0, HEARD)) <= broken.posted.nanousd < broken.held.nanousd

    assert (finished.status, finished.output) == ("succeeded", "It is on its way.")
    calls = [attempt for attempt in attempts(tmp_path, finished) if attempt.kind == "model"]
    first, *refused, last = calls
    assert first.usage is not None
    read, cached = first.usage.input_tokens, first.usage.cache_read_tokens
    assert first.posted.nanousd == charge(Served(read - cached, cached, first.usage.output_tokens))
    assert refused
    assert all((attempt.model, attempt.state) == ("tiny", "released") for attempt in refused)
    assert (last.model, last.outcome, last.posted.nanousd) == ("cloud", "exact", charged(true_provider.bill))
    assert finished.spent.nanousd == first.posted.nanousd + last.posted.nanousd
