"""Every provider in its own words, over real HTTP: what it is asked, what it answers, and what that used."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import pytest

from bursar.runtime.models.litellm_sdk import LiteLLMProvider
from bursar.runtime.models.openai_sdk import OpenAIProvider
from bursar.runtime.models.provider import BrokenStream, ModelReply, ModelRequest, NotSent, RateLimited
from tests.support import dialects
from tests.support.dialects import SCHEMA, Dialect, Found
from tests.support.wire import Canned, Wire, http, served

pytestmark = [
    # litellm's own: it reads pydantic models in a way that pydantic 2.11 deprecated, and builds them as it answers.
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*fields' attribute:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"),
]

KEY = "sk-very-secret"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "Where is it?"}
SEEN = {
    "role": "user",
    "content": [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ],
}
TOOLS = [{"type": "function", "function": {"name": "search", "description": "Look.", "parameters": SCHEMA}}]
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
MARKED = {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]}

HOW: Mapping[str, tuple[str, Dialect]] = {
    "openai": ("gpt-5-mini", dialects.OpenAI()),
    "openai_compatible": ("house-7b", dialects.House()),
    "anthropic": ("claude-sonnet-4-5", dialects.Anthropic()),
    "gemini": ("gemini-2.5-flash", dialects.Gemini()),
    "bedrock": ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", dialects.Bedrock()),
    "azure": ("gpt-5-mini", dialects.Azure()),
    "deepseek": ("deepseek-reasoner", dialects.DeepSeek()),
    "mistral": ("mistral-medium-latest", dialects.Mistral()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A provider, the server that it speaks to, and the words they use."""

    provider: OpenAIProvider | LiteLLMProvider
    model: str
    dialect: Dialect
    wire: Wire

    async def whole(self, **changes: Any) -> ModelReply:
        self.wire.answer = self.dialect.whole()
        return await self.provider.complete(self.request(**changes))

    async def streamed(self, **changes: Any) -> list[Any]:
        self.wire.answer = self.dialect.streamed()
        return [part async for part in self.provider.stream(self.request(**changes))]

    def asked(self) -> Mapping[str, Any]:
        """The body of the one request that was made."""
        ((_, body),) = self.wire.asked
        return body

    def request(self, **changes: Any) -> ModelRequest:
        plain = {"model": self.model, "messages": [QUESTION], "max_output_tokens": 4000, "timeout_s": 30}
        return ModelRequest(**{**plain, **changes})


@pytest.fixture(params=HOW)
async def told(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Told]:
    for name, value in {"ACCESS_KEY_ID": "AKIAEXAMPLE", "SECRET_ACCESS_KEY": KEY, "REGION_NAME": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    model, dialect = HOW[request.param]
    async with served() as wire:
        provider = provider_of(request.param, wire.url)
        yield Told(provider=provider, model=model, dialect=dialect, wire=wire)
        await provider.aclose()


def provider_of(name: str, url: str) -> OpenAIProvider | LiteLLMProvider:
    if name == "openai":
        return OpenAIProvider(KEY, f"{url}/v1")
    if name == "openai_compatible":
        return OpenAIProvider(KEY, f"{url}/v1", output_bound="max_tokens")
    return LiteLLMProvider(name, KEY, url)


def at(body: Any, path: tuple[str | int, ...]) -> Any:
    return reduce(lambda found, key: found[key], path, body)


def assert_found(body: Any, found: Found) -> None:
    assert at(body, found.at) == found.value


async def test_an_answer_is_read_with_its_tool_call_thoughts_and_usage(told: Told) -> None:
    reply = await told.whole(tools=TOOLS)
    (made,) = reply.message["tool_calls"]
    assert (reply.message["content"], reply.finish_reason) == ("hello", "tool_calls")
    assert (made["function"]["name"], json.loads(made["function"]["arguments"])) == ("search", {"q": 1})
    assert {key: reply.message.get(key) for key in told.dialect.thoughts} == told.dialect.thoughts
    assert reply.usage == told.dialect.read


async def test_a_stream_comes_in_pieces_and_ends_with_the_same_answer(told: Told) -> None:
    whole = await told.whole(tools=TOOLS)
    *deltas, reply = await told.streamed(tools=TOOLS)
    assert [delta["content"] for delta in deltas if delta.get("content")] == ["hel", "lo"]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == told.dialect.thoughts.get(
        "reasoning_content", ""
    )
    assert (reply.message["content"], reply.finish_reason, reply.usage) == ("hello", "tool_calls", told.dialect.read)
    assert [call["function"] for call in reply.message["tool_calls"]] == [
        call["function"] | {"arguments": '{"q": 1}'} for call in whole.message["tool_calls"]
    ]
    assert {key: reply.message.get(key) for key in told.dialect.thoughts} == told.dialect.thoughts


async def test_tools_a_schema_and_the_bound_on_the_output_arrive(told: Told) -> None:
    await told.whole(tools=TOOLS, response_format=FORMAT)
    body = told.asked()
    assert at(body, told.dialect.tool) == "search"
    schema = at(body, told.dialect.schema)
    assert (json.loads(schema) if isinstance(schema, str) else schema) == SCHEMA
    assert at(body, told.dialect.bound) == 4000


async def test_an_image_arrives_or_the_call_is_not_sent(told: Told) -> None:
    if told.dialect.image is None:
        with pytest.raises(NotSent, match="no image_url"):
            await told.whole(messages=[SEEN])
        assert told.wire.asked == []
        return
    await told.whole(messages=[SEEN])
    assert at(told.asked(), told.dialect.image).removeprefix("data:image/png;base64,") == PNG


@pytest.mark.parametrize("kind", ["image_url", "file"])
async def test_nothing_is_fetched_from_here(told: Told, kind: str) -> None:
    """litellm would, for those who take no address, and what an address names may be inside the house."""
    async with served() as elsewhere:
        elsewhere.answer = http(200, b"PNG", media="image/png")
        about = {"url" if kind == "image_url" else "file_id": f"{elsewhere.url}/cat.png"}
        told.wire.answer = told.dialect.whole()
        with contextlib.suppress(NotSent):
            await told.provider.complete(
                told.request(messages=[{"role": "user", "content": [{"type": kind, kind: about}]}])
            )
        assert elsewhere.connections == 0
    if kind == "image_url":
        takes_addresses = isinstance(told.dialect, dialects.OpenAI) and told.dialect.image is not None
        assert len(told.wire.asked) == takes_addresses


async def test_a_tool_that_runs_at_the_provider_is_not_sent(told: Told) -> None:
    """A search is billed beside the tokens, and what it finds is read as input."""
    with pytest.raises(NotSent, match="web_search_20250305 would run at the provider"):
        await told.whole(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert told.wire.asked == []


@pytest.mark.parametrize(
    "image",
    [
        {"url": "data:application/pdf;base64,JVBERi0="},
        {"url": "data:video/mp4;base64,AAAA"},
        {"url": "gs://films/long.mp4"},
        {"url": f"data:image/png;base64,{PNG}", "format": "application/pdf"},
    ],
)
async def test_a_document_or_film_is_not_sent_for_an_image(told: Told, image: dict[str, str]) -> None:
    """It may be as long as the window, and a picture's tokens are held for it."""
    if not isinstance(told.provider, LiteLLMProvider) or told.model == "gpt-5-mini":
        return  # OpenAI takes nothing but images here, and a server of the house's own what it takes
    with pytest.raises(NotSent):
        await told.whole(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": image}]}])
    assert told.wire.asked == []


@pytest.mark.parametrize("file", [{"file_id": "file-1"}, {"file_data": "https://files.example/long.pdf"}])
async def test_a_file_of_which_only_a_name_is_known_is_not_sent(told: Told, file: dict[str, str]) -> None:
    """Nothing could be held for what it says."""
    with pytest.raises(NotSent):
        await told.whole(messages=[{"role": "user", "content": [{"type": "file", "file": file}]}])
    assert told.wire.asked == []


async def test_an_effort_at_thinking_is_asked_for_in_the_provider_s_words(told: Told) -> None:
    await told.whole(reasoning_effort="low")
    assert_found(told.asked(), told.dialect.low)


async def test_a_cap_on_thinking_is_sent_where_the_provider_has_one(told: Told) -> None:
    await told.whole(max_reasoning_tokens=2000)
    if told.dialect.cap is None:
        assert "thinking" not in json.dumps(told.asked())
    else:
        assert_found(told.asked(), told.dialect.cap)


async def test_thinking_leaves_room_for_an_answer_within_the_bound(told: Told) -> None:
    await told.whole(reasoning_effort="high", max_output_tokens=2000)
    body = told.asked()
    assert at(body, told.dialect.bound) == 2000
    if told.dialect.cap is not None:
        assert at(body, told.dialect.cap.at) == 1500


@pytest.mark.parametrize("by", ["us", "the caller"])
async def test_cache_marks_stand_where_the_provider_wants_them_and_nowhere_else(told: Told, by: str) -> None:
    await told.whole(messages=[SYSTEM if by == "us" else MARKED, QUESTION], tools=TOOLS)
    body, passed_on = told.asked(), by == "the caller" and isinstance(told.dialect, dialects.House)
    if told.dialect.mark is not None:
        assert at(body, told.dialect.mark) in ("ephemeral", "default")
    else:
        assert ("cache_control" in json.dumps(body)) == passed_on


async def test_thoughts_go_back_to_whoever_signed_them_and_to_no_other(told: Told) -> None:
    said = (await told.whole(tools=TOOLS)).message
    told.wire.asked.clear()
    result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "on the shelf"}
    foreign = {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": dialects.SIGNATURE}]}
    await told.whole(messages=[SYSTEM, QUESTION, {**foreign, **said}, result], tools=TOOLS)
    body = json.dumps(told.asked())
    signs = isinstance(told.dialect, dialects.Anthropic | dialects.Gemini | dialects.Bedrock)
    assert (dialects.SIGNATURE in body) == signs
    assert ("thinking_blocks" in body) is False


async def test_another_provider_gets_neither_a_signature_in_an_id_nor_a_thought_that_nobody_signed(told: Told) -> None:
    """litellm writes Gemini's signatures into the ids of calls, and OpenAI takes no id of more than 40 characters."""
    signed = f"call_1__thought__{dialects.SIGNATURE * 20}"
    call = {"id": signed, "type": "function", "function": {"name": "search", "arguments": "{}"}}
    unsigned = {"thinking_blocks": [{"type": "thinking", "thinking": "unsigned"}]}
    said = {"role": "assistant", "content": None, "tool_calls": [call], **unsigned}
    result = {"role": "tool", "tool_call_id": signed, "content": "on the shelf"}
    await told.whole(messages=[QUESTION, said, result], tools=TOOLS)
    body = json.dumps(told.asked())
    assert (dialects.SIGNATURE in body) == isinstance(told.dialect, dialects.Gemini)
    assert "unsigned" not in body


async def test_what_is_asked_is_not_changed_by_asking(told: Told) -> None:
    """litellm rewrites what it is given, and the next turn must begin as this one, at this provider or another."""
    question = QUESTION if told.dialect.image is None else SEEN
    before = json.dumps({"messages": [MARKED, question], "tools": TOOLS, "response_format": FORMAT})
    asked = json.loads(before)
    await told.whole(**asked)
    await told.streamed(**asked)
    assert json.dumps(asked) == before


async def test_a_long_marked_prompt_is_still_one_request(told: Told) -> None:
    """litellm would make a cache of its own at Gemini for it, by two requests more."""
    text = {"type": "text", "text": "Be brief. " * 3000, "cache_control": {"type": "ephemeral"}}
    await told.whole(messages=[{"role": "system", "content": [text]}, QUESTION])
    assert len(told.wire.asked) == 1


@pytest.mark.parametrize("told", ["bedrock"], indirect=True)
async def test_thoughts_that_only_litellm_counted_are_no_more_than_the_output(told: Told) -> None:
    """Else a guess that is too high would make an answer that was paid for unreadable."""
    told = replace(told, dialect=dialects.Bedrock(thought="hm " * 50, counted=False))
    usage = (await told.whole()).usage
    assert usage is not None
    assert (usage.output_tokens, usage.reasoning_tokens) == (5, 5)


@pytest.mark.parametrize("how", ["whole", "streamed"])
@pytest.mark.parametrize(
    "answer", [http(429, {"error": {"message": "slow down"}}), Canned(then="close")], ids=["429", "close"]
)
async def test_a_failure_is_one_request(told: Told, answer: Canned, how: str) -> None:
    told.wire.answer = answer
    asked = (
        told.provider.complete(told.request()) if how == "whole" else anext(aiter(told.provider.stream(told.request())))
    )
    with pytest.raises((RateLimited, BrokenStream)):
        await asked
    assert len(told.wire.asked) == 1
