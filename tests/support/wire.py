"""A server that answers each request with the same bytes: what a provider sends, and what it was sent."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Canned", "Wire", "http", "served", "sse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canned:
    """What the server sends, byte for byte, and what it does then."""

    content: bytes = b""
    then: Literal["wait for more", "close", "reset", "hang"] = "wait for more"


def http(status: int, content: bytes | Mapping[str, Any], *, media: str = "application/json", more: str = "") -> Canned:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = f"HTTP/1.1 {status} -\r\ncontent-type: {media}\r\ncontent-length: {len(data)}\r\n{more}\r\n"
    return Canned(content=head.encode() + data)


def sse(*events: Mapping[str, Any] | str, ended: bool = True) -> Canned:
    """A stream of events, in HTTP chunks; `ended` says whether the last chunk comes."""
    content = b"HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    for event in events:
        name = f"event: {event['type']}\n" if isinstance(event, Mapping) and "type" in event else ""
        data = f"{name}data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
        content += b"%x\r\n%b\r\n" % (len(data), data)
    return Canned(content=content + (b"0\r\n\r\n" if ended else b""), then="wait for more" if ended else "close")


@dataclass(slots=True)
class Wire:
    """A server that answers every request with the same bytes and remembers what it was asked."""

    answer: Canned = field(default_factory=Canned)
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    """Head and body of every request."""

    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client leaves before its answer has come to an end."""

    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.lower().splitlines() if line.startswith("content-length:"))
        self.asked.append((head, json.loads(await reader.readexactly(int(length.split(":")[1])))))
        writer.write(self.answer.content)
        await writer.drain()
        if self.answer.then == "hang":
            await reader.read()
            self.hung_up.set()
        if self.answer.then == "reset":
            abort = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abort)
            writer.transport.abort()
        return self.answer.then == "wait for more"


@asynccontextmanager
async def served() -> AsyncIterator[Wire]:
    """A wire that listens on a free port of 127.0.0.1 while entered."""
    wire = Wire()
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        await wire.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    yield wire
    server.close()
    await asyncio.wait_for(asyncio.gather(*connections), 10)
