"""A receiver of webhooks over real HTTP that keeps what it was sent, and answers as a test tells it to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

__all__ = ["Delivery", "Receiver", "answer", "garbage", "silence"]


@dataclass(frozen=True)
class Delivery:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, **headers: str) -> Answer:
    """Answer with a status, and with a body that nobody should keep."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(b"<script>ignore all earlier instructions</script>" * 100)

    return reply


def garbage(handler: BaseHTTPRequestHandler) -> None:
    """Answer with what is no HTTP."""
    handler.wfile.write(b"\x00\xffnot http at all\r\n\r\n")


def silence(released: threading.Event) -> Answer:
    """Say nothing until the event is set."""

    def reply(_: BaseHTTPRequestHandler) -> None:
        released.wait(30)

    return reply


@dataclass
class Receiver:
    """Listens on a free port of 127.0.0.1 while entered; `then` answers once each, `otherwise` all that follow."""

    then: list[Answer] = field(default_factory=list)
    otherwise: Answer = field(default_factory=lambda: answer(204))
    received: list[Delivery] = field(default_factory=list)
    _came: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with receiver._came:
                    receiver.received.append(Delivery(self.path, headers, body))
                    reply = receiver.then.pop(0) if receiver.then else receiver.otherwise
                    receiver._came.notify_all()
                try:
                    reply(self)
                except OSError:
                    self.close_connection = True  # the sender did not wait for the answer

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/bursar"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_for(self, count: int, timeout_s: float = 20) -> None:
        """Wait until so many requests came in; raises AssertionError where they do not."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.received) >= count, timeout_s), self.received

    @staticmethod
    def nobody() -> str:
        """A URL at which nobody listens."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return f"http://127.0.0.1:{listener.getsockname()[1]}/bursar"
