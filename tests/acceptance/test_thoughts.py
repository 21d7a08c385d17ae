"""What a model thought before it answered goes back to it in its next turn, signatures and all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from bursar.agents import Agent
from bursar.budget.usage import Usage
from bursar.runtime import chat_model
from bursar.runtime.models.provider import ModelReply, ModelRequest
from bursar.runtime.models.sim import SimProvider
from tests.acceptance.support import opened, write_config

THOUGHTS = {
    "reasoning_content": "hm",
    "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"}],
}
REPLY = ModelReply(
    message={"role": "assistant", "content": "hello", **THOUGHTS},
    usage=Usage(input_tokens=5, output_tokens=5, reasoning_tokens=2),
    finish_reason="stop",
)


@pytest.mark.parametrize("how", ["whole", "streamed"])
async def test_the_next_turn_of_a_chat_model_carries_the_thoughts_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    asked: list[ModelRequest] = []

    async def complete(_: SimProvider, request: ModelRequest) -> ModelReply:
        asked.append(request)
        return REPLY

    async def stream(_: SimProvider, request: ModelRequest) -> AsyncIterator[Mapping[str, Any] | ModelReply]:
        asked.append(request)
        yield {"reasoning_content": "hm"}
        yield {"content": "hello"}
        yield REPLY

    async def node(state: MessagesState) -> MessagesState:
        first = HumanMessage("Good morning!")
        said = await answer(state)
        await chat_model().ainvoke([first, said, HumanMessage("And now?")])
        return {"messages": [said]}

    async def answer(state: MessagesState) -> AIMessage:
        if how == "whole":
            return await chat_model().ainvoke(state["messages"])
        chunks = [chunk async for chunk in chat_model().astream(state["messages"])]
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        assert isinstance(whole, AIMessageChunk)
        return whole

    monkeypatch.setattr(SimProvider, "complete", complete)
    monkeypatch.setattr(SimProvider, "stream", stream)
    graph = StateGraph(MessagesState)
    graph.add_node("work", node)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    async with opened(write_config(tmp_path, {"house": {"provider": "sim", "scenario": "echo"}})) as runtime:
        run = await runtime.run(graph, {"messages": [("user", "Good morning!")]}, tenant="acme")
    assert run.status == "succeeded", run.stop_reason
    said = asked[-1].messages[1]
    assert {key: said.get(key) for key in THOUGHTS} == THOUGHTS


@pytest.mark.parametrize("node", ["agent", "chat_model"])
async def test_how_hard_and_how_long_a_node_may_think_is_what_its_model_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: str
) -> None:
    asked: list[ModelRequest] = []

    async def complete(_: SimProvider, request: ModelRequest) -> ModelReply:
        asked.append(request)
        return REPLY

    monkeypatch.setattr(SimProvider, "complete", complete)
    bounds: dict[str, Any] = {"max_output_tokens": 2_000, "reasoning_effort": "low", "max_reasoning_tokens": 500}

    async def think(state: MessagesState) -> MessagesState:
        return {"messages": [await chat_model(**bounds).ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("work", think)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    async with opened(write_config(tmp_path, {"house": {"provider": "sim", "scenario": "echo"}})) as runtime:
        if node == "agent":
            await runtime.run(Agent(name="clerk", instructions="Think.", tier="small", **bounds), "Hm?", tenant="acme")
        else:
            await runtime.run(graph, {"messages": [("user", "Hm?")]}, tenant="acme")
    [request] = asked
    assert (request.reasoning_effort, request.max_reasoning_tokens) == ("low", 500)
    assert request.max_output_tokens == 2_000
