"""The gateway's parts, and the one way by which every request goes: who calls, what is asked, what came of it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from bursar.runtime.service import body
from bursar.runtime.service.caller import Attribution, Caller
from bursar.runtime.service.calls import Calls
from bursar.runtime.service.headers import attribution, idempotency_key, token_of
from bursar.runtime.service.metrics import Metrics
from bursar.runtime.service.names import Names
from bursar.runtime.service.problems import Problem, problem_of, refused

__all__ = ["Callers", "Endpoint", "Gateway", "Incoming"]


class Callers(Protocol):
    """Who holds which key."""

    async def of(self, token: str) -> Caller:
        """The holder of a key; raises Unauthorized, which never says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What answers requests, on one event loop."""

    callers: Callers
    calls: Calls
    names: Names
    metrics: Metrics
    body_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request by the holder of a valid key."""

    caller: Caller
    body: Any
    """The parsed JSON; None for a request without a body."""

    where: Attribution
    idempotency_key: str | None
    path: dict[str, Any]
    """The parameters in the path."""


Answer = Callable[[Gateway, Incoming], Awaitable[ASGIApp]]
"""Answers one request with an ASGI response; raises what `problem_of` knows."""


class Endpoint:
    """One path of the gateway, as an ASGI application."""

    def __init__(
        self,
        gateway: Gateway,
        answer: Answer,
        *,
        name: str,
        refuse: Callable[[Problem], ASGIApp] = refused,
    ) -> None:
        """`name` is how metrics call it; `refuse` tells a problem in the words of the API that the path belongs to."""
        self._gateway = gateway
        self._answer = answer
        self._name = name
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request to its end."""
        started = time.perf_counter()
        response = _Told(send)
        try:
            await self._serve(scope, receive, response)
        except ClientDisconnect:
            response.status = 499
        finally:
            self._gateway.metrics.request(self._name, response.status, time.perf_counter() - started)

    async def _serve(self, scope: Scope, receive: Receive, send: _Told) -> None:
        try:
            request = await self._incoming(scope, receive)
            async with _While(receive):
                response = await self._answer(self._gateway, request)
                await response(scope, receive, send)
        except ClientDisconnect:
            raise
        except Exception as error:
            problem = problem_of(error)
            self._gateway.metrics.refusal(problem.code)
            if send.status == 0:  # else a part was sent, and the stream itself has told the rest
                await self._refuse(problem)(scope, receive, send)

    async def _incoming(self, scope: Scope, receive: Receive) -> Incoming:
        headers = Headers(scope=scope)
        caller = await self._gateway.callers.of(token_of(headers))
        raw = await body.read(scope, receive, self._gateway.body_bytes_max)
        return Incoming(
            caller=caller,
            body=body.parsed(raw) if scope["method"] == "POST" else None,
            where=attribution(headers, caller),
            idempotency_key=idempotency_key(headers),
            path=scope.get("path_params", {}),
        )


class _Told:
    """The way to the client; remembers the status, and gives each response an id."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        """0 while nothing was sent."""

    async def __call__(self, message: Any) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", f"req_{secrets.token_hex(12)}".encode())]
        await self._send(message)


class _While:
    """While the client is there: what runs within is cancelled when it goes away, and ClientDisconnect is raised."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        self._watch = asyncio.ensure_future(self._receive())  # after the body there is nothing more but the end

        def gone(watch: asyncio.Future[Any]) -> None:
            if not watch.cancelled() and task is not None:
                self._is_gone = True
                task.cancel()

        self._gone = gone
        self._task = task
        self._watch.add_done_callback(gone)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._watch.remove_done_callback(self._gone)
        self._watch.cancel()
        if self._is_gone and kind is asyncio.CancelledError and self._task is not None:
            self._task.uncancel()
            raise ClientDisconnect from None
