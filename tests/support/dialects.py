"""The same answer as each provider says it: a text, a tool call and what was used, whole and in pieces.

Each dialect thinks "hm", says "hello" and calls `search` with {"q": 1}.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bursar.budget.usage import Usage
from tests.support.wire import Canned, http, sse

__all__ = [
    "SCHEMA",
    "Anthropic",
    "Azure",
    "Bedrock",
    "DeepSeek",
    "Dialect",
    "Found",
    "Gemini",
    "House",
    "Mistral",
    "OpenAI",
]

THOUGHT: Mapping[str, Any] = {"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 2}}
"""What Claude wrote, and how much of it were thoughts."""

ARGUMENTS = '{"q": 1}'
SIGNATURE = "c2lnbmVk"
SCHEMA = {
    "type": "object",
    "properties": {"q": {"type": "integer"}},
    "required": ["q"],
    "additionalProperties": False,
}

Event = Mapping[str, Any] | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is to be found in a request's body, and where: keys and places on the way to it."""

    at: tuple[str | int, ...]
    value: Any


class Dialect(Protocol):
    """How one provider is asked, and how it answers."""

    bound: tuple[str | int, ...]
    tool: tuple[str | int, ...]
    schema: tuple[str | int, ...]
    image: tuple[str | int, ...] | None
    """None where it reads none."""

    mark: tuple[str | int, ...] | None
    """Where the mark of its cache stands; None where it caches by itself."""

    low: Found
    """A low effort at thinking."""

    cap: Found | None
    """A cap of 2,000 tokens on it; None where there is none of its own."""

    read: Usage
    thoughts: Mapping[str, Any]

    def whole(self) -> Canned: ...

    def streamed(self) -> Canned: ...


class OpenAI:
    """OpenAI's chat completions, with what most others add: `reasoning_content`."""

    bound: tuple[str | int, ...] = ("max_completion_tokens",)
    tool: tuple[str | int, ...] = ("tools", 0, "function", "name")
    schema: tuple[str | int, ...] = ("response_format", "json_schema", "schema")
    image: tuple[str | int, ...] | None = ("messages", 0, "content", 1, "image_url", "url")
    mark: tuple[str | int, ...] | None = None
    low = Found(at=("reasoning_effort",), value="low")
    cap: Found | None = None
    used: Mapping[str, Any] = {
        "prompt_tokens": 17,
        "completion_tokens": 5,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    read = Usage(input_tokens=17, output_tokens=5, cache_read_tokens=3, reasoning_tokens=2)
    thoughts: Mapping[str, Any] = {"reasoning_content": "hm"}
    _call: Mapping[str, Any] = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "search", "arguments": ARGUMENTS},
    }

    def whole(self) -> Canned:
        message = {"role": "assistant", "content": "hello", **self.thoughts, "tool_calls": [self._call]}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
        return http(200, {**self._head("chat.completion"), "choices": [choice], "usage": self.used})

    def streamed(self) -> Canned:
        thought = [{key: value} for key, value in self.thoughts.items()]
        said: list[dict[str, Any]] = [
            {"role": "assistant", "content": "hel"},
            {"content": "lo"},
            {"tool_calls": [{"index": 0, **self._call}]},
        ]
        last = {**self._chunk({}), "choices": [], "usage": self.used}
        return sse(*(self._chunk(one) for one in (*thought, *said)), self._chunk({}, "tool_calls"), last, "[DONE]")

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": "r1", "object": kind, "created": 1, "model": "m"}


class DeepSeek(OpenAI):
    """DeepSeek: hits and misses of its cache, and no eyes."""

    bound: tuple[str | int, ...] = ("max_tokens",)
    image: tuple[str | int, ...] | None = None
    low = Found(at=("thinking",), value={"type": "enabled"})
    used: Mapping[str, Any] = {
        "prompt_tokens": 17,
        "completion_tokens": 5,
        "total_tokens": 22,
        "prompt_cache_hit_tokens": 3,
        "prompt_cache_miss_tokens": 14,
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


class Mistral(OpenAI):
    """Mistral: no details of its usage, and one effort only."""

    bound: tuple[str | int, ...] = ("max_tokens",)
    low = Found(at=("reasoning_effort",), value="high")
    used: Mapping[str, Any] = {"prompt_tokens": 17, "completion_tokens": 5, "total_tokens": 22}
    read = Usage(input_tokens=17, output_tokens=5)
    thoughts: Mapping[str, Any] = {}


class Azure(OpenAI):
    """OpenAI's models at Azure, which do not show their thoughts."""

    thoughts: Mapping[str, Any] = {}


class House(OpenAI):
    """A server of one's own."""

    bound: tuple[str | int, ...] = ("max_tokens",)


class Anthropic:
    """Anthropic's messages."""

    bound: tuple[str | int, ...] = ("max_tokens",)
    tool: tuple[str | int, ...] = ("tools", 0, "name")
    schema: tuple[str | int, ...] = ("output_format", "schema")
    image: tuple[str | int, ...] | None = ("messages", 0, "content", 1, "source", "data")
    mark: tuple[str | int, ...] | None = ("system", 0, "cache_control", "type")
    low = Found(at=("thinking",), value={"type": "enabled", "budget_tokens": 1024})
    cap: Found | None = Found(at=("thinking", "budget_tokens"), value=2000)
    used: Mapping[str, Any] = {
        "input_tokens": 10,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 4,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 1},
        **THOUGHT,
    }
    read = Usage(
        input_tokens=17,
        output_tokens=5,
        cache_read_tokens=3,
        cache_write_tokens=4,
        cache_write_1h_tokens=1,
        reasoning_tokens=2,
    )
    thoughts: Mapping[str, Any] = {
        "reasoning_content": "hm",
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": SIGNATURE}],
    }

    def whole(self) -> Canned:
        content = [
            {"type": "thinking", "thinking": "hm", "signature": SIGNATURE},
            {"type": "text", "text": "hello"},
            {"type": "tool_use", "id": "call_1", "name": "search", "input": {"q": 1}},
        ]
        return http(200, self._message(content=content, stop_reason="tool_use", usage=self.used))

    def streamed(self) -> Canned:
        started = self._message(content=[], stop_reason=None, usage={**self.used, "output_tokens": 1})
        thinking = [{"thinking": "h"}, {"thinking": "m"}, {"signature": SIGNATURE}]
        return sse(
            {"type": "message_start", "message": started},
            *self._block(0, {"type": "thinking", "thinking": "", "signature": ""}, "thinking", thinking),
            *self._block(1, {"type": "text", "text": ""}, "text", [{"text": "hel"}, {"text": "lo"}]),
            *self._block(
                2,
                {"type": "tool_use", "id": "call_1", "name": "search", "input": {}},
                "input_json",
                [{"partial_json": ARGUMENTS}],
            ),
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": THOUGHT},
            {"type": "message_stop"},
        )

    def _message(self, **rest: Any) -> dict[str, Any]:
        return {"id": "r1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None, **rest}

    def _block(
        self, index: int, opening: Mapping[str, Any], kind: str, parts: Sequence[Mapping[str, Any]]
    ) -> list[Event]:
        kinds = [("signature" if "signature" in part else kind) for part in parts]
        return [
            {"type": "content_block_start", "index": index, "content_block": opening},
            *(
                {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", **part}}
                for kind, part in zip(kinds, parts, strict=True)
            ),
            {"type": "content_block_stop", "index": index},
        ]


class Gemini:
    """Gemini's generateContent."""

    bound: tuple[str | int, ...] = ("generationConfig", "max_output_tokens")
    tool: tuple[str | int, ...] = ("tools", 0, "function_declarations", 0, "name")
    schema: tuple[str | int, ...] = ("generationConfig", "response_json_schema")
    image: tuple[str | int, ...] | None = ("contents", 0, "parts", 1, "inline_data", "data")
    mark: tuple[str | int, ...] | None = None
    low = Found(at=("generationConfig", "thinkingConfig", "thinkingBudget"), value=1024)
    cap: Found | None = Found(at=("generationConfig", "thinkingConfig", "thinkingBudget"), value=2000)
    used: Mapping[str, Any] = {
        "promptTokenCount": 17,
        "cachedContentTokenCount": 3,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 2,
        "totalTokenCount": 22,
    }
    read = Usage(input_tokens=17, output_tokens=5, cache_read_tokens=3, reasoning_tokens=2)
    thoughts: Mapping[str, Any] = {"reasoning_content": "hm"}
    _parts: Sequence[Mapping[str, Any]] = (
        {"text": "hm", "thought": True},
        {"text": "hel"},
        {"text": "lo"},
        {"functionCall": {"name": "search", "args": {"q": 1}}, "thoughtSignature": SIGNATURE},
    )

    def whole(self) -> Canned:
        return http(200, {**self._part(*self._parts), "usageMetadata": self.used})

    def streamed(self) -> Canned:
        *first, last = ({**self._part(part)} for part in self._parts)
        for one in first:
            del one["candidates"][0]["finishReason"]
        return sse(*first, {**last, "usageMetadata": self.used})

    def _part(self, *parts: Mapping[str, Any]) -> dict[str, Any]:
        content = {"role": "model", "parts": [*parts]}
        return {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}], "responseId": "r1"}


class Bedrock:
    """Bedrock's converse; its streams are frames of AWS's own."""

    bound: tuple[str | int, ...] = ("inferenceConfig", "maxTokens")
    tool: tuple[str | int, ...] = ("toolConfig", "tools", 0, "toolSpec", "name")
    schema: tuple[str | int, ...] = ("outputConfig", "textFormat", "structure", "jsonSchema", "schema")
    image: tuple[str | int, ...] | None = ("messages", 0, "content", 1, "image", "source", "bytes")
    mark: tuple[str | int, ...] | None = ("system", 1, "cachePoint", "type")
    low = Found(at=("additionalModelRequestFields", "thinking", "budget_tokens"), value=1024)
    cap: Found | None = Found(at=("additionalModelRequestFields", "thinking", "budget_tokens"), value=2000)
    used: Mapping[str, Any] = {
        "inputTokens": 10,
        "outputTokens": 5,
        "totalTokens": 22,
        "cacheReadInputTokens": 3,
        "cacheWriteInputTokens": 4,
    }
    read = Usage(input_tokens=17, output_tokens=5, cache_read_tokens=3, cache_write_tokens=4, reasoning_tokens=2)
    thoughts = Anthropic.thoughts

    def __init__(self, *, thought: str = "hm", counted: bool = True) -> None:
        self._thought = thought
        self._more = {"additionalModelResponseFields": {"usage": THOUGHT}} if counted else {}

    def whole(self) -> Canned:
        content = [
            {"reasoningContent": {"reasoningText": {"text": self._thought, "signature": SIGNATURE}}},
            {"text": "hello"},
            {"toolUse": {"toolUseId": "call_1", "name": "search", "input": {"q": 1}}},
        ]
        message = {"message": {"role": "assistant", "content": content}}
        return http(200, {"output": message, "stopReason": "tool_use", "usage": self.used, **self._more})

    def streamed(self) -> Canned:
        frames = [
            _frame("messageStart", {"role": "assistant"}),
            *self._block(0, [{"reasoningContent": part} for part in ({"text": "hm"}, {"signature": SIGNATURE})]),
            *self._block(1, [{"text": "hel"}, {"text": "lo"}]),
            *self._block(
                2, [{"toolUse": {"input": ARGUMENTS}}], {"toolUse": {"toolUseId": "call_1", "name": "search"}}
            ),
            _frame("messageStop", {"stopReason": "tool_use", **self._more}),
            _frame("metadata", {"usage": self.used, "metrics": {"latencyMs": 1}}),
        ]
        return http(200, b"".join(frames), media="application/vnd.amazon.eventstream")

    def _block(
        self, index: int, deltas: Sequence[Mapping[str, Any]], start: Mapping[str, Any] | None = None
    ) -> list[bytes]:
        opening = [_frame("contentBlockStart", {"start": start, "contentBlockIndex": index})] if start else []
        middle = [_frame("contentBlockDelta", {"delta": delta, "contentBlockIndex": index}) for delta in deltas]
        return [*opening, *middle, _frame("contentBlockStop", {"contentBlockIndex": index})]


def _frame(kind: str, payload: Mapping[str, Any]) -> bytes:
    """One message of AWS's event stream: lengths, headers, payload, and a checksum after each half."""
    named = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in named.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))
