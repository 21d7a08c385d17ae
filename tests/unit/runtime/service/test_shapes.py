"""Any body is served or refused by the name of what is wrong with it; none is an error of the gateway's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bursar.runtime.service import messages_request, responses_request
from bursar.runtime.service.chat_request import ChatRequest
from bursar.runtime.service.embeddings import EmbeddingsRequest
from bursar.runtime.service.messages_request import MessagesRequest
from bursar.runtime.service.responses_request import ResponsesRequest
from bursar.runtime.service.shapes import Body, ParameterError, read_body

Place = tuple[str | int, ...]

CHAT: Any = {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}
RESPONSES: Any = {
    "model": "small",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": "u"}]},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}], "encrypted_content": "s"},
        {"type": "message", "role": "assistant", "content": "Wait."},
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "A cat."},
    ],
    "tools": [{"type": "function", "name": "look", "parameters": {}}],
    "tool_choice": {"type": "function", "name": "look"},
    "text": {"format": {"type": "json_schema", "name": "pet", "schema": {}}},
    "reasoning": {"effort": "low"},
    "background": False,
}
MESSAGES: Any = {
    "model": "small",
    "max_tokens": 10,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "tool_use", "id": "a", "name": "look", "input": {}},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "A cat."}]},
    ],
    "tools": [{"name": "look", "input_schema": {}}],
    "tool_choice": {"type": "tool", "name": "look"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"format": {"type": "json_schema", "schema": {}}},
    "stop_sequences": ["END"],
}  # fmt: skip

KINDS: dict[str, tuple[type[Body], Any, Callable[[Any], dict[str, Any]]]] = {
    "responses": (ResponsesRequest, RESPONSES, responses_request.chat_body),
    "messages": (MessagesRequest, MESSAGES, messages_request.chat_body),
}

_names = st.just("type") | st.text(max_size=5)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(_names, parts, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_body_with_anything_anywhere_is_served_or_refused_by_name(kind: str, data: st.DataObject) -> None:
    shape, valid, chat_body = KINDS[kind]
    body = copy.deepcopy(valid)
    place = data.draw(st.sampled_from(list(_places(body))))
    inner = body
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = data.draw(anything)
    param = _refused(lambda: chat_body(read_body(shape, body)))
    assert param is None or param.partition("[")[0].partition(".")[0] == place[0]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(anything)
def test_any_json_is_served_or_refused(kind: str, body: Any) -> None:
    with pytest.raises(ParameterError):
        read_body(KINDS[kind][0], body)


def _refused(serve: Callable[[], object]) -> str | None:
    """The parameter for which a body is refused; None where it is served."""
    try:
        serve()
    except ParameterError as refused:
        return refused.param or ""
    return None


def _places(value: Any, way: Place = ()) -> Iterator[Place]:
    """The ways to all values within."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*way, step)
        yield from _places(inner, (*way, step))


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        (ChatRequest, {"model": "small", "messages": [1] * 1_000}, "messages"),
        (ChatRequest, {"model": "small", "messages": [{"role": "user", "content": [1] * 1_000}]}, "messages"),
        (ChatRequest, {**CHAT, "tools": [1] * 1_000}, "tools"),
        (ResponsesRequest, {"model": "small", "input": [1] * 1_000}, "input"),
        (MessagesRequest, {**MESSAGES, "messages": [1] * 1_000}, "messages"),
        (EmbeddingsRequest, {"model": "small", "input": [1] * 1_000}, "input"),
    ],
)
def test_a_thousand_mistakes_are_read_no_further_than_the_first(kind: type[Body], body: Any, param: str) -> None:
    """Each costs a thousand times the memory of what is wrong, and only one is told."""
    with pytest.raises(ValidationError) as found:
        kind.model_validate(body)
    assert found.value.error_count() <= 3, "one for each shape that a value may have"
    with pytest.raises(ParameterError, match=param):
        read_body(kind, body)
