"""The gateway inside a runtime's own process: keys that a run hands to tools and sub-processes, and that die with it.

It listens at a free port of this machine's loopback, from the first key on until the runtime is closed.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from bursar.runtime.context import RunContext, current_run
from bursar.runtime.service.caller import Caller
from bursar.runtime.service.errors import Unauthorized
from bursar.runtime.service.key_text import new_key
from bursar.runtime.side_loop import SideLoop

if TYPE_CHECKING:
    from fastapi import FastAPI

    from bursar.runtime.config import Config

__all__ = ["RunCallers", "gateway_env"]


def gateway_env() -> dict[str, str]:
    """The environment in which the clients of OpenAI and Anthropic call models for the run around this, and pay by it.

    `OPENAI_BASE_URL`, `OPENAI_API_KEY`, `ANTHROPIC_BASE_URL` and `ANTHROPIC_API_KEY`, for a sub-process or a client in
    a tool. The key is this run's alone and is refused once the run has ended here. Raises NoRunError outside of a run.
    """
    run = current_run()
    with _lock:
        found = _loopbacks.get(run.side_loop)
        if found is None:
            found = _loopbacks[run.side_loop] = _Loopback(run)
    key = found.callers.key_for(run)
    return {
        "OPENAI_BASE_URL": f"{found.url}/v1",
        "OPENAI_API_KEY": key,
        "ANTHROPIC_BASE_URL": found.url,
        "ANTHROPIC_API_KEY": key,
    }


class RunCallers:
    """Runs under way in this process, by the keys that they handed out."""

    def __init__(self) -> None:
        self._runs: dict[str, RunContext] = {}
        self._lock = threading.Lock()

    def key_for(self, run: RunContext) -> str:
        """The key of a run, or of an agent used as a tool in it; the same each time."""
        with self._lock:
            self._runs = {key: one for key, one in self._runs.items() if not one.ended.is_set()}
            for key, one in self._runs.items():
                if one is run:
                    return key
            key = new_key()
            self._runs[key] = run
            return key

    def forget(self) -> None:
        """Refuse every key."""
        with self._lock:
            self._runs = {}

    async def of(self, token: str) -> Caller:
        """The run that handed the key out; raises Unauthorized once it has ended here."""
        run = self._runs.get(token)
        if run is None or run.ended.is_set():
            raise Unauthorized
        return Caller(key_id=run.scope.run_id, run=run, agent=run.scope.agents[-1])


class _Loopback:
    """The gateway of one runtime."""

    def __init__(self, run: RunContext) -> None:
        self.callers = RunCallers()
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = run.side_loop.door = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # Whoever connects before it serves waits in the listener's line.
        run.side_loop.begin(_serve(run.calls.catalog.config, self.callers, listener))


_loopbacks: WeakKeyDictionary[SideLoop, _Loopback] = WeakKeyDictionary()
_lock = threading.Lock()


async def _serve(config: Config, callers: RunCallers, listener: socket.socket) -> None:
    """Serve until the runtime's loop is closed."""
    # Imported here: this is not the loop on which the run waits for its key.
    import uvicorn

    class Server(uvicorn.Server):
        async def main_loop(self) -> None:
            with suppress(asyncio.CancelledError):  # closed with its runtime: end in order
                await super().main_loop()

    server = Server(
        uvicorn.Config(
            _app(config, callers),
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    try:
        with listener:
            await server.serve([listener])
    finally:
        callers.forget()  # else their runs would keep the closed runtime's loop alive


def _app(config: Config, callers: RunCallers) -> FastAPI:
    from bursar.runtime.service.app import app_of
    from bursar.runtime.service.calls import Calls
    from bursar.runtime.service.gateway import Gateway
    from bursar.runtime.service.metrics import Metrics
    from bursar.runtime.service.names import Names

    names = Names(config, agents=False)
    gateway = Gateway(
        callers=callers,
        calls=Calls(names),
        names=names,
        metrics=Metrics(),
        body_bytes_max=config.gateway.body_bytes_max,
    )
    return app_of(gateway)
