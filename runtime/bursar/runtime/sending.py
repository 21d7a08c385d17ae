"""One request to a provider: whole or in pieces, in its time, and what may have been billed if it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from bursar.budget.reservations import Reservation
from bursar.runtime.ask import Ask, Delta
from bursar.runtime.models.catalog import Model
from bursar.runtime.models.provider import BrokenStream, CallTimeout, ModelReply, ModelRequest, ProviderError

__all__ = ["BrokenOff", "request_of", "sent"]


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


async def sent(model: Model, request: ModelRequest, on_delta: Delta | None) -> ModelReply:
    """The provider's answer; raises ProviderError, and BrokenOff after `on_delta` was given a part of it."""
    if on_delta is None:
        return await _in_time(model, request, model.provider.complete(request))
    passed_on = False

    def pass_on(part: Mapping[str, Any]) -> None:
        nonlocal passed_on
        passed_on = True
        on_delta(part)

    try:
        return await _in_time(model, request, _streamed(model, request, pass_on))
    except ProviderError as error:
        if passed_on:
            raise BrokenOff(
                f"broke off after a part of it was passed on: {error.message}", status=error.status
            ) from error
        raise


async def _in_time(model: Model, request: ModelRequest, answer: Awaitable[ModelReply]) -> ModelReply:
    try:
        async with asyncio.timeout(request.timeout_s):
            return await answer
    except TimeoutError:
        raise CallTimeout(f"{model.name} did not answer within {request.timeout_s:g} s") from None


async def _streamed(model: Model, request: ModelRequest, on_delta: Delta) -> ModelReply:
    async for part in model.provider.stream(request):
        if isinstance(part, ModelReply):
            return part
        on_delta(part)
    raise CallTimeout(f"{model.name} ended its stream without an answer")
