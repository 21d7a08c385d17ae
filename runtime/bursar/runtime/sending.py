"""One request to a provider: whole or in pieces, in its time, and what may have been billed if it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from bursar.budget.reservations import Reservation
from bursar.runtime.ask import Ask, Delta
from bursar.runtime.models.catalog import Model
from bursar.runtime.models.provider import BrokenStream, CallTimeout, ModelReply, ModelRequest, ProviderError
from bursar.runtime.streaming import StreamMeter

__all__ = ["BrokenOff", "request_of", "sent"]

OWN_TIME_S = 1.0
"""How long a provider has to end a call by itself, after its time: two time-outs at once, of which the second breaks
into the closing of a connection, would leave it open, and the model writing."""

T = TypeVar("T")


class BrokenOff(BrokenStream):
    """The answer failed after a part of it was passed on: whatever the provider says, it may have been billed."""


def request_of(ask: Ask, model: Model, made: Reservation, timeout_s: float, *, tenant: str) -> ModelRequest:
    """The request that the reservation was made for."""
    return ModelRequest(
        model=model.provider_model,
        messages=ask.messages,
        max_output_tokens=made.max_output_tokens,
        timeout_s=timeout_s,
        tools=ask.tools,
        tool_choice=ask.tool_choice,
        stop=ask.stop,
        temperature=ask.temperature,
        response_format=ask.response_format,
        reasoning_effort=ask.reasoning_effort,
        max_reasoning_tokens=ask.max_reasoning_tokens,
        tenant=tenant,
        extra=ask.extra,
    )


async def sent(
    model: Model, request: ModelRequest, on_delta: Delta | None, meter: StreamMeter | None = None
) -> ModelReply:
    """The provider's answer; raises ProviderError, BrokenOff after `on_delta` was given a part of it, and StreamCut.

    `meter` is told of each part of an answer that `on_delta` listens to.
    """
    if on_delta is None or meter is None:
        return await _in_time(model, request, model.provider.complete(request))
    passed_on = False

    def pass_on(part: Mapping[str, Any]) -> None:
        nonlocal passed_on
        passed_on = True
        on_delta(part)

    try:
        return await _in_time(model, request, _streamed(model, request, pass_on, meter))
    except ProviderError as error:
        if passed_on:
            raise BrokenOff(
                f"broke off after a part of it was passed on: {error.message}", status=error.status
            ) from error
        raise


async def _in_time(model: Model, request: ModelRequest, answer: Awaitable[ModelReply]) -> ModelReply:
    try:
        async with asyncio.timeout(request.timeout_s + OWN_TIME_S):
            return await answer
    except TimeoutError:
        raise CallTimeout(f"{model.name} did not answer within {request.timeout_s:g} s") from None


async def _streamed(model: Model, request: ModelRequest, on_delta: Delta, meter: StreamMeter) -> ModelReply:
    # Closed with this, whatever ends it: a provider writes and charges for as long as its connection stands.
    async with meter.watched(), _closed(model.provider.stream(request)) as parts:
        heard = False
        async for part in parts:
            if isinstance(part, ModelReply):
                return part
            meter.add(part)
            if shown := part if "usage" not in part else {key: of for key, of in part.items() if key != "usage"}:
                on_delta(shown)
                if not heard:
                    heard = True
                    await asyncio.sleep(0)  # whoever listens goes on with the first piece before the next is read
    raise CallTimeout(f"{model.name} ended its stream without an answer")


@asynccontextmanager
async def _closed(parts: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    try:
        yield parts
    finally:
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()
