"""An OpenAI-compatible provider over real HTTP that keeps the true bill, inside a test or as a process of its own.

    with TrueProvider(Behaviour(latency_s=0.5)) as provider:
        ...                                # call provider.api_base with any OpenAI client
        provider.bill.nanousd("1", "100")  # what a provider would charge

    python -m tests.support.provider --port 0 --latency-s 0.5   # prints its URL, then serves until SIGTERM

Other processes reach the same by `GET /_bill`, `POST /_reset` and `POST /_script`.
"""

from __future__ import annotations

import argparse
import signal
import socket
import threading
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.support import vectors
from tests.support.behaviour import Answer, Behaviour, Fault, FaultKind
from tests.support.bill import Bill, Billed
from tests.support.exchange import Exchange
from tests.support.tokens import tokens_for

__all__ = ["Answer", "Behaviour", "Bill", "Billed", "Fault", "FaultKind", "TrueProvider", "main"]

_STOP_TIMEOUT_S = 10


class TrueProvider:
    """A provider on a free port of 127.0.0.1, serving in a thread with a loop of its own while entered."""

    def __init__(self, behaviour: Behaviour | None = None, *, port: int = 0) -> None:
        self.behaviour = behaviour or Behaviour()
        """May be replaced at any time; a call in flight keeps what it started with."""

        self.bill = Bill()
        self._port = port

    def __enter__(self) -> Self:
        tokens_for(self.behaviour.counting)
        listener = socket.create_server(("127.0.0.1", self._port))
        # asyncio does it for sockets of its own only; without it every answer waits 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.api_base = f"{self.url}/v1"
        self._server = _Server(
            uvicorn.Config(self._app(), http="h11", log_config=None, log_level="error", lifespan="off")
        )
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="true-provider", daemon=True)
        self._thread.start()
        if not self._server.ready.wait(_STOP_TIMEOUT_S):
            raise RuntimeError(f"the provider did not start within {_STOP_TIMEOUT_S} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(_STOP_TIMEOUT_S)
        if self._thread.is_alive():
            raise RuntimeError(f"the provider did not stop within {_STOP_TIMEOUT_S} s")

    def reset(self, behaviour: Behaviour | None = None) -> None:
        """Start a new bill; a call still in flight stays on the old one."""
        self.behaviour, self.bill = behaviour or Behaviour(), Bill()

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", _ChatCompletions(self), methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
                Route("/v1/rerank", self._rerank, methods=["POST"]),
                Route("/_bill", self._show_bill),
                Route("/_reset", self._reset, methods=["POST"]),
                Route("/_script", self._script, methods=["POST"]),
            ]
        )

    async def _models(self, request: Request) -> Response:
        models = [{"id": name, "object": "model", "owned_by": "tests"} for name in self.behaviour.models]
        return JSONResponse({"object": "list", "data": models})

    async def _embeddings(self, request: Request) -> Response:
        return await vectors.embeddings(request, self.bill, tokens_for(self.behaviour.counting))

    async def _rerank(self, request: Request) -> Response:
        return await vectors.rerank(request, self.bill, tokens_for(self.behaviour.counting))

    async def _show_bill(self, request: Request) -> Response:
        return JSONResponse(self.bill.as_json())

    async def _reset(self, request: Request) -> Response:
        self.reset()
        return JSONResponse({})

    async def _script(self, request: Request) -> Response:
        try:
            self.behaviour = self.behaviour.with_json(await request.json())
        except (TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({})

    def _hang_up(self, client: tuple[str, int]) -> None:
        for connection in self._server.server_state.connections:
            if connection.transport.get_extra_info("peername") == client:
                connection.transport.close()


class _ChatCompletions:
    """The endpoint, in plain ASGI: some of its answers must break HTTP's rules."""

    def __init__(self, provider: TrueProvider) -> None:
        self._provider = provider

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        provider = self._provider
        await Exchange(
            behaviour=provider.behaviour,
            bill=provider.bill,
            scope=scope,
            receive=receive,
            send=send,
            hang_up=lambda: provider._hang_up(tuple(scope["client"])),
        ).run()


class _Server(uvicorn.Server):
    """Uvicorn that says when it listens, and that does not wait for its clients when it stops."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()
        await super().shutdown(sockets)


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; the first line printed is the URL."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--latency-sigma", type=float, default=0.0)
    parser.add_argument("--chunk-s", type=float, default=0.0)
    parser.add_argument("--output-tokens", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--counting", choices=["real", "fixed"], default="real")
    settings: dict[str, Any] = vars(parser.parse_args(arguments))
    port = settings.pop("port")
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    with TrueProvider(Behaviour(**settings), port=port) as provider:
        print(provider.url, flush=True)
        signal.sigwait(stops)


if __name__ == "__main__":
    main()
