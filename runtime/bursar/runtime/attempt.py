"""Attempts at one model: quote, reserve, dispatch, send, settle.

One attempt that may be billed is one reservation. A failure that was surely not billed is retried on the same one;
after an unknown outcome the reservation stays charged in full, and the next attempt is reserved anew.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay

from bursar.agents.tier import Cascade, Data
from bursar.budget.admission import ModelQuote, MoneyLeft, Wait
from bursar.budget.amounts import Amounts
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call, Outcome, Replay, Reservation
from bursar.budget.usage import Usage
from bursar.budget.windows import to_us
from bursar.runtime.context import RunContext
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.catalog import Model
from bursar.runtime.models.causes import Failure, cause_of
from bursar.runtime.models.provider import BrokenStream, CallTimeout, Message, ModelReply, ModelRequest, ProviderError
from bursar.runtime.waiting import WaitingRoom

__all__ = ["Ask", "Attempts", "Delta", "PaidReply"]

GRACE_S = 30.0
"""How long after its own time-out a call's reservation is given up."""

LAST_ANSWER_INPUT_TOKENS = 256
"""By how much the request for a last answer may be longer than the one that it is kept back from."""

RETRIED_S_MAX = 120.0
"""For how long a failure that was surely not billed is retried on one reservation."""

RETRY_PAUSE_S = 0.5
RETRY_PAUSE_S_MAX = 20.0

Delta = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a node wants of a model."""

    tier: str
    """A tier of bursar.yaml, or `auto`."""

    node: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    stop: Sequence[str] | None = None
    temperature: float | None = None
    response_format: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    max_output_tokens: int | None = None
    reasoning_effort: str | None = None
    max_reasoning_tokens: int | None = None

    model: str | None = None
    """One model, by its name in bursar.yaml, in place of the tier's."""

    models: Sequence[str] | None = None
    """The models that may answer; None = all of the tier."""

    min_tier: str | None = None
    """The lowest tier that may answer, whatever the budget."""

    data: Data = "any"

    cascade: Cascade | None = None
    """Who is asked first, and how the answer is verified; `tier` is then the one that answers otherwise."""

    made_by: str | None = None
    """The model that wrote the last answer in `messages`, where that is known."""

    exclusive: bool = False
    """Whether an attempt at the same call that is under way elsewhere is a conflict (CallInFlight)."""

    kept_back_tokens: int = 0
    """Output tokens that must remain for a last answer; 0 where none is given."""

    final: bool = False
    """Whether this is the last answer of a run that was stopped."""

    digest: str | None = None
    """Of the request, where it is a part of the call's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidReply:
    """An answer and what it was charged."""

    message: Message
    finish_reason: str
    usage: Usage | None
    posted: Amounts
    """Nothing, for a replay."""

    model: str
    capped: bool
    """Whether the bound on the output had been lowered to fit what was left."""

    kept_back: Amounts
    """What was left in the run for its last answer."""

    digest: str | None = None
    """Of the request that was answered."""

    tier: str = ""
    """The tier that the model was asked for."""

    reason: str = ""
    """Why this tier and this model, in plain words."""

    money_left: MoneyLeft | None = None
    """What is left in the budget in money that is nearest to its end; None where none limits the call."""

    replayed: bool = False


class Attempts:
    """Attempts at single models, on one ledger."""

    def __init__(
        self,
        ledger: LedgerThread,
        room: WaitingRoom,
        *,
        clock: Callable[[], datetime],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._room = room
        self._clock = clock
        self._rng = rng
        self._sleep = sleep

    async def run(
        self,
        run: RunContext,
        ask: Ask,
        call: Call,
        model: Model,
        counted: int,
        on_delta: Delta | None,
        *,
        alone: bool,
    ) -> PaidReply | Refusal | Failure:
        """The model's reply, the ledger's refusal, or the model's failure, which says where the call goes from there.

        `alone` says that no other model can take the call: then this one is tried again also where another would
        have been the better choice.
        """
        bound = self._ledger.ledger.margins.bound(model.name, counted)
        kept = _last_answer(ask, model, bound)
        quote = self._quote(ask, run, model, counted, bound, kept)
        for attempt in range(1, model.retries + 2):
            timeout_s = self._timeout_s(run, model)
            made = await self._reserve(run, ask, call, quote, timeout_s)
            if isinstance(made, Refusal):
                return made
            if isinstance(made, Replay):
                return _replayed(made, kept)
            run.tell("call", node=call.node, tier=ask.tier, model=model.name, text=call.reason or "")
            try:
                reply = await self._send(run, _request(ask, model, made, timeout_s), made, model, on_delta)
            except ProviderError as error:
                run.tell("failed", node=call.node, tier=ask.tier, model=model.name, text=str(error))
                # An agent's listener is told that this answer failed; another would take the next for its rest.
                glued = isinstance(error, _BrokenOff) and on_delta is not run.on_delta
                failure = Failure(model.name, error, "stop" if glued else cause_of(error).then, attempts=attempt)
                if glued or error.billed == "no" or not (alone and failure.cause.again == "alone"):
                    return failure
                continue
            return await self._settle(run, call, made, reply, counted, kept)
        return failure

    def _quote(self, ask: Ask, run: RunContext, model: Model, counted: int, bound: int, kept: Amounts) -> ModelQuote:
        wanted = min(ask.max_output_tokens or run.max_output_tokens, model.max_output_tokens)
        if model.context_window is not None:
            wanted = max(1, min(wanted, model.context_window - counted))
        return ModelQuote(
            model=model.name,
            price=model.price_for(ask.messages),
            input_tokens=bound,
            max_output_tokens=wanted,
            keep_back=run.to_keep(kept),
        )

    def _timeout_s(self, run: RunContext, model: Model) -> float:
        if run.deadline is None:
            return model.timeout_s
        return max(0.001, min(model.timeout_s, (run.deadline - self._clock()).total_seconds()))

    async def _reserve(
        self, run: RunContext, ask: Ask, call: Call, quote: ModelQuote, timeout_s: float
    ) -> Reservation | Replay | Refusal:
        """Reserve, standing in line while only calls in flight are in the way."""
        open_s = RETRIED_S_MAX + timeout_s + GRACE_S
        how = {"final": ask.final, "exclusive": ask.exclusive}

        async def reserve(behind: str | None = None) -> Reservation | Replay | Wait | Refusal:
            run.require_going_on()
            expires = to_us(self._clock() + timedelta(seconds=open_s))
            return await run.ledger.reserve(call, quote, deadline_us=expires, behind=behind, **how)

        made = await reserve(behind=self._room.line(call.scope.with_node(call.node)))
        if not isinstance(made, Wait):
            return made
        path = made.path
        run.tell("waiting", node=call.node, model=quote.model, text=path)
        ticket = self._room.enter(path)
        try:
            while isinstance(made, Wait):
                await self._room.turn(ticket)
                made = await reserve()
            return made
        finally:
            self._room.leave(path, ticket)

    async def _send(
        self, run: RunContext, request: ModelRequest, made: Reservation, model: Model, on_delta: Delta | None
    ) -> ModelReply:
        """Send what was dispatched; whatever happens, the reservation is closed unless a reply is returned."""
        try:
            return await self._retried(request, model, on_delta)
        except ProviderError as error:
            if error.billed == "no":
                await run.ledger.release(made, note=str(error))
            else:
                await run.ledger.settle(made, usage=None, outcome="unknown", note=str(error))
            raise
        except BaseException as error:
            # Cancelled, for one: the caller cannot wait for the ledger any more. Only a ProviderError can tell that
            # nothing was billed.
            run.ledger.break_off(made, note=f"broken off: {type(error).__name__}")
            raise

    async def _retried(self, request: ModelRequest, model: Model, on_delta: Delta | None) -> ModelReply:
        """Send, and again after a failure that was surely not billed."""
        try:
            return await _sent(model, request, on_delta)  # most calls need no more, and tenacity costs 0.2 CPU ms
        except ProviderError as error:
            if not _surely_unbilled(error) or not model.retries:
                raise
            first = error
        retrying = AsyncRetrying(
            retry=retry_if_exception(_surely_unbilled),
            stop=stop_after_attempt(model.retries) | stop_before_delay(min(request.timeout_s, RETRIED_S_MAX)),
            wait=lambda state: self._pause_s(_error_of(state), state.attempt_number + 1),
            sleep=self._sleep,
            reraise=True,
        )
        await self._sleep(self._pause_s(first, 1))
        return await retrying(_sent, model, request, on_delta)

    def _pause_s(self, error: BaseException | None, failures: int) -> float:
        if isinstance(error, ProviderError) and error.retry_after_s is not None:
            return min(error.retry_after_s, RETRIED_S_MAX)
        pause = min(RETRY_PAUSE_S * 2.0 ** (failures - 1), RETRY_PAUSE_S_MAX)
        return self._rng.uniform(pause / 2, pause)

    async def _settle(
        self, run: RunContext, call: Call, made: Reservation, reply: ModelReply, counted: int, kept_back: Amounts
    ) -> PaidReply:
        # Where the provider does not say what it used, what can be seen of the answer is no bound on what it bills:
        # models think out of sight.
        usage = reply.usage
        outcome: Outcome = "unknown" if usage is None else "exact"
        kept = {
            "message": reply.message,
            "finish_reason": reply.finish_reason,
            "usage": usage.to_record() if usage is not None else None,
            "model": call.model,
            "capped": made.capped,
            "digest": call.digest,
            "tier": call.tier,
            "reason": call.reason,
        }
        posted = await run.ledger.settle(
            made,
            usage=usage,
            outcome=outcome,
            reply=json.dumps(kept),
            note="the provider gave no usage" if usage is None else None,
            counted_input_tokens=counted,
        )
        run.tell("reply", node=call.node, tier=call.tier or "", model=call.model or "", posted=posted)
        return PaidReply(
            message=reply.message,
            finish_reason=reply.finish_reason,
            usage=usage,
            posted=posted,
            model=call.model or "",
            capped=made.capped,
            kept_back=kept_back,
            digest=call.digest,
            tier=call.tier or "",
            reason=call.reason or "",
            money_left=made.money_left,
        )


def _last_answer(ask: Ask, model: Model, bound: int) -> Amounts:
    """What a last answer may come to after a call whose input has this bound; nothing where none is given."""
    if not ask.kept_back_tokens:
        return Amounts()
    asked = bound + LAST_ANSWER_INPUT_TOKENS
    cost = model.price.worst_case(asked, ask.kept_back_tokens) if model.price else 0
    return Amounts(cost, asked + ask.kept_back_tokens, 1)


class _BrokenOff(BrokenStream):
    """The answer failed after a part of it was passed on: whatever the provider says, it may have been billed."""


async def _sent(model: Model, request: ModelRequest, on_delta: Delta | None) -> ModelReply:
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
            raise _BrokenOff(error.message, status=error.status) from error
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


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _surely_unbilled(error: BaseException) -> bool:
    return isinstance(error, ProviderError) and error.billed == "no" and error.retryable


def _request(ask: Ask, model: Model, made: Reservation, timeout_s: float) -> ModelRequest:
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
        extra=ask.extra,
    )


def _replayed(found: Replay, kept_back: Amounts) -> PaidReply:
    kept = json.loads(found.reply)
    return PaidReply(
        message=kept["message"],
        finish_reason=kept["finish_reason"],
        usage=Usage(**kept["usage"]) if kept["usage"] is not None else None,
        posted=Amounts(),
        model=kept["model"],
        capped=kept["capped"],
        kept_back=kept_back,
        digest=kept["digest"],
        tier=kept["tier"] or "",
        reason=kept["reason"] or "",
        replayed=True,
    )
