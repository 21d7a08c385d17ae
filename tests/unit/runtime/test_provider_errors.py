"""What an answer or a failure on the wire means: which usage, which error, and never a secret in its words."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import httpx
import openai
import pytest
from aiohttp.client_reqrep import ConnectionKey
from hypothesis import given, settings
from hypothesis import strategies as st

from bursar.budget.errors import ConfigError
from bursar.budget.usage import Usage
from bursar.runtime.models import provider as tree
from bursar.runtime.models.dialect import OPENAI
from bursar.runtime.models.failures import EXCERPT_CHARACTERS, excerpt, provider_error
from bursar.runtime.models.litellm_sdk import LiteLLMProvider
from bursar.runtime.models.openai_sdk import OpenAIProvider
from bursar.runtime.models.provider import BadReply, BrokenStream, ModelRequest, NotSent, ProviderError
from bursar.runtime.models.wire import StreamedAnswer, body_of, encoded, parsed, reply_of, usage_of

KEY = "sk-very-secret"
POST = httpx.Request("POST", "http://127.0.0.1/v1/chat/completions")
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


def request(**changes: Any) -> ModelRequest:
    return ModelRequest(**{"model": "m", "messages": QUESTION, "max_output_tokens": 50, "timeout_s": 5, **changes})


def refused(status: int, body: str = "", **headers: str) -> ProviderError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx.Response(status, text=body, headers=named, request=POST)
    return provider_error(httpx.HTTPStatusError("", request=POST, response=response), who="here", secret=KEY)


def usage(read: Any, written: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": read, "completion_tokens": written, **more}


def whole(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "r1", "choices": [{"message": message, "finish_reason": "stop"}], **more}


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "r1", "choices": [{"delta": delta, "finish_reason": finish_reason}], **more}


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "kind", "billed"),
        [
            (302, tree.ModelMissing, "no"),
            (400, tree.RequestRefused, "no"),
            (401, tree.AuthFailed, "no"),
            (402, tree.QuotaExhausted, "no"),
            (403, tree.AuthFailed, "no"),
            (404, tree.ModelMissing, "no"),
            (408, tree.CallTimeout, "unknown"),
            (413, tree.RequestRefused, "no"),
            (422, tree.RequestRefused, "no"),
            (429, tree.RateLimited, "no"),
            (500, tree.Unavailable, "no"),
            (503, tree.Overloaded, "no"),
            (504, tree.CallTimeout, "unknown"),
            (524, tree.CallTimeout, "unknown"),
            (529, tree.Overloaded, "no"),
        ],
    )
    def test_a_status_decides_the_error(self, status: int, kind: type[ProviderError], billed: str) -> None:
        error = refused(status)
        assert (type(error), error.status, error.billed) == (kind, status, billed)

    def test_a_gateway_that_gave_up_waiting_may_have_been_billed(self) -> None:
        assert refused(504).billed == "unknown"

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry_after": "7"}, 7),
            ({"retry_after": "0.5"}, 0.5),
            ({"retry_after": "-3"}, 0),
            ({"retry_after_ms": "250", "retry_after": "7"}, 0.25),
            ({"retry_after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}, 30),
            ({"retry_after": "Fri, 20 Nov 2026 11:00:00 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}, 0),
            ({"retry_after": "soon"}, None),
            ({"retry_after": "inf"}, None),
        ],
    )
    def test_how_long_to_wait_is_read_as_seconds_or_as_a_date(
        self, headers: dict[str, str], seconds: float | None
    ) -> None:
        assert refused(429, **headers).retry_after_s == seconds

    def test_the_message_says_who_what_and_why(self) -> None:
        assert str(refused(400, '{"error": {"message": "no such model"}}')) == "here answered HTTP 400: no such model"
        assert str(refused(502, "<h1>Bad\n  gateway</h1>")) == "here answered HTTP 502: <h1>Bad gateway</h1>"
        assert "api_base" in str(refused(307, location="https://elsewhere/v1"))

    def test_a_key_that_the_server_repeats_is_not_passed_on(self) -> None:
        error = refused(401, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}))
        assert str(error) == "here answered HTTP 401: Incorrect API key provided: [key]"


class TestConnection:
    @pytest.mark.parametrize(
        ("cause", "kind"),
        [
            (httpx.ConnectError("refused"), tree.Unavailable),
            (httpx.ConnectTimeout("too slow"), tree.Unavailable),
            (httpx.PoolTimeout("all busy"), tree.Unavailable),
            (httpx.ReadTimeout("silence"), tree.CallTimeout),
            (httpx.WriteTimeout("half sent"), tree.CallTimeout),
            (httpx.ReadError("reset"), tree.BrokenStream),
            (httpx.WriteError("reset"), tree.BrokenStream),
            (httpx.RemoteProtocolError("cut off"), tree.BrokenStream),
            (httpx.DecodingError("not gzip"), tree.BadReply),
        ],
    )
    def test_only_what_was_surely_not_sent_is_surely_not_billed(
        self, cause: httpx.RequestError, kind: type[ProviderError]
    ) -> None:
        error = RuntimeError("what a library made of it")
        error.__cause__ = cause
        found = provider_error(error, who="here")
        assert type(found) is kind
        assert (found.billed == "no") == (kind is tree.Unavailable)

    def test_a_connection_reset_after_the_request_is_not_one_that_was_never_made(self) -> None:
        """litellm's transport on aiohttp calls both the same."""
        reset, never = httpx.ConnectError("reset"), httpx.ConnectError("refused")
        reset.__cause__ = aiohttp.ClientOSError(104, "reset by peer")
        target = ConnectionKey("127.0.0.1", 9, False, True, None, None, None)
        never.__cause__ = aiohttp.ClientConnectorError(target, OSError(111, "refused"))
        assert type(provider_error(reset, who="here")) is tree.BrokenStream
        assert type(provider_error(never, who="here")) is tree.Unavailable

    @pytest.mark.parametrize(
        ("told", "kind"),
        [
            ({"code": 503, "message": "busy", "type": "Service Unavailable"}, tree.Overloaded),
            ({"code": 429, "message": "slow down"}, tree.RateLimited),
            ({"type": "overloaded_error", "message": "Overloaded"}, tree.Overloaded),
            ({"code": 500, "message": "EngineCore encountered an issue."}, tree.BrokenStream),
            ({"message": "something"}, tree.BrokenStream),
        ],
    )
    def test_a_refusal_in_a_stream_means_what_its_status_would_have_meant(
        self, told: dict[str, Any], kind: type[ProviderError]
    ) -> None:
        assert type(provider_error(openai.APIError("no", POST, body=told), who="here")) is kind
        assert provider_error(openai.APIError("no", POST, body=told), who="here", started=True).billed == "unknown"

    def test_a_failure_after_the_answer_began_is_never_free(self) -> None:
        assert type(provider_error(httpx.ConnectError("?"), who="here", started=True)) is tree.BrokenStream
        assert type(provider_error(ValueError("?"), who="here", started=True)) is tree.BrokenStream

    def test_what_led_to_the_call_is_no_evidence_about_it(self) -> None:
        """A call made while an earlier 429 is being handled has that 429 as its context."""
        earlier = httpx.HTTPStatusError("", request=POST, response=httpx.Response(429, request=POST))
        error = ValueError("no JSON")
        error.__context__ = earlier
        assert type(provider_error(error, who="here", until=earlier)) is tree.BadReply

    def test_a_timeout_of_the_whole_call_may_have_been_billed(self) -> None:
        error = provider_error(TimeoutError(), who="here")
        assert (type(error), str(error)) == (tree.CallTimeout, "here: no answer in time")

    @settings(deadline=None)  # a busy machine is no property of a message
    @given(st.text(max_size=400).map(lambda text: f"{text}{KEY}{text}"))
    def test_an_excerpt_is_one_short_printable_line_without_the_secret(self, text: str) -> None:
        line = excerpt(text, KEY)
        assert line.isprintable()
        assert len(line) <= EXCERPT_CHARACTERS + 3
        assert KEY not in line


class TestAnswer:
    def test_a_whole_answer_becomes_a_reply(self) -> None:
        call = {"id": "c1", "function": {"name": "search", "arguments": '{"q": 1}'}}
        reply = reply_of(whole({"content": None, "tool_calls": [call]}, usage=usage(10, 5)))
        assert reply.message == {"role": "assistant", "content": None, "tool_calls": [{**call, "type": "function"}]}
        assert (reply.usage, reply.response_id) == (Usage(input_tokens=10, output_tokens=5), "r1")

    @pytest.mark.parametrize(
        ("message", "text"),
        [
            ({"content": "hello"}, "hello"),
            ({"content": [{"type": "thinking"}, {"type": "text", "text": "hello"}]}, "hello"),
            ({"content": None, "refusal": "I cannot help with that."}, "I cannot help with that."),
            ({"content": "\ud83d\ude00"}, "\U0001f600"),
            ({}, None),
        ],
    )
    def test_every_servers_way_to_say_text_is_text(self, message: dict[str, Any], text: str | None) -> None:
        assert reply_of(whole(message)).message["content"] == text

    def test_a_tool_call_without_an_id_or_with_arguments_as_a_mapping_is_made_whole(self) -> None:
        calls = [{"function": {"name": "a", "arguments": {"x": 1}}}, {"id": "", "function": {"name": "b"}}]
        made = reply_of(whole({"tool_calls": calls})).message["tool_calls"]
        assert [(call["id"], call["function"]["arguments"]) for call in made] == [
            ("call_r1_0", '{"x": 1}'),
            ("call_r1_1", "{}"),
        ]

    @pytest.mark.parametrize(
        "answer",
        [
            None,
            [],
            "text",
            {},
            {"choices": []},
            {"choices": None},
            {"choices": [None]},
            {"choices": [{"message": None}]},
            {"error": {"message": "overloaded"}},
            whole({"content": 42}),
            whole({"tool_calls": [{"function": {}}]}),
            whole({"tool_calls": ["search"]}),
            whole({"content": "hello"}, usage="much"),
        ],
    )
    def test_what_is_no_answer_is_a_bad_reply(self, answer: Any) -> None:
        with pytest.raises(BadReply):
            reply_of(answer)

    @pytest.mark.parametrize(
        ("content", "shown"),
        [(b"", "an empty body"), (b"<html>\nhi", "'<html> hi'"), (b"\xff", "not"), (b"[" * 100_000, "not")],
    )
    def test_a_body_that_is_no_json_is_shown_in_short(self, content: bytes, shown: str) -> None:
        with pytest.raises(BadReply, match=shown):
            parsed(content)


class TestUsage:
    def test_the_parts_of_usage_are_included_in_its_wholes(self) -> None:
        assert usage_of(
            usage(
                100,
                50,
                total_tokens=150,
                prompt_tokens_details={"cached_tokens": 60, "cache_write_tokens": 30},
                completion_tokens_details={"reasoning_tokens": 20},
            )
        ) == Usage(input_tokens=100, output_tokens=50, cache_read_tokens=60, cache_write_tokens=30, reasoning_tokens=20)

    @pytest.mark.parametrize("said", [None, {}, usage(None, 5), usage(5, None), usage(0, 0)])
    def test_unknown_usage_is_none_and_not_zero(self, said: Any) -> None:
        assert usage_of(said) is None

    def test_thinking_that_only_the_total_counts_is_output(self) -> None:
        said = usage(10, 5, total_tokens=215, completion_tokens_details={"reasoning_tokens": 200})
        assert usage_of(said) == Usage(input_tokens=10, output_tokens=205, reasoning_tokens=200)

    def test_details_that_are_null_are_nothing(self) -> None:
        said = usage(10, 5, prompt_tokens_details={"cached_tokens": None}, completion_tokens_details=None)
        assert usage_of(said) == Usage(input_tokens=10, output_tokens=5)

    @pytest.mark.parametrize(
        "said",
        [
            usage(-1, 5),
            usage(10, -5, total_tokens=15),
            usage("10", 5),
            usage(10.5, 5),
            usage(10**19, 5),
            usage(10, 5, total_tokens=10**19),
            usage(10, 10**400),
            usage(10, 5, prompt_tokens_details={"cached_tokens": 11}),
            usage(10, 5, completion_tokens_details={"reasoning_tokens": 6}),
        ],
    )
    def test_impossible_usage_is_a_bad_reply(self, said: Any) -> None:
        with pytest.raises(BadReply, match="usage"):
            usage_of(said)


class TestStream:
    def test_chunks_add_up_to_the_whole_answer(self) -> None:
        answer = StreamedAnswer()
        first = {"index": 0, "id": "c1", "function": {"name": "search", "arguments": ""}}
        deltas = [
            answer.add(part)
            for part in [
                chunk({"role": "assistant", "content": ""}),
                chunk({"content": "hel"}),
                chunk({"content": "lo"}),
                chunk({"tool_calls": [first]}),
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"q":'}}]}),
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}),
                chunk({}, "tool_calls"),
                {"id": "r1", "choices": [], "usage": usage(10, 5)},
            ]
        ]
        assert deltas[:3] == [None, {"content": "hel"}, {"content": "lo"}]
        assert deltas[6:] == [None, None]
        reply = answer.reply()
        assert reply.message["content"] == "hello"
        assert reply.message["tool_calls"] == [
            {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q": 1}'}}
        ]
        assert (reply.finish_reason, reply.usage) == ("tool_calls", Usage(input_tokens=10, output_tokens=5))

    def test_calls_without_an_index_are_told_apart_by_their_ids(self) -> None:
        answer = StreamedAnswer()
        answer.add(chunk({"tool_calls": [{"id": "c1", "function": {"name": "a", "arguments": "{"}}]}))
        answer.add(chunk({"tool_calls": [{"function": {"arguments": "}"}}]}))
        answer.add(chunk({"tool_calls": [{"id": "c2", "function": {"name": "b", "arguments": "{}"}}]}, "tool_calls"))
        calls = answer.reply().message["tool_calls"]
        assert [(call["id"], call["function"]["arguments"]) for call in calls] == [("c1", "{}"), ("c2", "{}")]

    def test_a_character_split_between_chunks_is_put_together(self) -> None:
        answer = StreamedAnswer()
        answer.add(chunk({"content": "\ud83d"}))
        answer.add(chunk({"content": "\ude00"}, "stop"))
        assert answer.reply().message["content"] == "\U0001f600"

    def test_a_stream_without_an_end_is_broken(self) -> None:
        answer = StreamedAnswer()
        answer.add(chunk({"content": "hel"}))
        with pytest.raises(BrokenStream):
            answer.reply()

    def test_a_stream_without_a_chunk_is_a_bad_reply(self) -> None:
        with pytest.raises(BadReply):
            StreamedAnswer().reply()

    @pytest.mark.parametrize("part", [None, [], "text", {"choices": "x"}, {"choices": [{"delta": {"tool_calls": 1}}]}])
    def test_what_is_no_chunk_is_a_bad_reply(self, part: Any) -> None:
        with pytest.raises(BadReply):
            StreamedAnswer().add(part)


class TestRequest:
    def test_the_body_carries_the_bound_under_the_servers_name_for_it(self) -> None:
        assert body_of(request(), "max_tokens", OPENAI) == {"model": "m", "messages": QUESTION, "max_tokens": 50}
        assert body_of(request(), "max_completion_tokens", OPENAI)["max_completion_tokens"] == 50

    def test_other_parameters_pass_unchanged(self) -> None:
        tools = [{"type": "function", "function": {"name": "search"}}]
        body = body_of(
            request(tools=tools, tool_choice="auto", stop=["END"], temperature=0.0, extra={"seed": 7}),
            "max_tokens",
            OPENAI,
        )
        assert body["tools"] == tools
        assert (body["tool_choice"], body["stop"], body["temperature"], body["seed"]) == ("auto", ["END"], 0.0, 7)

    def test_a_tool_choice_without_tools_is_not_sent(self) -> None:
        assert "tool_choice" not in body_of(request(tool_choice="required"), "max_tokens", OPENAI)

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n", "stream", "model", "messages"])
    def test_extra_parameters_cannot_escape_the_reservation(self, name: str) -> None:
        with pytest.raises(NotSent, match=name):
            body_of(request(extra={name: 1}), "max_tokens", OPENAI)

    @pytest.mark.parametrize("name", ["fallbacks", "num_retries", "api_key", "mock_response", "timeout"])
    async def test_litellms_own_arguments_are_no_extra_parameters(self, name: str) -> None:
        with pytest.raises(NotSent, match=name):
            await LiteLLMProvider("anthropic", KEY).complete(request(extra={name: 1}))

    def test_a_request_that_json_cannot_say_is_refused_before_it_is_sent(self) -> None:
        with pytest.raises(NotSent, match="JSON"):
            encoded({"messages": [{"role": "user", "content": b"bytes"}]})

    @pytest.mark.parametrize("make", [OpenAIProvider, lambda key: LiteLLMProvider("anthropic", key)])
    @pytest.mark.parametrize("key", [f"{KEY}\n", f"Bearer {KEY}", f"{KEY}é"])
    def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(self, make: Any, key: str) -> None:
        with pytest.raises(ConfigError) as caught:
            make(key)
        assert KEY not in str(caught.value)
