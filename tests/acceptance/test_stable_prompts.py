"""A prompt begins as the one of the turn before, byte for byte, so that a provider's prefix cache has it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bursar.agents import Agent
from bursar.runtime.models.dialect import OPENAI, OPENAI_COMPATIBLE, dialect_of
from bursar.runtime.models.provider import ModelRequest
from bursar.runtime.models.wire import body_of, encoded
from bursar.tools import tool
from tests.acceptance.support import opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider

texts = st.text(max_size=20)
calls = st.builds(
    lambda id, name, text: {"id": id, "type": "function", "function": {"name": name, "arguments": text}},
    *[texts] * 3,
)
messages = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, texts),
    st.builds(lambda text: {"role": "user", "content": [{"type": "text", "text": text}]}, texts),
    st.builds(
        lambda text, thought, made: {
            "role": "assistant",
            "content": text,
            "reasoning_content": thought,
            "tool_calls": made,
        },
        texts | st.none(),
        texts,
        st.lists(calls, max_size=2),
    ),
    st.builds(lambda id, text: {"role": "tool", "tool_call_id": id, "content": text}, texts, texts),
)
conversations = st.lists(messages, min_size=1, max_size=6)
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("zebra", "apple")
]


def body(turn: list[dict[str, Any]], dialect: Any, max_output_tokens: int) -> bytes:
    request = ModelRequest(
        model="m", messages=turn, max_output_tokens=max_output_tokens, timeout_s=9, tools=TOOLS, extra={"seed": 7}
    )
    return encoded(body_of(request, "max_tokens", dialect))


def up_to_the_end_of_the_messages(body: bytes) -> bytes:
    return body[: body.rindex(b'],"max_tokens"')]


@given(conversations, conversations, st.sampled_from([OPENAI, OPENAI_COMPATIBLE, dialect_of("deepseek", "m")]))
def test_the_body_of_a_turn_begins_with_that_of_the_turn_before(first: Any, more: Any, dialect: Any) -> None:
    """Whatever bound on the output the ledger left each of them."""
    before = up_to_the_end_of_the_messages(body(first, dialect, 500))
    assert body([*first, *more], dialect, 20).startswith(before)


@given(conversations, conversations)
def test_marks_of_a_cache_change_nothing_else_of_an_earlier_turn(first: Any, more: Any) -> None:
    def unmarked(turn: list[dict[str, Any]]) -> list[Any]:
        found: list[Any] = json.loads(body(turn, dialect_of("anthropic", "claude"), 500))["messages"]
        for message in found:
            parts = message["content"] if isinstance(message["content"], list) else []
            for part in parts:
                part.pop("cache_control", None)
            if len(parts) == 1:
                message["content"] = parts[0]["text"]
        return found

    assert unmarked([*first, *more])[: len(first)] == unmarked(first)


@tool(effect="none")
def zebra(query: str) -> str:
    """Search the stables."""
    return f"nothing about {query}"


@tool(effect="none")
def apple(query: str) -> str:
    """Search the orchard."""
    return f"nothing about {query}"


async def test_each_turn_of_an_agent_repeats_the_turns_before_with_its_tools_as_they_were_declared(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    bodies: list[dict[str, Any]] = []

    def script(body: dict[str, Any], number: int) -> Answer:
        bodies.append(body)
        both = [("zebra", {"query": f"it {number}"}), ("apple", {"query": "größer"})]
        return Answer(tool_calls=both) if number < 4 else Answer(text="It is gone.")

    true_provider.behaviour = Behaviour(script=script)
    agent = Agent(name="finder", instructions="Find it.", tools=[zebra, apple])
    async with opened(write_config(tmp_path, true_provider)) as runtime:
        run = await runtime.run(agent, "Where is it?", tenant="acme")
    assert (run.status, len(bodies)) == ("succeeded", 5)
    for before, after in pairwise(bodies):
        kept = len(before["messages"])
        assert json.dumps(after["messages"][:kept]) == json.dumps(before["messages"])
        assert json.dumps(after["tools"]) == json.dumps(before["tools"])
        assert [*after][: [*after].index("messages")] == [*before][: [*before].index("messages")]
    assert [tool["function"]["name"] for tool in bodies[0]["tools"]] == ["zebra", "apple"]
