"""A call streamed as typed events, in the words of an API other than chat completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import orjson
from starlette.types import ASGIApp

from bursar.runtime.service.calls import Answered, Sent, Streamed
from bursar.runtime.service.gateway import Gateway, Incoming
from bursar.runtime.service.headers import of_sent
from bursar.runtime.service.problems import Problem, problem_of
from bursar.runtime.service.streams import EventStream

__all__ = ["TypedEvents", "stream"]

Event = Mapping[str, Any]
"""One event; its `type` is its name, too."""


class TypedEvents(Protocol):
    """The events of one answer."""

    def begin(self) -> Iterator[Event]:
        """Those before the answer."""

    def add(self, delta: Mapping[str, Any]) -> Iterator[Event]:
        """Those of a delta in the shape of chat completions."""

    def end(self, answer: Answered) -> Iterator[Event]:
        """Those of the answer's end."""

    def fail(self, problem: Problem) -> Iterator[Event]:
        """Those of an answer that broke off."""


async def stream(
    gateway: Gateway, request: Incoming, chat: Mapping[str, Any], told_of: Callable[[str], TypedEvents]
) -> ASGIApp:
    """Make the call, and tell its answer while it comes; `told_of` takes the call's id. Raises as `Calls.answer`."""
    streamed = gateway.calls.stream(request.caller, chat, request.where, request.idempotency_key)
    try:
        first = await anext(streamed)  # a call that is refused is told by its status, so nothing goes out before
    except BaseException:
        await streamed.aclose()
        raise
    sent = streamed.sent or Sent(model=chat["model"], tier="-", reason="-")
    events = _events(gateway, request, streamed, first, told_of(streamed.id))
    return EventStream(events, of_sent(streamed.id, sent), streamed.aclose)


async def _events(
    gateway: Gateway, request: Incoming, streamed: Streamed, part: Mapping[str, Any] | Answered, told: TypedEvents
) -> AsyncGenerator[bytes, None]:
    with gateway.metrics.streaming():
        yield _encoded(told.begin())
        try:
            while not isinstance(part, Answered):
                yield _encoded(told.add(part))
                part = await anext(streamed)
        except Exception as error:  # the status is sent: what is left is to tell it in the stream
            problem = problem_of(error)
            gateway.metrics.refusal(problem.code)
            yield _encoded(told.fail(problem))
            return
        gateway.metrics.answered(request.caller, part)
        yield _encoded(told.end(part))


def _encoded(events: Iterable[Event]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), orjson.dumps(one)) for one in events)
