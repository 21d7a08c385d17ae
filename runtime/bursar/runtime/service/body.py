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
    """The body's JSON; raises BadRequest for anything else, and for JSON that is nested too deeply."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON: {error}", code="invalid_json") from None
    # What opens no more than that many brackets is no deeper; most bodies need not be looked through.
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX and _is_deep(value):
        raise BadRequest(f"the body is nested more than {DEPTH_MAX} levels deep", code="too_deep")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [part for one in level for part in _parts(one) if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value
