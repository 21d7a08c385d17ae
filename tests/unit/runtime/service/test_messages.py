"""Anthropic's Messages API: its requests are chat completions, and answers come in its shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from bursar.budget.pricing.usage_shapes import anthropic
from bursar.budget.usage import Usage
from bursar.runtime.service.answered import Answered
from bursar.runtime.service.errors import BadRequest
from bursar.runtime.service.messages import message_of
from bursar.runtime.service.messages_request import MessagesRequest, chat_body
from bursar.runtime.service.messages_stream import MessageEvents
from bursar.runtime.service.shapes import read_body
from tests.unit.runtime.service.answers import Delta, answered, calls_of, deltas, messages, usages

EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
PLAIN = {"model": "small", "max_tokens": 100, "messages": [{"role": "user", "content": "Good morning!"}]}
KEEP = {"type": "ephemeral"}


def chat(**changes: Any) -> dict[str, Any]:
    return chat_body(read_body(MessagesRequest, PLAIN | changes))


def events_of(parts: list[Delta], answer: Answered) -> Iterator[dict[str, Any]]:
    events = MessageEvents("house", "77")
    yield from events.begin()
    for part in parts:
        yield from events.add(part)
    yield from events.end(answer)


@settings(deadline=None, max_examples=50)
@given(messages())
def test_an_answer_sent_back_is_the_message_that_it_was(message: dict[str, Any]) -> None:
    content = message_of("77", answered(message))["content"]
    [sent] = chat(messages=[{"role": "assistant", "content": content}])["messages"]
    assert sent["content"] == (message["content"] or (None if calls_of(message) else ""))
    assert _read(calls_of(sent)) == _read(calls_of(message))
    for thoughts in ("reasoning_content", "thinking_blocks"):
        assert sent.get(thoughts) == message.get(thoughts)


@settings(deadline=None, max_examples=50)
@given(st.data(), messages(), usages(), st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
def test_every_event_is_one_of_anthropic_s_and_they_come_to_the_answer_given_at_once_however_it_is_cut(
    data: st.DataObject, message: dict[str, Any], usage: Usage, finish_reason: str
) -> None:
    parts: list[Delta] = data.draw(deltas(message))
    answer = answered(message, usage, finish_reason)
    summed, buffers = None, dict[int, bytes]()
    for event in events_of(parts, answer):
        parsed = EVENTS.validate_python(event)
        if parsed.type != "message_stop":
            summed = accumulate_event(event=parsed, current_snapshot=summed, json_bufs=buffers)
    whole = Message.model_validate(message_of("77", answer))
    assert summed is not None
    assert summed.to_dict() == whole.to_dict() | {"usage": summed.usage.to_dict(), "stop_details": None}
    counts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    assert [getattr(summed.usage, name) for name in counts] == [getattr(whole.usage, name) for name in counts]


@settings(deadline=None, max_examples=50)
@given(st.data(), messages())
def test_a_block_ends_before_the_next_begins(data: st.DataObject, message: dict[str, Any]) -> None:
    parts: list[Delta] = data.draw(deltas(message))
    told = [event for event in events_of(parts, answered(message)) if event["type"].startswith("content_block_")]
    bounds = [(event["type"], event["index"]) for event in told if event["type"] != "content_block_delta"]
    blocks = len(bounds) // 2
    assert bounds == [(f"content_block_{word}", n) for n in range(blocks) for word in ("start", "stop")]


@settings(deadline=None, max_examples=50)
@given(messages(), usages())
def test_usage_leaves_cached_tokens_out_of_the_input_and_nothing_else(message: dict[str, Any], usage: Usage) -> None:
    told = message_of("77", answered(message, usage))["usage"]
    assert told["input_tokens"] == usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    assert anthropic({"usage": told}) == (usage if usage.total_tokens else None)


@pytest.mark.parametrize(
    ("finish_reason", "calls", "stop_reason"),
    [
        ("stop", 0, "end_turn"),
        ("stop", 1, "tool_use"),
        ("tool_calls", 1, "tool_use"),
        ("length", 1, "max_tokens"),
        ("content_filter", 0, "refusal"),
        ("eos", 0, "end_turn"),
    ],
)
def test_each_reason_to_stop_has_anthropic_s_word(finish_reason: str, calls: int, stop_reason: str) -> None:
    called = [{"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}] * calls
    message = {"role": "assistant", "content": "So.", "tool_calls": called}
    assert message_of("77", answered(message, None, finish_reason))["stop_reason"] == stop_reason


@pytest.mark.parametrize("arguments", ["{", "[1]", "5"])
def test_arguments_that_are_no_mapping_are_handed_on_as_what_they_are(arguments: str) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert message_of("77", answered(message))["content"][0]["input"] == {"INVALID_JSON": arguments}


def test_a_request_is_a_chat_completion() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    assert chat(
        system=[{"type": "text", "text": "Be brief.", "cache_control": KEEP}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "a", "name": "look", "input": {"at": "die Mühle"}},
                {"type": "tool_use", "id": "b", "name": "look", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "A cat."}]},
                {"type": "tool_result", "tool_use_id": "b", "is_error": True, "cache_control": KEEP, "content": "No."},
                {"type": "text", "text": "And now?"},
            ]},
            {"role": "system", "content": "Answer now."},
        ],
        tools=[{"name": "look", "description": "Look.", "input_schema": {"type": "object"}, "cache_control": KEEP}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 1024},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        stop_sequences=["END"],
        stream=True,
        temperature=0.5,
        metadata={"user_id": "u"},
    ) == {
        "model": "small",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": KEEP}]},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ]},
            {"role": "assistant", "content": "Let me look.", "reasoning_content": "Hm.", "thinking_blocks": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            ], "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at": "die Mühle"}'}},
                {"id": "b", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "a", "content": "A cat."},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "No.", "cache_control": KEEP}]},
            {"role": "user", "content": "And now?"},
            {"role": "system", "content": "Answer now."},
        ],
        "tools": [{
            "type": "function",
            "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}},
            "cache_control": KEEP,
        }],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
        "reasoning_effort": "low",
        "max_reasoning_tokens": 1024,
        "max_completion_tokens": 100,
        "stop": ["END"],
        "stream": True,
        "temperature": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "chat_s"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
    ],
)
def test_each_choice_of_tools_has_a_chat_completion_s_word(choice: dict[str, Any], chat_s: object) -> None:
    assert chat(tool_choice=choice)["tool_choice"] == chat_s


def test_a_mark_on_the_whole_request_is_one_on_its_last_part() -> None:
    [message] = chat(cache_control=KEEP)["messages"]
    assert message["content"] == [{"type": "text", "text": "Good morning!", "cache_control": KEEP}]


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"max_tokens": None}, "max_tokens", "expected a whole number"),
        ({"max_tokens": 0}, "max_tokens", "expected at least 1"),
        ({"messages": []}, "messages", "must not be empty"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0]", "'tool' is not supported here"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content[0]", "'document'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "required"),
        ({"tools": [{"type": "web_search_20250305", "name": "web"}]}, "tools[0].type", "expected 'custom'"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens", "expected at least 1"),
        ({"top_k": 5}, "top_k", "unknown parameter; did you mean top_p?"),
    ],
)
def test_what_cannot_be_served_is_refused_by_the_parameter_s_name(
    changes: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        chat(**changes)
    assert refused.value.param == param
    assert words in refused.value.message


def _read(calls: list[tuple[str, str, str]]) -> list[tuple[str, str, Any]]:
    return [(call_id, name, json.loads(arguments)) for call_id, name, arguments in calls]
