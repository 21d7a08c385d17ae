"""The openai SDK as a caller of anything that speaks OpenAI's API: the upstream itself, or a proxy before it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import openai

from benchmarks.peers.cases import QUESTION, Case, Stream

__all__ = ["MESSAGES", "Bare", "called", "left", "spent"]

MESSAGES: Any = [{"role": "user", "content": QUESTION}]


class Bare:
    """The upstream without anything in between: what a call costs its caller anyway."""

    def __init__(self, api_base: str) -> None:
        self._api_base = api_base

    async def call(self, calls: int, at_once: int) -> None:
        """See `Side`."""
        async with openai.AsyncOpenAI(api_key="none", base_url=self._api_base, max_retries=0) as client:
            await called(client, calls, at_once)

    def cpu_s(self) -> float:
        """See `Side`."""
        return time.process_time()


async def called(client: openai.AsyncOpenAI, calls: int, at_once: int) -> None:
    """Short calls, so many at once."""
    for _ in range(calls // at_once):
        asked = (
            client.chat.completions.create(model="house", messages=MESSAGES, max_tokens=100) for _ in range(at_once)
        )
        await asyncio.gather(*asked)


async def spent(client: openai.AsyncOpenAI, case: Case) -> None:
    """The calls of a case."""
    if case.in_turn:
        for _ in range(case.calls):
            await _asked(client, case)
    else:
        await asyncio.gather(*(_asked(client, case) for _ in range(case.calls)))


async def left(client: openai.AsyncOpenAI, stream: Stream) -> None:
    """One answer, left in the middle."""
    read = 0
    chunks = await client.chat.completions.create(
        model="house", messages=MESSAGES, max_tokens=stream.max_tokens, stream=True
    )
    async with chunks:
        async for chunk in chunks:
            read += bool(chunk.choices and chunk.choices[0].delta.content)
            if read == stream.read_tokens:
                return


async def _asked(client: openai.AsyncOpenAI, case: Case) -> None:
    try:
        await client.chat.completions.create(
            model="house" if case.priced else "unpriced",
            messages=MESSAGES,
            max_tokens=openai.omit if case.max_tokens is None else case.max_tokens,
        )
    except (openai.UnprocessableEntityError, openai.RateLimitError):
        return  # how LiteLLM refuses: a key by 422, a session by 429
