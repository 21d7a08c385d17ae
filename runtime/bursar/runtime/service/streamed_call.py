"""A call whose answer is told while it comes, in the words of one API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import orjson
from starlette.types import ASGIApp

from bursar.runtime.service.answered import Answered, Sent
from bursar.runtime.service.calls import Streamed
from bursar.runtime.service.gateway import Gateway, Incoming
from bursar.runtime.service.headers import of_sent
from bursar.runtime.service.problems import Problem, problem_of
from bursar.runtime.service.streams import EventStream

__all__ = ["Told", "named", "stream"]


Said = TypeVar("Said")
Said_co = TypeVar("Said_co", covariant=True)


class Told(Protocol[Said_co]):
    """The server-sent events of one answer."""

    def begin(self) -> Said_co:
        """Those before the answer."""

    def add(self, delta: Mapping[str, Any]) -> Said_co:
        """Those of a delta in the shape of chat completions."""

    def end(self, answer: Answered) -> Said_co:
        """Those of the answer's end."""

    def fail(self, problem: Problem) -> Said_co:
        """Those of an answer that broke off."""


def named(events: Iterable[Mapping[str, Any]]) -> bytes:
    """Events as they go out, each under the name that is its `type`."""
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), orjson.dumps(one)) for one in events)


async def stream(
    gateway: Gateway,
    request: Incoming,
    chat: Mapping[str, Any],
    told_of: Callable[[str, Sent], Told[Said]],
    written: Callable[[Said], bytes],
) -> ASGIApp:
    """Make the call. `told_of` takes its id and who answers it; `written` is how events go out.

    Raises what `Calls.answer` raises.
    """
    streamed = gateway.calls.stream(request.caller, chat, request.where, request.idempotency_key)
    try:
        first = await anext(streamed)  # a call that is refused is told by its status, so nothing goes out before
    except BaseException:
        await streamed.aclose()
        raise
    sent = streamed.sent or Sent(model=chat["model"], tier="-", reason="-")
    events = _events(gateway, request, streamed, first, told_of(streamed.id, sent), written)
    return EventStream(events, of_sent(streamed.id, sent), streamed.aclose)


async def _events(
    gateway: Gateway,
    request: Incoming,
    streamed: Streamed,
    part: Mapping[str, Any] | Answered,
    told: Told[Said],
    written: Callable[[Said], bytes],
) -> AsyncGenerator[bytes, None]:
    with gateway.metrics.streaming():
        yield written(told.begin())
        try:
            while not isinstance(part, Answered):
                yield written(told.add(part))
                part = await anext(streamed)
        except Exception as error:  # the status is sent: what is left is to tell it in the stream
            problem = problem_of(error)
            gateway.metrics.refusal(problem.code)
            yield written(told.fail(problem))
            return
        gateway.metrics.answered(request.caller, part)
        yield written(told.end(part))
