"""A runtime as a gateway: the HTTP application on top of it, and the server that runs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.supervisors import Multiprocess

from bursar.budget.errors import BursarError, LedgerError
from bursar.runtime.engine import ended_after_cancel
from bursar.runtime.runtime import Runtime
from bursar.runtime.service.agents import Agents
from bursar.runtime.service.app import app_of
from bursar.runtime.service.callers import StandingCallers
from bursar.runtime.service.calls import Calls
from bursar.runtime.service.gateway import Gateway
from bursar.runtime.service.key_secret import key_secret
from bursar.runtime.service.keys import Keys
from bursar.runtime.service.metrics import Metrics
from bursar.runtime.service.names import Names
from bursar.runtime.service.pace import Pace
from bursar.runtime.service.protocol import BoundedHttp

__all__ = ["Serving", "gateway_app", "run_server", "server_config"]

GRACE_S = 30
"""How long answers under way may take once the server is told to stop."""

_log = logging.getLogger("bursar.gateway")


def gateway_app(runtime: Runtime, secret: bytes) -> FastAPI:
    """The application that answers the holders of the runtime's keys; `secret` is the one that they are hashed under.

    It belongs to the event loop on which the runtime was opened.
    """
    names = Names(runtime.config)
    gateway = Gateway(
        callers=StandingCallers(runtime, Keys(runtime.ledger, secret, clock=runtime.clock)),
        calls=Calls(names, Pace(runtime.config, runtime.ledger_thread), Agents(runtime)),
        names=names,
        metrics=Metrics(runtime.health.snapshot),
        body_bytes_max=runtime.config.gateway.body_bytes_max,
    )

    async def ready() -> bool:
        try:
            await runtime.ledger_thread.do(runtime.ledger.policies.ls)
        except LedgerError:
            return False
        return True

    return app_of(gateway, ready=ready)


def server_config(app: ASGIApp, *, workers: int = 1) -> uvicorn.Config:
    """How a server runs the application: it says nothing by itself, and lets answers under way end."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedHttp,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        workers=workers,
        timeout_graceful_shutdown=GRACE_S,
    )


def run_server(file: Path, listener: socket.socket, *, workers: int, works: bool = False) -> None:
    """Serve what the configuration in a file says, until a signal; each worker is a process with its own runtime.

    With `works` each of them also executes runs that wait for a worker.
    """
    config = server_config(Serving(file, works=works), workers=workers)
    if workers == 1:
        _Server(config).run([listener])
    else:
        Multiprocess(config, [listener]).run()


class _Server(uvicorn.Server):
    """A server for which a signal is a reason to end, and not one to die of once it has ended."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; at once where Ctrl-C is pressed again."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


class Serving:
    """The application of a configuration file, which opens its runtime when the server starts.

    It can be sent to another process, and is a runtime there.
    """

    def __init__(self, file: Path, *, works: bool = False) -> None:
        self._file = file
        self._works = works
        self._app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or live through the server's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # the server has started
        try:
            async with Runtime.open(self._file) as runtime:
                # The encoding takes a second to load, in which nobody else would be answered.
                await asyncio.to_thread(runtime.calls.counter.count_text, "-")
                self._app = gateway_app(runtime, await asyncio.to_thread(key_secret, runtime.config))
                await send({"type": "lifespan.startup.complete"})
                async with _working(runtime) if self._works else contextlib.nullcontext():
                    await receive()  # the server ends
        except BursarError as error:
            _log.error("%s", error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})


@contextlib.asynccontextmanager
async def _working(runtime: Runtime) -> AsyncIterator[None]:
    task = asyncio.create_task(runtime.work())
    try:
        yield
    finally:
        await ended_after_cancel(task)
