"""OpenAI's Responses API: its requests are chat completions, and answers come in its shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from bursar.budget.usage import Usage
from bursar.runtime.models.provider import BadReply
from bursar.runtime.service.answered import Answered
from bursar.runtime.service.errors import BadRequest
from bursar.runtime.service.problems import Problem
from bursar.runtime.service.responses import Opening, response_of
from bursar.runtime.service.responses_request import ResponsesRequest, chat_body
from bursar.runtime.service.responses_stream import ResponseEvents
from bursar.runtime.service.shapes import read_body
from tests.unit.runtime.service.answers import Delta, answered, calls_of, deltas, messages, usages

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PLAIN = {"model": "small", "input": "Good morning!"}


def opening(**changes: Any) -> Opening:
    return Opening(
        request=read_body(ResponsesRequest, PLAIN | changes), own="77", model="house", created_s=1_700_000_000
    )


def chat(**changes: Any) -> dict[str, Any]:
    return chat_body(read_body(ResponsesRequest, PLAIN | changes))


def events_of(parts: list[Delta], answer: Answered) -> Iterator[dict[str, Any]]:
    events = ResponseEvents(opening())
    yield from events.begin()
    for part in parts:
        yield from events.add(part)
    yield from events.end(answer)


@settings(deadline=None, max_examples=50)
@given(messages())
def test_an_answer_sent_back_is_the_message_that_it_was(message: dict[str, Any]) -> None:
    output = response_of(opening(), answered(message))["output"]
    assert chat(input=output)["messages"] == ([message] if message["content"] or calls_of(message) else [])


@settings(deadline=None, max_examples=50)
@given(st.data(), messages(), st.none() | usages(), st.sampled_from(["stop", "length", "content_filter"]))
def test_a_stream_comes_to_the_answer_given_at_once_however_it_is_cut(
    data: st.DataObject, message: dict[str, Any], usage: Usage | None, finish_reason: str
) -> None:
    answer = answered(message, usage, finish_reason)
    events = list(events_of(data.draw(deltas(message)), answer))
    assert events[-1]["response"] == response_of(opening(), answer)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@settings(deadline=None, max_examples=50)
@given(st.data(), messages())
def test_every_event_is_one_of_openai_s_and_its_client_adds_them_up(
    data: st.DataObject, message: dict[str, Any]
) -> None:
    client: ResponseStreamState[None] = ResponseStreamState(input_tools=omit, text_format=omit)
    parts: list[Delta] = data.draw(deltas(message))
    answer = answered(message, Usage(input_tokens=7, output_tokens=3))
    seen = [one for event in events_of(parts, answer) for one in client.handle_event(EVENTS.validate_python(event))]
    said = [event.snapshot for event in seen if event.type == "response.output_text.delta"]
    assert said[-1:] == ([message["content"]] if message["content"] else [])
    called = {
        event.output_index: event.snapshot for event in seen if event.type == "response.function_call_arguments.delta"
    }
    assert list(called.values()) == [arguments for _, _, arguments in calls_of(message)]
    assert seen[-1].type == "response.completed"
    assert seen[-1].response.output_text == (message["content"] or "")


@settings(deadline=None, max_examples=50)
@given(messages(), usages())
def test_an_answer_is_a_response_of_openai_s(message: dict[str, Any], usage: Usage) -> None:
    response = Response.model_validate(response_of(opening(), answered(message, usage)))
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == usage.cache_read_tokens
    assert response.usage.total_tokens == usage.total_tokens


def test_an_answer_of_which_nothing_was_streamed_comes_whole_at_its_end() -> None:
    message = {"role": "assistant", "content": "Hello.", "tool_calls": None}
    events = list(events_of([], answered(message)))
    assert [event["delta"] for event in events if event["type"] == "response.output_text.delta"] == ["Hello."]


def test_words_beside_a_call_that_is_open_come_after_it() -> None:
    begun = {"index": 0, "id": "one", "function": {"name": "look", "arguments": "{"}}
    parts: list[Delta] = [
        {"tool_calls": [begun]},
        {"content": "Wait"},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
        {"content": "."},
    ]
    last = list(events_of(parts, answered({"role": "assistant", "content": "Wait."})))[-1]["response"]
    assert [item["type"] for item in last["output"]] == ["function_call", "message"]
    assert last["output"][0]["arguments"] == "{}"
    assert last["output"][1]["content"][0]["text"] == "Wait."


def test_a_provider_that_goes_back_to_an_earlier_call_is_not_believed() -> None:
    parts = [{"tool_calls": [{"index": n, "function": {"name": "look", "arguments": "{"}}]} for n in (0, 1, 0)]
    with pytest.raises(BadReply, match="went back to tool call 0"):
        list(events_of(parts, answered({"role": "assistant", "content": None})))


def test_an_answer_that_broke_off_ends_in_an_event_that_says_so() -> None:
    events = ResponseEvents(opening())
    list(events.begin())
    [event] = events.fail(Problem(status=502, code="broken_stream", detail="the answer broke off"))
    assert EVENTS.validate_python(event).response.error.message == "the answer broke off"


def test_a_request_is_a_chat_completion() -> None:
    assert chat(
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": "Use the tools."},
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
            ]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look."}]},
            {"type": "function_call", "call_id": "a", "name": "look", "arguments": '{"at": 1}', "status": "completed"},
            {"type": "function_call", "call_id": "b", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "A cat."},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "A dog."}]},
        ],
        tools=[{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}],
        tool_choice={"type": "function", "name": "look"},
        text={"format": {"type": "json_schema", "name": "pet", "schema": {"type": "object"}}, "verbosity": "low"},
        max_output_tokens=50,
        reasoning={"effort": "low"},
        parallel_tool_calls=False,
        store=True,
        stream=True,
        temperature=0.5,
    ) == {
        "model": "small",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "Use the tools."},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
            ]},
            {"role": "assistant", "content": "Let me look.", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}},
                {"id": "b", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "a", "content": "A cat."},
            {"role": "tool", "tool_call_id": "b", "content": "A dog."},
        ],
        "tools": [
            {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}}
        ],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "pet", "schema": {"type": "object"}}},
        "max_completion_tokens": 50,
        "reasoning_effort": "low",
        "verbosity": "low",
        "parallel_tool_calls": False,
        "stream": True,
        "temperature": 0.5,
    }  # fmt: skip


def test_what_a_model_says_after_its_calls_stays_with_them() -> None:
    """Results must follow the calls, so nothing may stand between."""
    items = [
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
        {"role": "assistant", "content": "I am looking."},
        {"type": "function_call_output", "call_id": "a", "output": "A cat."},
    ]
    assert [message["role"] for message in chat(input=items)["messages"]] == ["assistant", "tool"]


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the earlier items as input"),
        ({"background": True}, "background", "leave it out and stream"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "expected 'function'"),
        ({"input": [{"type": "computer_call"}]}, "input[0]", "'computer_call' is not supported here"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]", "'input_file'"),
        ({"input": [{"type": "function_call", "name": "look"}]}, "input[0].call_id", "this key is required"),
        ({"input": 5}, "input", "expected a list"),
        ({"input": []}, "input", "must not be empty"),
        ({"max_output_tokens": "5"}, "max_output_tokens", "expected a whole number"),
        ({"temprature": 1.0}, "temprature", "did you mean temperature?"),
        ({"model": None}, "model", "expected text"),
    ],
)
def test_what_cannot_be_served_is_refused_by_the_parameter_s_name(
    changes: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        chat(**changes)
    assert refused.value.param == param
    assert words in refused.value.message


@pytest.mark.parametrize("body", [None, [], "text", 5])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(BadRequest, match="expected a mapping"):
        read_body(ResponsesRequest, body)


def test_what_is_switched_off_is_not_asked_for() -> None:
    assert chat(background=False, previous_response_id=None, conversation=None) == chat()
