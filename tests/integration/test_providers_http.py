"""Both SDK providers over real HTTP: one request per call, and an error that says what may have been billed."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from bursar.budget.usage import Usage
from bursar.runtime.models import provider as tree
from bursar.runtime.models.litellm_sdk import LiteLLMProvider
from bursar.runtime.models.openai_sdk import OpenAIProvider
from bursar.runtime.models.provider import ModelReply, ModelRequest, ProviderError
from tests.support.provider import TrueProvider
from tests.support.wire import Canned, Wire, http, served, sse

pytestmark = [
    # litellm's own: it reads pydantic models in a way that pydantic 2.11 deprecated, and builds them as it answers.
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*fields' attribute:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]

KEY = "sk-very-secret"
QUESTION = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "search", "description": "Look.", "parameters": {"type": "object"}}}]
HTML = b"<html><body>The rate limit of this network was reached. invalid_request_error</body></html>"

Dialect = Literal["openai", "anthropic"]


def request(**changes: Any) -> ModelRequest:
    return ModelRequest(**{"model": "m", "messages": QUESTION, "max_output_tokens": 50, "timeout_s": 10, **changes})


class OpenAIDialect:
    """Answers in the shape of OpenAI's chat completions."""

    usage: Mapping[str, Any] = {
        "prompt_tokens": 17,
        "completion_tokens": 5,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    read = Usage(input_tokens=17, output_tokens=5, cache_read_tokens=3, reasoning_tokens=2)
    call: Mapping[str, Any] = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q": 1}'}}

    def whole(self, **changes: Any) -> dict[str, Any]:
        message = {"role": "assistant", "content": "hello", "tool_calls": [self.call]}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
        return {
            "id": "r1",
            "object": "chat.completion",
            "model": "m",
            "choices": [choice],
            "usage": self.usage,
        } | changes

    def negative(self) -> dict[str, Any]:
        return self.whole(usage={"prompt_tokens": -17, "completion_tokens": 5, "total_tokens": -12})

    def silent(self) -> dict[str, Any]:
        answer = self.whole()
        del answer["usage"]
        return answer

    def chunks(self) -> list[Mapping[str, Any] | str]:
        call = {"index": 0, **self.call}
        deltas: list[Mapping[str, Any]] = [{"role": "assistant", "content": "hel"}, {"content": "lo"}]
        return [
            *(self._chunk(delta) for delta in (*deltas, {"tool_calls": [call]})),
            self._chunk({}, "tool_calls"),
            {**self._chunk({}), "choices": [], "usage": self.usage},
            "[DONE]",
        ]

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    def error_event(self) -> Mapping[str, Any]:
        return {"error": {"message": "overloaded", "type": "server_error", "code": 503}}


class AnthropicDialect:
    """The same answers in the shape of Anthropic's messages."""

    usage: Mapping[str, Any] = {
        "input_tokens": 10,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 4,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 1},
        "output_tokens": 5,
    }
    read = Usage(input_tokens=17, output_tokens=5, cache_read_tokens=3, cache_write_tokens=4, cache_write_1h_tokens=1)

    def whole(self, **changes: Any) -> dict[str, Any]:
        content = [
            {"type": "text", "text": "hello"},
            {"type": "tool_use", "id": "c1", "name": "search", "input": {"q": 1}},
        ]
        message = {"id": "r1", "type": "message", "role": "assistant", "model": "m", "content": content}
        return message | {"stop_reason": "tool_use", "stop_sequence": None, "usage": self.usage} | changes

    def negative(self) -> dict[str, Any]:
        return self.whole(usage={"input_tokens": -10, "output_tokens": 5})

    def silent(self) -> dict[str, Any]:
        return self.whole(usage={})

    def chunks(self) -> list[Mapping[str, Any] | str]:
        started = self.whole(content=[], stop_reason=None, usage={**self.usage, "output_tokens": 1})
        tool = {"type": "tool_use", "id": "c1", "name": "search", "input": {}}
        arguments = {"type": "input_json_delta", "partial_json": '{"q": 1}'}
        return [
            {"type": "message_start", "message": started},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hel"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1, "content_block": tool},
            {"type": "content_block_delta", "index": 1, "delta": arguments},
            {"type": "content_block_stop", "index": 1},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ]

    def error_event(self) -> Mapping[str, Any]:
        return {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with served() as wire:
        yield wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """A provider and the dialect that its server speaks."""

    provider: OpenAIProvider | LiteLLMProvider
    dialect: OpenAIDialect | AnthropicDialect


def speaker_of(name: str, url: str) -> Speaker:
    if name == "openai_sdk":
        return Speaker(provider=OpenAIProvider(KEY, f"{url}/v1"), dialect=OpenAIDialect())
    if name == "litellm_openai":
        return Speaker(provider=LiteLLMProvider("openai", KEY, f"{url}/v1"), dialect=OpenAIDialect())
    return Speaker(provider=LiteLLMProvider("anthropic", KEY, url), dialect=AnthropicDialect())


@pytest.fixture(params=["openai_sdk", "litellm_openai", "litellm_anthropic"])
async def speaker(request: pytest.FixtureRequest, wire: Wire) -> AsyncIterator[Speaker]:
    speaker = speaker_of(request.param, wire.url)
    yield speaker
    await speaker.provider.aclose()


async def call(speaker: Speaker, how: str, asked: ModelRequest) -> ModelReply:
    if how == "whole":
        return await speaker.provider.complete(asked)
    *_, reply = [part async for part in speaker.provider.stream(asked)]
    assert isinstance(reply, ModelReply)
    return reply


async def warmed_up(speaker: Speaker, wire: Wire) -> None:
    """Have the libraries loaded, so that a short timeout measures the server."""
    for how, answer in (("whole", http(200, speaker.dialect.whole())), ("streamed", sse(*speaker.dialect.chunks()))):
        wire.answer = answer
        await call(speaker, how, request())
    wire.asked.clear()


async def failure(speaker: Speaker, how: str, **changes: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await call(speaker, how, request(**changes))
    assert KEY not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


both_ways = pytest.mark.parametrize("how", ["whole", "streamed"])


class TestAnswer:
    @both_ways
    async def test_text_tool_calls_and_usage_arrive(self, speaker: Speaker, wire: Wire, how: str) -> None:
        wire.answer = http(200, speaker.dialect.whole()) if how == "whole" else sse(*speaker.dialect.chunks())
        reply = await call(speaker, how, request(tools=TOOLS))
        assert reply.message["content"] == "hello"
        (made,) = reply.message["tool_calls"]
        assert (made["id"], made["type"], made["function"]["name"]) == ("c1", "function", "search")
        assert json.loads(made["function"]["arguments"]) == {"q": 1}
        assert (reply.finish_reason, reply.usage) == ("tool_calls", speaker.dialect.read)

    async def test_a_stream_yields_what_each_chunk_adds(self, speaker: Speaker, wire: Wire) -> None:
        wire.answer = sse(*speaker.dialect.chunks())
        *deltas, _ = [part async for part in speaker.provider.stream(request(tools=TOOLS))]
        parts = [delta for delta in deltas if isinstance(delta, Mapping)]
        assert [part["content"] for part in parts if "content" in part] == ["hel", "lo"]
        assert any("tool_calls" in part for part in parts)

    @both_ways
    async def test_the_bound_goes_with_the_request(self, speaker: Speaker, wire: Wire, how: str) -> None:
        wire.answer = http(200, speaker.dialect.whole()) if how == "whole" else sse(*speaker.dialect.chunks())
        await call(speaker, how, request(max_output_tokens=50, temperature=0.5))
        ((_, body),) = wire.asked
        assert 50 in (body.get("max_tokens"), body.get("max_completion_tokens"))
        assert body["temperature"] == 0.5

    async def test_usage_that_the_provider_does_not_give_is_none(self, speaker: Speaker, wire: Wire) -> None:
        wire.answer = http(200, speaker.dialect.silent())
        assert (await call(speaker, "whole", request())).usage is None

    async def test_usage_that_a_stream_does_not_give_is_none_and_no_guess(self, wire: Wire) -> None:
        wire.answer = sse(*(part for part in OpenAIDialect().chunks() if "usage" not in part))
        for name in ("openai_sdk", "litellm_openai"):
            speaker = speaker_of(name, wire.url)
            assert (await call(speaker, "streamed", request())).usage is None
            await speaker.provider.aclose()


class TestErrors:
    @both_ways
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, tree.RequestRefused),
            (401, tree.AuthFailed),
            (403, tree.AuthFailed),
            (404, tree.ModelMissing),
            (408, tree.CallTimeout),
            (413, tree.RequestRefused),
            (422, tree.RequestRefused),
            (429, tree.RateLimited),
            (500, tree.Unavailable),
            (503, tree.Overloaded),
            (504, tree.CallTimeout),
            (529, tree.Overloaded),
        ],
    )
    async def test_a_status_decides(
        self, speaker: Speaker, wire: Wire, how: str, status: int, kind: type[ProviderError]
    ) -> None:
        wire.answer = http(status, {"error": {"type": "t", "message": f"no, {KEY}"}}, more="retry-after: 7\r\n")
        error = await failure(speaker, how)
        assert (type(error), error.status, error.retry_after_s) == (kind, status, 7)
        assert "no, [key]" in str(error)
        assert len(wire.asked) == 1

    @both_ways
    async def test_a_web_page_is_no_answer(self, speaker: Speaker, wire: Wire, how: str) -> None:
        wire.answer = http(200, HTML, media="text/html")
        assert type(await failure(speaker, how)) is tree.BadReply
        wire.answer = http(502, HTML, media="text/html")
        assert type(await failure(speaker, how)) is tree.Unavailable
        assert len(wire.asked) == 2

    @both_ways
    @pytest.mark.parametrize("content", [b"", b"{}", b'{"choices": []}', b'{"choices": [{"mess'])
    async def test_an_answer_without_a_message_is_none(
        self, speaker: Speaker, wire: Wire, how: str, content: bytes
    ) -> None:
        wire.answer = http(200, content)
        assert type(await failure(speaker, how)) is tree.BadReply
        assert len(wire.asked) == 1

    async def test_negative_usage_is_no_answer(self, speaker: Speaker, wire: Wire) -> None:
        wire.answer = http(200, speaker.dialect.negative())
        assert type(await failure(speaker, "whole")) is tree.BadReply

    async def test_negative_usage_at_the_end_of_a_stream_is_no_answer(self, wire: Wire) -> None:
        *chunks, done = OpenAIDialect().chunks()
        wire.answer = sse(*chunks, {"choices": [], "usage": OpenAIDialect().negative()["usage"]}, done)
        speaker = speaker_of("openai_sdk", wire.url)
        assert type(await failure(speaker, "streamed")) is tree.BadReply
        await speaker.provider.aclose()

    @both_ways
    @pytest.mark.parametrize("then", ["close", "reset"])
    async def test_a_connection_that_ends_after_the_request_may_have_been_billed(
        self, speaker: Speaker, wire: Wire, how: str, then: Literal["close", "reset"]
    ) -> None:
        wire.answer = Canned(then=then)
        assert type(await failure(speaker, how)) is tree.BrokenStream
        assert len(wire.asked) == 1, "litellm would send a second request"

    async def test_a_body_that_ends_too_early_is_broken(self, speaker: Speaker, wire: Wire) -> None:
        whole = http(200, speaker.dialect.whole())
        wire.answer = Canned(content=whole.content[:-20], then="close")
        assert type(await failure(speaker, "whole")) is tree.BrokenStream
        assert len(wire.asked) == 1, "litellm would send a second request"

    @pytest.mark.parametrize("ended", [True, False])
    async def test_a_stream_that_ends_too_early_is_broken(self, speaker: Speaker, wire: Wire, ended: bool) -> None:
        wire.answer = sse(*speaker.dialect.chunks()[:3], ended=ended)
        assert type(await failure(speaker, "streamed")) is tree.BrokenStream
        assert len(wire.asked) == 1

    async def test_an_error_in_the_middle_of_a_stream_breaks_it(self, speaker: Speaker, wire: Wire) -> None:
        wire.answer = sse(*speaker.dialect.chunks()[:3], speaker.dialect.error_event())
        assert type(await failure(speaker, "streamed")) is tree.BrokenStream
        assert len(wire.asked) == 1

    @both_ways
    async def test_silence_is_a_timeout(self, speaker: Speaker, wire: Wire, how: str) -> None:
        await warmed_up(speaker, wire)
        wire.answer = Canned(then="hang")
        assert type(await failure(speaker, how, timeout_s=0.4)) is tree.CallTimeout
        assert len(wire.asked) == 1
        await asyncio.wait_for(wire.hung_up.wait(), 10)

    async def test_a_stream_that_falls_silent_is_a_timeout(self, speaker: Speaker, wire: Wire) -> None:
        await warmed_up(speaker, wire)
        started = sse(*speaker.dialect.chunks()[:3], ended=False)
        wire.answer = Canned(content=started.content, then="hang")
        assert type(await failure(speaker, "streamed", timeout_s=0.4)) is tree.CallTimeout

    @both_ways
    @pytest.mark.parametrize("name", ["openai_sdk", "litellm_openai", "litellm_anthropic"])
    async def test_a_refused_connection_is_surely_not_billed(self, name: str, how: str) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            speaker = speaker_of(name, f"http://127.0.0.1:{taken.getsockname()[1]}")
            assert type(await failure(speaker, how)) is tree.Unavailable
        await speaker.provider.aclose()

    async def test_a_failure_while_another_is_handled_is_judged_by_itself(self, speaker: Speaker, wire: Wire) -> None:
        """Retries run inside the handling of the failure before; a 429 then says nothing about the answer now."""
        wire.answer = http(429, {})
        try:
            await speaker.provider.complete(request())
        except tree.RateLimited:
            wire.answer = http(200, b"")
            assert type(await failure(speaker, "whole")) is tree.BadReply


class TestStream:
    async def test_an_abandoned_stream_hangs_up(self, speaker: Speaker, wire: Wire) -> None:
        started = sse(*speaker.dialect.chunks()[:4], ended=False)
        wire.answer = Canned(content=started.content, then="hang")
        stream = speaker.provider.stream(request())
        assert await anext(stream) == {"content": "hel"}
        await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator
        await asyncio.wait_for(wire.hung_up.wait(), 10)


class TestOpenAI:
    async def test_a_redirect_is_not_followed(self, wire: Wire) -> None:
        wire.answer = http(307, b"", more=f"location: {wire.url}/elsewhere\r\n")
        provider = OpenAIProvider(KEY, f"{wire.url}/v1")
        with pytest.raises(tree.RequestRefused, match="elsewhere; set api_base"):
            await provider.complete(request())
        await provider.aclose()
        assert len(wire.asked) == 1

    async def test_a_key_in_the_environment_goes_nowhere(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-house")
        wire.answer = http(200, OpenAIDialect().whole())
        provider = OpenAIProvider(None, f"{wire.url}/v1", output_bound="max_tokens")
        await provider.complete(request())
        await provider.aclose()
        ((head, body),) = wire.asked
        assert "sk-of-another-house" not in head
        assert (body["max_tokens"], "max_completion_tokens" in body) == (50, False)

    @both_ways
    async def test_the_reported_usage_is_the_true_bill(self, true_provider: TrueProvider, how: str) -> None:
        provider = OpenAIProvider(KEY, true_provider.api_base)
        reply = await call(Speaker(provider=provider, dialect=OpenAIDialect()), how, request(tools=TOOLS))
        await provider.aclose()
        assert reply.usage
        assert true_provider.bill.calls == 1
        assert (reply.usage.input_tokens, reply.usage.output_tokens) == (
            true_provider.bill.input_tokens,
            true_provider.bill.output_tokens,
        )

    async def test_two_event_loops_may_share_a_provider(self, true_provider: TrueProvider) -> None:
        provider, replies = OpenAIProvider(KEY, true_provider.api_base), []

        async def elsewhere() -> None:
            replies.append(await provider.complete(request()))
            await provider.aclose()

        for _ in range(2):
            thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
            thread.start()
            await asyncio.to_thread(thread.join)
            replies.append(await provider.complete(request()))
        await provider.aclose()
        assert len(replies) == true_provider.bill.calls == 4


class TestLiteLLM:
    async def test_a_parameter_that_the_model_does_not_know_is_refused_before_it_is_sent(self, wire: Wire) -> None:
        speaker = speaker_of("litellm_anthropic", wire.url)
        assert type(await failure(speaker, "whole", extra={"logit_bias": {"1": 1}})) is tree.RequestRefused
        await speaker.provider.aclose()
        assert wire.asked == []

    async def test_a_missing_key_is_a_failure_of_authentication(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        provider = LiteLLMProvider("anthropic", None, wire.url)
        with pytest.raises(tree.AuthFailed, match="ANTHROPIC_API_KEY"):
            await provider.complete(request())
        await provider.aclose()
        assert wire.asked == []

    async def test_closing_one_provider_leaves_the_others_connected(self, wire: Wire) -> None:
        first, second = (speaker_of("litellm_openai", wire.url) for _ in range(2))
        wire.answer = http(200, first.dialect.whole())
        await call(first, "whole", request())
        await first.provider.aclose()
        await call(second, "whole", request())
        assert (len(wire.asked), wire.connections) == (2, 1)
        await second.provider.aclose()

    def test_heavy_libraries_are_imported_at_the_first_call_and_warm_up_does_not_wait_for_it(self) -> None:
        program = (
            "import sys, threading;"
            "from bursar.runtime.models.litellm_sdk import LiteLLMProvider;"
            "from bursar.runtime.models.openai_sdk import OpenAIProvider;"
            "print(sorted({'httpx', 'litellm', 'openai'} & sys.modules.keys()));"
            "LiteLLMProvider('anthropic').warm_up();"
            "(thread,) = [t for t in threading.enumerate() if t.name == 'import-litellm'];"
            "print(thread.daemon); thread.join(); print('litellm' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert (done.stdout.split(), done.stderr) == (["[]", "True", "True"], "")
