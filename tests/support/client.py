"""A bare HTTP client's view of a chat completions endpoint, with no SDK between the test and the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx

__all__ = ["QUESTION", "STREAM", "ask", "client_of", "events", "text_of"]

QUESTION = {"model": "house-7b", "messages": [{"role": "user", "content": "Where is order 1001?"}]}
STREAM = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}


def client_of(url: str) -> httpx.AsyncClient:
    """A client for any number of calls at once, which no proxy of the environment comes between."""
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, limits=limits, timeout=20, trust_env=False)


async def ask(
    client: httpx.AsyncClient, body: dict[str, Any] = QUESTION, headers: dict[str, str] | None = None
) -> httpx.Response:
    """The response to one chat completion."""
    return await client.post("/v1/chat/completions", json=body, headers=headers)


async def events(client: httpx.AsyncClient, body: dict[str, Any] = STREAM) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of a streamed completion."""
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))


def text_of(chunks: list[dict[str, Any]]) -> str:
    """What the chunks say together."""
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
