"""Server-sent events: a response whose head goes out with its first piece, and that ends when its client goes away."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

__all__ = ["EventStream"]

_HEAD = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))


class EventStream:
    """An ASGI response of events; each item is one or more whole events as bytes."""

    status_code = 200

    def __init__(
        self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str], close: Callable[[], Awaitable[None]]
    ) -> None:
        """`close` is awaited however this ends, also where it ends before the first event was asked for."""
        self._events = events
        self._headers = headers
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        own = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._headers.items()]
        try:
            async with aclosing(self._events) as events:
                await send({"type": "http.response.start", "status": 200, "headers": [*_HEAD, *own]})
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await self._close()
