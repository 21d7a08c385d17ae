"""An answer as Anthropic's Messages API gives it."""

from __future__ import annotations

import json
from typing import Any

from bursar.budget.usage import Usage
from bursar.runtime.service.answered import Answered
from bursar.runtime.service.problems import Problem
from bursar.runtime.service.segments import Segment, Segments

__all__ = ["block_of", "error_of", "message_of", "opened", "stop_of", "usage_of"]

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
"""Anthropic's words by those of chat completions; any other word is a turn's end."""


_ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's kinds of error by their status; any other is the request's or, from 500 on, the API's."""


def message_of(own: str, answer: Answered) -> dict[str, Any]:
    """The whole message to a call that was answered at once; `own` tells this answer from every other."""
    segments = [change.segment for change in Segments(own).end(answer.message) if change.what == "end"]
    blocks = [block_of(segment) for segment in segments]
    called = any(segment.kind == "call" for segment in segments)
    return opened(answer.sent.model, own) | {
        "content": blocks,
        **stop_of(answer.finish_reason, called=called),
        "usage": usage_of(answer.usage),
    }


def opened(model: str, own: str) -> dict[str, Any]:
    """The message as it is before its answer; `model` is who gives it."""
    return {
        "id": f"msg_{own}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_of(None),
    }


def stop_of(finish_reason: str, *, called: bool) -> dict[str, Any]:
    """Why the model stopped; some servers say `stop` where it called a tool."""
    reason = "tool_use" if called and finish_reason == "stop" else _STOP_REASONS.get(finish_reason, "end_turn")
    return {"stop_reason": reason, "stop_sequence": None}


def block_of(segment: Segment) -> dict[str, Any]:
    """A segment as a content block."""
    match segment.kind:
        case "text":
            return {"type": "text", "text": segment.text}
        case "reasoning":
            return {"type": "thinking", "thinking": segment.text, "signature": segment.signature}
        case "call":
            return {"type": "tool_use", "id": segment.call_id, "name": segment.name, "input": _input(segment.text)}


def usage_of(usage: Usage | None) -> dict[str, Any]:
    """Anthropic's counts, of which `input_tokens` *excludes* what was read from and written to the cache.

    Zeros where the provider did not say: the API has no word for that.
    """
    usage = usage or Usage(input_tokens=0, output_tokens=0)
    hour = usage.cache_write_1h_tokens
    minutes = usage.cache_write_tokens - hour
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def error_of(problem: Problem) -> dict[str, Any]:
    """A problem in Anthropic's words, with RFC 9457's members beside them, `type` aside."""
    kind = _ERRORS.get(problem.status, "api_error" if problem.status >= 500 else "invalid_request_error")
    return {**problem.body(), "type": "error", "error": {"type": kind, "message": problem.detail}}


def _input(arguments: str) -> dict[str, Any]:
    """The arguments as a mapping; what is none is wrapped in one, as Anthropic's documents advise."""
    try:
        parsed = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {"INVALID_JSON": arguments}
