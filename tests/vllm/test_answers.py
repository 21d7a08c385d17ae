"""A real vLLM answers through the runtime as any model does, and the ledger says what it counted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from langchain_core.messages import AIMessage

from bursar.agents import Agent
from bursar.runtime import Runtime, chat_model
from bursar.tools import tool
from tests.acceptance.support import opened, write_config
from tests.vllm.answers import FOUND, OFFER, ORDER, TOOL
from tests.vllm.server import VLLMServer
from tests.vllm.support import model_of, paid, run_node

QUESTION = "Where is my order?"


@pytest.fixture
async def runtime(server: VLLMServer, tmp_path: Path) -> AsyncIterator[Runtime]:
    config = write_config(tmp_path, {"tiny": model_of(server)}, tenants={"acme": {"budgets": [{"usd": "1"}]}})
    async with opened(config) as runtime:
        yield runtime


async def test_an_answer_is_charged_as_the_server_counted_it(server: VLLMServer, runtime: Runtime) -> None:
    with paid(server) as runs:
        run, answer = await run_node(runtime, lambda: chat_model().ainvoke(QUESTION))
        runs.append(run)
    assert answer is not None
    assert answer.text == OFFER


async def test_a_streamed_answer_comes_in_pieces_and_is_charged_the_same(server: VLLMServer, runtime: Runtime) -> None:
    pieces: list[str] = []

    async def listen() -> None:
        pieces.extend([chunk.text async for chunk in chat_model().astream(QUESTION)])

    with paid(server) as runs:
        run, _ = await run_node(runtime, listen)
        runs.append(run)
    assert "".join(pieces) == OFFER
    assert len([piece for piece in pieces if piece]) > 2


@tool(name=TOOL, effect="none")
def find_order(order_id: str) -> str:
    """Look an order up by its number."""
    return f"order {order_id}: on its way"


@pytest.mark.parametrize("choice", [None, "any", TOOL])
async def test_a_tool_is_called_by_the_models_own_choice_by_any_choice_and_by_name(
    choice: str | None, server: VLLMServer, runtime: Runtime
) -> None:
    model = chat_model().bind_tools([dict(find_order.spec)], tool_choice=choice)
    with paid(server) as runs:
        run, answer = await run_node(runtime, lambda: model.ainvoke(QUESTION))
        runs.append(run)
    assert isinstance(answer, AIMessage)
    [call] = answer.tool_calls
    assert (call["name"], call["args"]) == (TOOL, ORDER)


async def test_an_agent_calls_its_tool_and_answers(server: VLLMServer, runtime: Runtime) -> None:
    support = Agent(name="support", instructions="Settle refund requests.", tools=[find_order], max_output_tokens=100)
    with paid(server) as runs:
        runs.append(run := await runtime.run(support, QUESTION, tenant="acme"))
    assert (run.status, run.output, run.steps, run.spent.tool_calls) == ("succeeded", FOUND, 2, 1)


async def test_arguments_that_violate_the_tools_schema_never_reach_the_tool(
    server: VLLMServer, runtime: Runtime
) -> None:
    called = []

    @tool(name=TOOL, effect="none")
    def find_by_year(order_id: str, year: int) -> str:
        """Look an order up by its number and year."""
        called.append(order_id)
        return "found"

    strict = Agent(name="strict", instructions="Settle refund requests.", tools=[find_by_year], max_output_tokens=100)
    with paid(server) as runs:
        runs.append(run := await runtime.run(strict, QUESTION, tenant="acme"))
    assert (run.status, run.spent.tool_calls, called) == ("succeeded", 0, [])


async def test_an_answer_obeys_a_json_schema(server: VLLMServer, runtime: Runtime) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"refund": {"type": "boolean"}, "days": {"enum": [1, 2, 3]}},
        "required": ["refund", "days"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema, "strict": True}}
    with paid(server) as runs:
        run, answer = await run_node(runtime, lambda: chat_model().bind(response_format=wanted).ainvoke(QUESTION))
        runs.append(run)
    assert answer is not None
    jsonschema.validate(json.loads(answer.text), schema)
