"""A generated answer, token by token, and its shapes on the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.behaviour import Answer
from tests.support.tokens import Tokens, compact

__all__ = ["OUTPUT_TOKENS_MAX", "Completion", "Delta", "output_bound", "output_deltas"]

OUTPUT_TOKENS_MAX = 16_384

Delta = dict[str, Any]
"""What one token adds to the message, in the shape of OpenAI's `delta`; empty where it shows nothing."""


def output_bound(body: Mapping[str, Any]) -> int:
    """The most tokens that may be generated for this request."""
    asked: list[int | None] = [body.get("max_tokens"), body.get("max_completion_tokens")]
    return min([OUTPUT_TOKENS_MAX, *(bound for bound in asked if bound is not None)])


def output_deltas(answer: Answer, tokens: Tokens, *, filler_tokens: int, call_id: str) -> list[Delta]:
    """The whole answer, one delta per token."""
    text = answer.text or ""
    if answer.text is None and not answer.tool_calls:
        text = tokens.filler(filler_tokens if answer.output_tokens is None else answer.output_tokens)
    shown: list[Delta] = [{"content": part} for part in tokens.split(text)]
    for index, (name, arguments) in enumerate(answer.tool_calls):
        raw = arguments if isinstance(arguments, str) else compact(arguments)
        shown += _call_deltas(tokens, index, f"{call_id}_{index}", name, raw)
    hidden: list[Delta] = [{}] * ((answer.output_tokens or 0) - len(shown))
    return hidden + shown + [{}] * (tokens.output_floor - len(hidden) - len(shown))


def _call_deltas(tokens: Tokens, index: int, call_id: str, name: str, arguments: str) -> list[Delta]:
    function = {"name": name, "arguments": ""}
    opening: Delta = {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
    rest_of_name: list[Delta] = [{}] * (len(tokens.split(name)) - 1)
    parts = ({"index": index, "function": {"arguments": part}} for part in tokens.split(arguments))
    return [opening, *rest_of_name, *({"tool_calls": [part]} for part in parts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An answer within its bound."""

    id: str
    model: str
    created: int
    choices: int
    input_tokens: int
    deltas: list[Delta]
    finish_reason: str

    @property
    def output_tokens(self) -> int:
        return len(self.deltas) * self.choices

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }

    def body(self) -> dict[str, Any]:
        """The answer in one piece, without `usage`."""
        choice = {"message": _message(self.deltas), "logprobs": None, "finish_reason": self.finish_reason}
        return self._envelope("chat.completion", [{"index": index, **choice} for index in range(self.choices)])

    def chunks_of(self, delta: Delta, finish_reason: str | None = None) -> Iterator[dict[str, Any]]:
        """A chunk for each choice."""
        for index in range(self.choices):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            yield self._envelope("chat.completion.chunk", [choice])

    def usage_chunk(self) -> dict[str, Any]:
        """The last chunk of a stream that was asked for usage, still without it."""
        return self._envelope("chat.completion.chunk", [])

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def _message(deltas: list[Delta]) -> dict[str, Any]:
    calls: dict[int, dict[str, Any]] = {}
    arguments: dict[int, list[str]] = {}
    for part in (part for delta in deltas for part in delta.get("tool_calls", ())):
        index = part["index"]
        if "id" in part:
            calls[index] = {"id": part["id"], "type": "function", "function": {"name": part["function"]["name"]}}
        arguments.setdefault(index, []).append(part["function"]["arguments"])
    for index, call in calls.items():
        call["function"]["arguments"] = "".join(arguments[index])
    text = "".join(delta.get("content", "") for delta in deltas)
    message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text}
    return message | ({"tool_calls": list(calls.values())} if calls else {})
