"""`POST /v1/chat/completions`: the whole answer at once, or in chunks."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp

from bursar.budget.money import usd
from bursar.budget.usage import Usage
from bursar.runtime.service.calls import Answered, Sent, Streamed
from bursar.runtime.service.chat_request import read_chat
from bursar.runtime.service.gateway import Gateway, Incoming
from bursar.runtime.service.headers import of_answer, of_sent
from bursar.runtime.service.problems import problem_of
from bursar.runtime.service.streams import EventStream

__all__ = ["chat_completions", "event", "usage_record"]

_DONE = b"data: [DONE]\n\n"


async def chat_completions(gateway: Gateway, request: Incoming) -> ASGIApp:
    """Answer a chat completion."""
    chat = read_chat(request.body)
    if chat.get("stream"):
        return await _streamed(gateway, request, chat)
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
        "id": f"chatcmpl-{answered.id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answered.sent.model,
        "choices": [choice],
        "usage": usage_record(answered.usage),
    }


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


def event(data: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


async def _streamed(gateway: Gateway, request: Incoming, chat: Mapping[str, Any]) -> ASGIApp:
    streamed = gateway.calls.stream(request.caller, chat, request.where, request.idempotency_key)
    try:
        first = await anext(streamed)  # a call that is refused is told by its status, so nothing goes out before
    except BaseException:
        await streamed.aclose()
        raise
    sent = streamed.sent or Sent(model=chat["model"], tier="-", reason="-")
    chunks = _Chunks(streamed.id, sent.model, usage=bool((chat.get("stream_options") or {}).get("include_usage")))
    events = _events(gateway, request, streamed, first, chunks)
    return EventStream(events, of_sent(streamed.id, sent), streamed.aclose)


async def _events(
    gateway: Gateway, request: Incoming, streamed: Streamed, first: Mapping[str, Any] | Answered, chunks: _Chunks
) -> AsyncGenerator[bytes, None]:
    with gateway.metrics.streaming():
        yield chunks.first()
        part = first
        try:
            while not isinstance(part, Answered):
                yield chunks.delta(part)
                part = await anext(streamed)
        except Exception as error:  # the status is sent: what is left is to tell it in the stream
            problem = problem_of(error)
            gateway.metrics.refusal(problem.code)
            yield event({"error": problem.error})
            return
        gateway.metrics.answered(request.caller, part)
        yield chunks.last(part)


class _Chunks:
    """The chunks of one answer: all but the delta is written once."""

    def __init__(self, call_id: str, model: str, *, usage: bool) -> None:
        self._envelope = {
            "id": f"chatcmpl-{call_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._usage = usage
        self._before = b"data: " + orjson.dumps(self._envelope)[:-1] + b',"choices":[{"index":0,"delta":'
        self._after = b',"logprobs":null,"finish_reason":null}]' + (b',"usage":null' if usage else b"") + b"}\n\n"

    def first(self) -> bytes:
        """The chunk that opens the message."""
        return self.delta({"role": "assistant", "content": ""})

    def delta(self, delta: Mapping[str, Any]) -> bytes:
        """A piece of the message."""
        return self._before + orjson.dumps(delta) + self._after

    def last(self, answered: Answered) -> bytes:
        """The end: why it ended and what it cost, the usage where it was asked for, and `[DONE]`."""
        end = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": answered.finish_reason}
        cost = {"cost_usd": format(usd(answered.posted.nanousd), "f"), "replayed": answered.replayed}
        if answered.money_left is not None:
            cost["remaining_usd"] = format(usd(answered.money_left.left_nanousd), "f")
        ended = event({**self._envelope, "choices": [end], "bursar": cost})
        if self._usage:
            ended += event({**self._envelope, "choices": [], "usage": usage_record(answered.usage)})
        return ended + _DONE
