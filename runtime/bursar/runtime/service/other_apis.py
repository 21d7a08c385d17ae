"""`POST /v1/responses`, `/v1/messages` and its count of tokens: chat completions for clients of these APIs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp

from bursar.runtime.service.answered import Sent
from bursar.runtime.service.gateway import Gateway, Incoming
from bursar.runtime.service.headers import of_answer
from bursar.runtime.service.messages import error_of, message_of
from bursar.runtime.service.messages_request import CountRequest, MessagesRequest, chat_prompt
from bursar.runtime.service.messages_request import chat_body as chat_of_messages
from bursar.runtime.service.messages_stream import MessageEvents
from bursar.runtime.service.names import AGENT_PREFIX
from bursar.runtime.service.problems import Problem
from bursar.runtime.service.responses import Opening, response_of
from bursar.runtime.service.responses_request import ResponsesRequest
from bursar.runtime.service.responses_request import chat_body as chat_of_responses
from bursar.runtime.service.responses_stream import ResponseEvents
from bursar.runtime.service.shapes import read_body
from bursar.runtime.service.streamed_call import named, stream

__all__ = ["count_tokens", "messages", "refused_message", "responses"]


async def responses(gateway: Gateway, request: Incoming) -> ASGIApp:
    """Answer a request of OpenAI's Responses API."""
    asked = read_body(ResponsesRequest, request.body)
    chat, created_s = chat_of_responses(asked), int(time.time())

    def opening(call_id: str, sent: Sent) -> Opening:
        return Opening(request=asked, own=_own(call_id), model=sent.model, created_s=created_s)

    if asked.stream:
        return await stream(gateway, request, chat, lambda *call: ResponseEvents(opening(*call)), named)
    answered = await gateway.calls.answer(request.caller, chat, request.where, request.idempotency_key)
    gateway.metrics.answered(request.caller, answered)
    return _json(response_of(opening(answered.id, answered.sent), answered), headers=of_answer(answered))


async def messages(gateway: Gateway, request: Incoming) -> ASGIApp:
    """Answer a request of Anthropic's Messages API."""
    asked = read_body(MessagesRequest, request.body)
    chat = chat_of_messages(asked)
    if asked.model.startswith(AGENT_PREFIX):
        del chat["max_completion_tokens"]  # the API needs it, and an agent has bounds of its own
    if asked.stream:
        return await stream(
            gateway, request, chat, lambda call_id, sent: MessageEvents(sent.model, _own(call_id)), named
        )
    answered = await gateway.calls.answer(request.caller, chat, request.where, request.idempotency_key)
    gateway.metrics.answered(request.caller, answered)
    return _json(message_of(_own(answered.id), answered), headers=of_answer(answered))


async def count_tokens(gateway: Gateway, request: Incoming) -> ASGIApp:
    """Count what a request to `messages` would read, as it is counted for its reservation; costs nothing."""
    asked = read_body(CountRequest, request.body)
    gateway.names.resolve(request.caller, asked.model)
    prompt, counter = chat_prompt(asked), request.caller.run.calls.counter
    # In a thread, since a long prompt takes long.
    counted = await asyncio.to_thread(counter.count_request, prompt["messages"], prompt.get("tools", ()))
    return _json({"input_tokens": counted})


def refused_message(problem: Problem) -> Response:
    """A problem as Anthropic's API tells it."""
    return _json(error_of(problem), problem.status, problem.headers)


def _own(call_id: str) -> str:
    """What tells this call from every other, without its run and the prefix that says what it is."""
    return call_id.rpartition("_")[2]


def _json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")
