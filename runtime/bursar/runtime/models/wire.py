"""OpenAI's chat completions as they cross the wire: a request's body, an answer, its chunks and its usage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from bursar.budget.errors import ConfigError
from bursar.budget.pricing.usage_shapes import openai_chat
from bursar.budget.usage import Usage
from bursar.runtime.models.dialect import Dialect
from bursar.runtime.models.failures import excerpt
from bursar.runtime.models.provider import BadReply, BrokenStream, ModelReply, ModelRequest, NotSent
from bursar.runtime.models.thoughts import Thoughts

if TYPE_CHECKING:
    import httpx

__all__ = [
    "OutputBound",
    "StreamedAnswer",
    "body_of",
    "checked_key",
    "encoded",
    "parsed",
    "reply_of",
    "request_timeout",
    "usage_of",
]

CONNECT_TIMEOUT_S_MAX = 10.0

OutputBound = Literal["max_completion_tokens", "max_tokens"]
"""The name under which a server takes `max_output_tokens`: OpenAI's own is the first, most others know the second."""

_RESERVED = frozenset(
    {
        "model",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "best_of",
        "service_tier",
        "stream",
        "stream_options",
    }
)
"""What decides how much a call can cost; `extra` may not change it behind the reservation."""


def checked_key(api_key: str | None) -> str | None:
    """The key; raises ConfigError for one that no HTTP header can carry, without showing it."""
    if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ConfigError(
            "the API key holds a space, a line break or a character beyond ASCII",
            key="api_key",
            next_step="set its environment variable to the key alone",
        )
    return api_key or None


def body_of(
    request: ModelRequest, bound: OutputBound, dialect: Dialect, service_tier: str | None = None
) -> dict[str, Any]:
    """The request's body; raises NotSent where `extra` or a tool would escape the reservation.

    Its parts stand in the order in which providers cache them: tools, then the messages, then what may change from
    turn to turn. So the body of a next turn begins as the one before.
    """
    if taken := sorted(_RESERVED & request.extra.keys()):
        raise NotSent(
            f"extra: {', '.join(taken)} would change what the call can cost after it was reserved; "
            "use the request's own fields, such as max_output_tokens, or the model's service_tier"
        )
    if hosted := [str(tool.get("type")) for tool in request.tools if tool.get("type") != "function"]:
        raise NotSent(f"tools: {', '.join(hosted)} would run at the provider, which bills it beyond what was reserved")
    tools = {"tools": [*request.tools]} if request.tools else {}
    optional = {
        "tool_choice": request.tool_choice if request.tools else None,
        "stop": request.stop or None,
        "temperature": request.temperature,
        "response_format": request.response_format,
        "service_tier": service_tier,
        **dialect.thinking(request),
    }
    return {
        **request.extra,
        "model": request.model,
        **tools,
        "messages": dialect.messages(request),
        bound: request.max_output_tokens,
        **{key: value for key, value in optional.items() if value is not None},
    }


def request_timeout(timeout_s: float) -> httpx.Timeout:
    """How long each step may take: a connection not made before the whole call times out surely cost nothing."""
    import httpx

    connect_s = min(CONNECT_TIMEOUT_S_MAX, timeout_s / 2)
    return httpx.Timeout(timeout_s, connect=connect_s, pool=connect_s)


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body as JSON; raises NotSent for what JSON cannot say."""
    try:
        return json.dumps(body, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSent(f"the request cannot be written as JSON: {error}") from None


def parsed(content: bytes) -> object:
    """The JSON of a body; raises BadReply for anything else, such as a web page or nothing at all."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        shown = excerpt(content.decode("utf-8", "replace"))
        raise BadReply(f"expected JSON, not {shown!r}" if shown else "expected JSON, not an empty body") from None


def reply_of(answer: Any) -> ModelReply:
    """A whole answer, as parsed JSON; raises BadReply where it is none."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        response_id = answer.get("id")
        calls = [_tool_call(call, f"call_{response_id}_{i}") for i, call in enumerate(message.get("tool_calls") or ())]
        content = message.get("content")
        text = _text(message.get("refusal") if content is None else content)
        thoughts = Thoughts()
        thoughts.add(message)
        finish_reason = choice.get("finish_reason") or ("tool_calls" if calls else "stop")
    except (LookupError, TypeError, AttributeError):
        raise BadReply(f"expected a chat completion, not {excerpt(_json(answer))}") from None
    return ModelReply(
        message={
            "role": "assistant",
            "content": text,
            **thoughts.whole(),
            **({"tool_calls": calls} if calls else {}),
        },
        usage=usage_of(answer.get("usage"), answer.get("service_tier")),
        finish_reason=finish_reason,
        response_id=response_id,
    )


def usage_of(raw: Any, service_tier: object = None) -> Usage | None:
    """What an answer says it used, None where it does not say; raises BadReply for numbers that cannot be."""
    try:
        return openai_chat({"usage": raw or None, "service_tier": service_tier})
    except ValueError as error:
        raise BadReply(f"usage: {str(error).removeprefix('usage: ')}") from None


class StreamedAnswer:
    """An answer that comes in chunks."""

    def __init__(self) -> None:
        self.started = False
        self._text: list[str] = []
        self._thoughts = Thoughts()
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish_reason: str | None = None
        self._id: str | None = None
        self._usage: object = None
        self._service_tier: object = None

    def add(self, chunk: Any) -> dict[str, Any] | None:
        """Take a chunk, as parsed JSON; return what it adds to text, thoughts and `tool_calls`, None for nothing.

        With it goes the `usage` that the chunk says, as it is. Raises BadReply for what is no chunk.
        """
        try:
            self._id = self._id or chunk.get("id")
            self._usage = chunk.get("usage") or self._usage
            self._service_tier = chunk.get("service_tier") or self._service_tier
            choices = chunk.get("choices")
            if not choices:
                return None
            delta = choices[0].get("delta") or {}
            self._finish_reason = choices[0].get("finish_reason") or self._finish_reason
            self.started = self.started or bool(delta or self._finish_reason)
            self._text.append(delta.get("content") or delta.get("refusal") or "")
            thought = self._thoughts.add(delta)
            for part in delta.get("tool_calls") or ():
                self._add_call(part)
        except (LookupError, TypeError, AttributeError):
            raise BadReply(f"expected a chunk of a chat completion, not {excerpt(_json(chunk))}") from None
        said = {"usage": chunk["usage"]} if chunk.get("usage") else {}
        return {key: delta[key] for key in ("content", "tool_calls") if delta.get(key)} | thought | said or None

    def reply(self) -> ModelReply:
        """The whole answer; raises BrokenStream where its end is missing, BadReply where nothing came."""
        if not self.started:
            raise BadReply("expected a stream of chunks, but none came")
        if self._finish_reason is None:
            raise BrokenStream("the stream ended without a finish_reason")
        calls = [*self._calls.values()]
        message = {"content": "".join(self._text) or None, "tool_calls": calls, **self._thoughts.whole()}
        choice = {"message": message, "finish_reason": self._finish_reason}
        return reply_of({"id": self._id, "choices": [choice], "usage": self._usage, "service_tier": self._service_tier})

    def _add_call(self, part: Mapping[str, Any]) -> None:
        # Without an index, as Gemini sends them, a part with an id begins a call and any other goes on with the last.
        index = part.get("index")
        if index is None:
            index = len(self._calls) - (0 if part.get("id") or not self._calls else 1)
        call = self._calls.setdefault(index, {"id": None, "function": {"name": None, "arguments": ""}})
        function, known = part.get("function") or {}, call["function"]
        call["id"] = call["id"] or part.get("id")
        if signed := part.get("provider_specific_fields"):
            call["provider_specific_fields"] = signed
        known["name"] = known["name"] or function.get("name")
        known["arguments"] += function.get("arguments") or ""


def _tool_call(call: Mapping[str, Any], default_id: str) -> dict[str, Any]:
    function = call["function"]
    if not isinstance(function["name"], str):
        raise TypeError
    arguments = function.get("arguments") or "{}"
    arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
    signed = call.get("provider_specific_fields")  # Gemini's signature of its thoughts, which it wants back
    return {
        "id": call.get("id") or default_id,
        "type": "function",
        "function": {"name": function["name"], "arguments": _whole(arguments)},
        **({"provider_specific_fields": signed} if signed else {}),
    }


def _text(content: object) -> str | None:
    """The text of a message's content: text itself, or a list of parts of which some are text."""
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError
    return None if content is None else _whole(content)


def _whole(text: str) -> str:
    """The text with the halves of characters that a server split between two chunks put together again."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _json(value: object) -> str:
    return json.dumps(value, default=repr)
