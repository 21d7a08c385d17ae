"""An answer as OpenAI's Responses API gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bursar.budget.usage import Usage
from bursar.runtime.service.answered import Answered
from bursar.runtime.service.responses_request import ResponsesRequest, TextFormat
from bursar.runtime.service.segments import Segment, Segments

__all__ = ["Opening", "Status", "completed", "item_id", "item_of", "part_of", "response_of"]

Status = Literal["in_progress", "completed", "incomplete"]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is not whole, by the finish reasons of chat completions."""

_PREFIXES = {"text": "msg", "reasoning": "rs", "call": "fc"}
"""What the ids of OpenAI's output items begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What is known of a response before its answer."""

    request: ResponsesRequest
    own: str
    """What tells this answer from every other; its ids are made of it."""

    model: str
    """Who answers."""

    created_s: int
    """When, in seconds since 1970."""

    def response(self, status: Status | Literal["failed"], output: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The response with this output, without usage."""
        request = self.request
        return {
            "id": f"resp_{self.own}",
            "object": "response",
            "created_at": self.created_s,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": dict(request.metadata or {}),
            "model": self.model,
            "output": list(output),
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": request.reasoning.model_dump() if request.reasoning else None,
            "store": False,
            "temperature": request.temperature,
            "text": _text_config(request.text),
            "tool_choice": request.tool_choice if isinstance(request.tool_choice, str) else _choice(request),
            "tools": [tool.model_dump() for tool in request.tools or ()],
            "top_p": request.top_p,
            "truncation": "disabled",
            "usage": None,
        }


def response_of(opening: Opening, answer: Answered) -> dict[str, Any]:
    """The whole response to a call that was answered at once."""
    segments = [change.segment for change in Segments(opening.own).end(answer.message) if change.what == "end"]
    return completed(opening, [item_of(segment, opening.own) for segment in segments], answer)


def completed(opening: Opening, output: Sequence[Mapping[str, Any]], answer: Answered) -> dict[str, Any]:
    """The response with all of its output."""
    reason = _INCOMPLETE.get(answer.finish_reason)
    return opening.response("incomplete" if reason else "completed", output) | {
        "model": answer.sent.model,
        "incomplete_details": {"reason": reason} if reason else None,
        "usage": _usage(answer.usage),
    }


def item_of(segment: Segment, own: str, *, begun: bool = False) -> dict[str, Any]:
    """A segment as an output item: whole, or only just begun."""
    status: Status = "in_progress" if begun else "completed"
    parts = [] if begun else [part_of(segment, segment.text)]
    item: dict[str, Any] = {"id": item_id(segment, own)}
    match segment.kind:
        case "text":
            return item | {"type": "message", "status": status, "role": "assistant", "content": parts}
        case "reasoning":
            kept = {"encrypted_content": None if begun else segment.signature or None}
            return item | {"type": "reasoning", "summary": [], "content": parts, **kept}
        case "call":
            call = {"call_id": segment.call_id, "name": segment.name, "arguments": "" if begun else segment.text}
            return item | {"type": "function_call", "status": status, **call}


def item_id(segment: Segment, own: str) -> str:
    """The id of the output item that a segment is."""
    return f"{_PREFIXES[segment.kind]}_{own}_{segment.place}"


def part_of(segment: Segment, text: str) -> dict[str, Any]:
    """The content of words, with this text."""
    if segment.kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _text_config(text: TextFormat | None) -> dict[str, Any]:
    format_ = text.format.model_dump(by_alias=True) if text and text.format else {"type": "text"}
    return {"format": format_, **({"verbosity": text.verbosity} if text and text.verbosity else {})}


def _choice(request: ResponsesRequest) -> str | dict[str, Any]:
    choice = request.tool_choice
    return "auto" if choice is None or isinstance(choice, str) else choice.model_dump()


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    cached = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": cached,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
