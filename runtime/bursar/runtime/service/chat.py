"""`POST /v1/chat/completions`: the whole answer at once, or in chunks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp

from bursar.budget.usage import Usage
from bursar.runtime.service.calls import Answered, Sent
from bursar.runtime.service.chat_request import read_chat
from bursar.runtime.service.gateway import Gateway, Incoming
from bursar.runtime.service.headers import of_answer
from bursar.runtime.service.problems import Problem
from bursar.runtime.service.streamed_call import stream

__all__ = ["chat_completions", "usage_record"]

_DONE = b"data: [DONE]\n\n"


async def chat_completions(gateway: Gateway, request: Incoming) -> ASGIApp:
    """Answer a chat completion."""
    chat = read_chat(request.body)
    if chat.get("stream"):
        usage = bool((chat.get("stream_options") or {}).get("include_usage"))
        return await stream(gateway, request, chat, partial(_Chunks, usage=usage), bytes)
    answered = await gateway.calls.answer(request.caller, chat, request.where, request.idempotency_key)
    gateway.metrics.answered(request.caller, answered)
    return Response(orjson.dumps(completion(answered)), 200, of_answer(answered), "application/json")


def completion(answered: Answered) -> dict[str, Any]:
    """A whole answer in OpenAI's shape."""
    choice = {
        "index": 0,
        "message": {"refusal": None, **answered.message},
        "logprobs": None,
        "finish_reason": answered.finish_reason,
    }
    return {
        "id": f"chatcmpl-{answered.id.rpartition(':')[2]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answered.sent.model,
        "choices": [choice],
        "usage": usage_record(answered.usage),
        **_of_run(answered),
    }


def _of_run(answered: Answered) -> dict[str, Any]:
    """The run of an agent that answered, beside what OpenAI's shape has."""
    return {} if answered.run is None else {"bursar": dict(zip(("run", "status"), answered.run, strict=True))}


def usage_record(usage: Usage | None) -> dict[str, Any] | None:
    """What an answer used, in OpenAI's shape: cached tokens are among the prompt's, reasoning is of the completion."""
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


class _Chunks:
    """The chunks of one answer: all but the delta is written once."""

    def __init__(self, call_id: str, sent: Sent, *, usage: bool) -> None:
        self._envelope = {
            "id": f"chatcmpl-{call_id.rpartition(':')[2]}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": sent.model,
        }
        self._usage = usage
        self._before = b"data: " + orjson.dumps(self._envelope)[:-1] + b',"choices":[{"index":0,"delta":'
        self._after = b',"logprobs":null,"finish_reason":null}]' + (b',"usage":null' if usage else b"") + b"}\n\n"

    def begin(self) -> bytes:
        """The chunk that opens the message."""
        return self.add({"role": "assistant", "content": ""})

    def add(self, delta: Mapping[str, Any]) -> bytes:
        """A piece of the message."""
        return self._before + orjson.dumps(delta) + self._after

    def end(self, answered: Answered) -> bytes:
        """The end: why it ended and what it cost, the usage where it was asked for, and `[DONE]`."""
        end = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": answered.finish_reason}
        ended = _event({**self._envelope, "choices": [end], "bursar": answered.came_to()})
        if self._usage:
            ended += _event({**self._envelope, "choices": [], "usage": usage_record(answered.usage)})
        return ended + _DONE

    def fail(self, problem: Problem) -> bytes:
        """The error, in place of the rest."""
        return _event({"error": problem.error})


def _event(data: Any) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
