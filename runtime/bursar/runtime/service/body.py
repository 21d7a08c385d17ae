"""A request's body: read within its bound, and parsed without following it down for ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from bursar.runtime.service.errors import BadRequest, TooLarge

__all__ = ["parsed", "read"]

DEPTH_MAX = 64
"""How deep lists and objects may be nested: deeper than any schema of a tool, far less than what stops a parser."""

MEMBERS_MAX = 5_000
"""How many members an object may have: what OpenAI takes in a whole schema. Each may be a mistake to tell of."""

PARTS_MAX = 100_000
"""How many objects and lists there may be in all: beyond it others would wait a second for the work on one request."""


async def read(scope: Scope, receive: Receive, bytes_max: int) -> bytes:
    """The whole body; raises TooLarge, before it is read where its length is told, and ClientDisconnect."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > bytes_max:
            raise TooLarge(bytes_max)
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > bytes_max:
            raise TooLarge(bytes_max)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def parsed(raw: bytes) -> Any:
    """The body's JSON; raises BadRequest for anything else, and for JSON that is too deep, too wide or too much."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON: {error}", code="invalid_json") from None
    # What opens no more than that many brackets is no deeper; most bodies need not be looked through.
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX or raw.count(b":") > MEMBERS_MAX:
        _check_shape(value)
    return value


def _check_shape(value: Any) -> None:
    level, seen = [value], 0
    for _ in range(DEPTH_MAX):
        seen += len(level)
        if seen > PARTS_MAX:
            raise BadRequest(f"the body has more than {PARTS_MAX:,} parts", code="too_many_parts")
        if any(isinstance(one, Mapping) and len(one) > MEMBERS_MAX for one in level):
            raise BadRequest(f"an object in the body has more than {MEMBERS_MAX:,} members", code="too_many_members")
        level = [part for one in level for part in _parts(one) if isinstance(part, (dict, list))]
        if not level:
            return
    raise BadRequest(f"the body is nested more than {DEPTH_MAX} levels deep", code="too_deep")


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value
