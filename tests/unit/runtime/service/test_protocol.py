"""Bytes of requests as they come: a head that does not end is cut off, and nothing else is."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from bursar.runtime.service.protocol import HEAD_BYTES_MAX, BoundedHttp

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"
LONG = b"a" * HEAD_BYTES_MAX


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers nothing: what counts is whether the connection stays."""


async def is_closed(*parts: bytes) -> bool:
    config = uvicorn.Config(app, log_config=None, lifespan="off")
    config.load()
    transport = Mock(**{"get_extra_info.return_value": None})
    connection = BoundedHttp(config, ServerState(), {})
    connection.connection_made(transport)
    for part in parts:
        connection.data_received(part)
    closed = bool(transport.close.called)
    connection.connection_lost(None)
    return closed


@pytest.mark.parametrize(
    "parts",
    [
        (HEAD + b"x-long: ", LONG),
        (HEAD, *[b"x-short: 1\r\n" * 1_000] * 6),
        (HEAD + b"\r\n" + HEAD + b"x-long: ", LONG),
    ],
    ids=["one header", "many headers", "the next request's"],
)
async def test_a_head_that_does_not_end_closes_its_connection(parts: tuple[bytes, ...]) -> None:
    assert await is_closed(*parts)


@pytest.mark.parametrize(
    "parts",
    [
        (HEAD + b"content-length: 99999999\r\n\r\n" + LONG, LONG),
        (HEAD + b"content-length: %d\r\n\r\n" % len(LONG), LONG + HEAD),
    ],
    ids=["a body", "the next request in one piece with a body"],
)
async def test_what_is_no_head_may_be_long(parts: tuple[bytes, ...]) -> None:
    assert not await is_closed(*parts)
