"""CPU of one model call by each way to make it, beside bare httpx: `python -m benchmarks.sdk_cost`.

The provider answers from a process of its own, so that only the caller's CPU counts, background work included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
from openai import AsyncOpenAI

from benchmarks.measure import cpu_ms
from bursar.runtime.models.litellm_sdk import LiteLLMProvider
from bursar.runtime.models.openai_sdk import OpenAIProvider
from bursar.runtime.models.provider import ModelRequest
from tests.support.processes import Child

CALLS = 50
"""Per round and way."""

MESSAGES: list[Any] = [
    {"role": "system", "content": "Settle refund requests."},
    *[{"role": role, "content": "some words " * 50} for role in ("user", "assistant") * 10],
    {"role": "user", "content": "Refund order 1001, it never came."},
]


async def repeated(call: Callable[[], Awaitable[object]]) -> None:
    for _ in range(CALLS):
        await call()


async def measure(base: str) -> dict[str, float]:
    """Median CPU ms of one call by each way."""
    request = ModelRequest(model="m", messages=MESSAGES, max_output_tokens=100, timeout_s=30)
    body = {"model": "m", "messages": MESSAGES, "max_tokens": 100}
    own, lite = OpenAIProvider("key", base), LiteLLMProvider("openai", "key", base)
    async with (
        httpx.AsyncClient(headers={"authorization": "Bearer key"}) as bare,
        AsyncOpenAI(api_key="key", base_url=base, max_retries=0) as sdk,
    ):
        figures = await cpu_ms(
            {
                "httpx": partial(repeated, lambda: bare.post(f"{base}/chat/completions", json=body)),
                "OpenAIProvider": partial(repeated, lambda: own.complete(request)),
                "openai SDK, create()": partial(
                    repeated, lambda: sdk.chat.completions.create(model="m", messages=MESSAGES, max_tokens=100)
                ),
                "LiteLLMProvider": partial(repeated, lambda: lite.complete(request)),
            }
        )
        await own.aclose()
        await lite.aclose()
    return {name: milliseconds / CALLS for name, milliseconds in figures.items()}


def main() -> None:
    with Child("-m", "tests.support.provider", "--counting", "fixed") as provider:
        figures = asyncio.run(measure(f"{provider.line()}/v1"))
    for name, milliseconds in figures.items():
        print(f"{name:<22} {milliseconds:6.2f} CPU ms {milliseconds / figures['httpx']:6.1f} x")


if __name__ == "__main__":
    main()
