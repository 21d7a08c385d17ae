"""Attempts at one model: quote, reserve, dispatch, send, settle.

One attempt is one reservation and one request to the provider. What was surely not billed is given back before the
next attempt; after an unknown outcome the reservation stays charged in full.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from typing import cast

from bursar.budget.admission import ModelQuote, MoneyLeft, Wait
from bursar.budget.amounts import Amounts
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call, Outcome, Replay, Reservation
from bursar.budget.usage import Usage
from bursar.budget.windows import to_us
from bursar.runtime.ask import Ask, Delta, PaidReply
from bursar.runtime.context import RunContext
from bursar.runtime.events import EventKind
from bursar.runtime.fork import settled_before
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.catalog import Model, is_text
from bursar.runtime.models.causes import Failure, cause_of
from bursar.runtime.models.health import Health
from bursar.runtime.models.provider import CallTimeout, CountsTokens, ModelReply, ProviderError
from bursar.runtime.models.tokens import TokenCounter
from bursar.runtime.sending import BrokenOff, request_of, sent
from bursar.runtime.streaming import StreamCut, StreamMeter
from bursar.runtime.waiting import WaitingRoom

__all__ = ["Ask", "Attempts", "Delta", "PaidReply"]

GRACE_S = 30.0
"""How long after its own time-out a call's reservation is given up."""

LAST_ANSWER_INPUT_TOKENS = 256
"""By how much the request for a last answer may be longer than the one that it is kept back from."""

PATIENCE_S = 2.0
"""How long a call waits for a model where another can take it."""

WAITED_S_MAX = 120.0
"""How long a call waits for a model at most, where its run has no time of its own."""

RETRY_PAUSE_S = 0.5
RETRY_PAUSE_S_MAX = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    """One call at one model."""

    run: RunContext
    ask: Ask
    call: Call
    model: Model
    counted: int
    quote: ModelQuote
    kept_back: Amounts

    def tell(self, kind: EventKind, text: str = "", posted: Amounts | None = None) -> None:
        if self.run.emit is not None:
            call, tier = self.call, self.call.tier or ""
            self.run.tell(kind, node=call.node, tier=tier, model=self.model.name, text=text, posted=posted or Amounts())


class Attempts:
    """Attempts at single models, on one ledger."""

    def __init__(
        self,
        ledger: LedgerThread,
        room: WaitingRoom,
        health: Health,
        *,
        clock: Callable[[], datetime],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._health = health
        self._ledger = ledger
        self._room = room
        self._clock = clock
        self._rng = rng
        self._sleep = sleep
        self._counter = TokenCounter()

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
        earlier: Failure | None = None,
    ) -> PaidReply | Refusal | Failure:
        """The model's reply, the ledger's refusal, or the model's failure, which says where the call goes from there.

        `alone` says that no other model can take the call: then this one is tried again also where another would
        have been the better choice. `earlier` is how it failed of this call, before others were asked.
        """
        if run.lineage is not None and (found := await self.inherited(run, call)) is not None:
            return _replayed(Replay(0, found[0] or ""), Amounts())
        bound = await self._input_bound(ask, model, counted)
        kept = _last_answer(ask, model, bound)
        quote = self._quote(ask, run, model, counted, bound, kept)
        errand = _Errand(run=run, ask=ask, call=call, model=model, counted=counted, quote=quote, kept_back=kept)
        if earlier is not None and earlier.attempts:
            made: PaidReply | Refusal | Failure = earlier
        else:
            if (cooling := self._health.admit(model.name, model.timeout_s)) is not None:
                if not self._is_short(cooling, run, alone=alone):
                    return cooling
                await self._pause(errand, (cooling.error.retry_after_s or 0.0) + self._rng.uniform(0, RETRY_PAUSE_S))
            made = await self._once(errand, on_delta, 1)
        while isinstance(made, Failure) and (pause_s := self._pause_s(made, errand, alone=alone)) is not None:
            await self._pause(errand, pause_s)
            made = await self._once(errand, on_delta, made.attempts + 1)
        return made

    async def inherited(self, run: RunContext, call: Call) -> tuple[str | None] | None:
        """The reply, in a tuple, that the run of which this is a fork was given to the same call; None for none."""
        if run.lineage is None:
            return None
        return await run.ledger.do(settled_before, self._ledger.ledger.store, run.lineage, run.thread_id, call.id)

    async def replay(self, run: RunContext, call: Call) -> PaidReply | None:
        """The answer that a call was given before, where no model can be asked for it now."""
        found = await run.ledger.do(self._ledger.ledger.replay, call)
        return None if found is None else _replayed(found, Amounts())

    async def _once(self, errand: _Errand, on_delta: Delta | None, attempt: int) -> PaidReply | Refusal | Failure:
        """One reservation and one request; whatever happens, the reservation is closed."""
        run, model = errand.run, errand.model
        timeout_s = self._timeout_s(run, model)
        try:
            made = await self._reserve(errand, timeout_s)
        except BaseException:
            self._health.broken_off(model.name)
            raise
        if isinstance(made, Refusal | Replay):
            self._health.broken_off(model.name)
            return made if isinstance(made, Refusal) else _replayed(made, errand.kept_back)
        errand.tell("call", errand.call.reason or "")
        at = self._clock()
        meter = self._meter(errand, made) if on_delta is not None else None
        try:
            request = request_of(errand.ask, model, made, timeout_s, tenant=run.scope.tenant)
            reply = await sent(model, request, on_delta, meter)
        except StreamCut as cut:
            self._health.broken_off(model.name)
            await run.ledger.settle(made, usage=_at_most(meter), outcome="unknown", note=str(cut))
            return cut.refusal
        except ProviderError as error:
            if _is_hasty(error, timeout_s, model):
                self._health.broken_off(model.name)
            else:
                self._health.failed(model.name, error, at)
            if error.billed == "no":
                await run.ledger.release(made, note=str(error))
            else:
                await run.ledger.settle(made, usage=_at_most(meter), outcome="unknown", note=str(error))
            errand.tell("failed", str(error))
            # An agent's listener is told that this answer failed; another would take the next for its rest.
            glued = isinstance(error, BrokenOff) and on_delta is not run.on_delta
            return Failure(model.name, error, "stop" if glued else cause_of(error).then, attempts=attempt)
        except BaseException as error:
            # Cancelled, for one: the caller cannot wait for the ledger any more. Only a ProviderError can tell that
            # nothing was billed.
            self._health.broken_off(model.name)
            run.ledger.break_off(made, note=f"broken off: {type(error).__name__}", usage=_at_most(meter))
            raise
        self._health.answered(model.name, at)
        return await self._settle(errand, made, reply)

    def _meter(self, errand: _Errand, made: Reservation) -> StreamMeter:
        return StreamMeter(
            errand.run.ledger,
            made,
            errand.model,
            input_tokens=errand.quote.input_tokens,
            margin=partial(self._ledger.ledger.margins.bound, errand.model.name),
            counter=self._counter,
        )

    async def _pause(self, errand: _Errand, pause_s: float) -> None:
        errand.tell("pause", f"{pause_s:.1f} s")
        await self._sleep(pause_s)

    def _pause_s(self, failure: Failure, errand: _Errand, *, alone: bool) -> float | None:
        """How long to wait before the same model is asked again; None where it is not."""
        cause, error = failure.cause, failure.error
        if failure.attempts > errand.model.retries or failure.then == "stop":
            return None
        if cause.again == "never" or (cause.again == "alone" and not alone):
            return None
        if cause.cools == "failures" and self._health.state(failure.model) != "closed":
            return None  # it failed so often that nobody asks it just now
        pause = min(RETRY_PAUSE_S * 2.0 ** (failure.attempts - 1), RETRY_PAUSE_S_MAX)
        pause = self._rng.uniform(pause / 2, pause) if error.retry_after_s is None else error.retry_after_s
        return pause if pause <= self._patience_s(errand.run, alone=alone) else None

    def _is_short(self, cooling: Failure, run: RunContext, *, alone: bool) -> bool:
        """Whether a call waits for a model that asked for a pause."""
        left = cooling.error.retry_after_s or 0.0
        return cooling.cause.cools == "asked" and left <= self._patience_s(run, alone=alone)

    def _patience_s(self, run: RunContext, *, alone: bool) -> float:
        left = WAITED_S_MAX if run.deadline is None else (run.deadline - self._clock()).total_seconds()
        return left if alone else min(left, PATIENCE_S)

    async def _input_bound(self, ask: Ask, model: Model, counted: int) -> int:
        """The most that the model will read: the provider's own count, where it has one, else ours and its margin."""
        if _counts_tokens(type(model.provider)) and self._health.state(model.name) == "closed":
            with suppress(ProviderError):  # the call itself will find out what is wrong
                provider = cast(CountsTokens, model.provider)
                return await provider.count_tokens(model.provider_model, ask.messages, ask.tools)
        return self._ledger.ledger.margins.bound(model.name, counted)

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

    async def _reserve(self, errand: _Errand, timeout_s: float) -> Reservation | Replay | Refusal:
        """Reserve, standing in line while only calls in flight are in the way."""
        run, ask, call = errand.run, errand.ask, errand.call
        open_s = timeout_s + GRACE_S

        async def reserve(behind: str | None = None) -> Reservation | Replay | Wait | Refusal:
            run.require_going_on()
            expires = to_us(self._clock() + timedelta(seconds=open_s))
            return await run.ledger.reserve(
                call, errand.quote, deadline_us=expires, final=ask.final, behind=behind, exclusive=ask.exclusive
            )

        made = await reserve(behind=self._room.line(call.scope.with_node(call.node)))
        if not isinstance(made, Wait):
            return made
        path = made.path
        run.tell("waiting", node=call.node, model=call.model or "", text=path)
        ticket = self._room.enter(path)
        try:
            while isinstance(made, Wait):
                await self._room.turn(ticket)
                made = await reserve()
            return made
        finally:
            self._room.leave(path, ticket)

    async def _settle(self, errand: _Errand, made: Reservation, reply: ModelReply) -> PaidReply:
        call = errand.call
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
        posted = await errand.run.ledger.settle(
            made,
            usage=usage,
            outcome=outcome,
            reply=json.dumps(kept),
            note="the provider gave no usage" if usage is None else None,
            # An image counts as much as the largest, which says nothing about text.
            counted_input_tokens=errand.counted if is_text(errand.ask.messages) else None,
        )
        errand.tell("reply", posted=posted)
        return PaidReply(
            message=reply.message,
            finish_reason=reply.finish_reason,
            usage=usage,
            posted=posted,
            model=call.model or "",
            capped=made.capped,
            kept_back=errand.kept_back,
            digest=call.digest,
            tier=call.tier or "",
            reason=call.reason or "",
            money_left=_left(made, posted),
        )


def _is_hasty(error: ProviderError, timeout_s: float, model: Model) -> bool:
    """Whether it was the run's time that was over, not the model's: that says nothing of the model."""
    said = error.__cause__ if isinstance(error, BrokenOff) else error
    return isinstance(said, CallTimeout) and said.status is None and timeout_s < model.timeout_s


def _left(made: Reservation, posted: Amounts) -> MoneyLeft | None:
    """What is left now that the call is settled."""
    left = made.money_left
    back = made.held.nanousd - posted.nanousd
    return left and left._replace(left_nanousd=max(0, left.left_nanousd + back))


def _at_most(meter: StreamMeter | None) -> Usage | None:
    """What an answer can have used that did not come to its end; None = all that is held."""
    return None if meter is None else meter.bound()


@cache
def _counts_tokens(provider: type) -> bool:
    return issubclass(provider, CountsTokens)  # asked of each call, it would take a twentieth of its CPU time


def _last_answer(ask: Ask, model: Model, bound: int) -> Amounts:
    """What a last answer may come to after a call whose input has this bound; nothing where none is given."""
    if not ask.kept_back_tokens:
        return Amounts()
    asked = bound + LAST_ANSWER_INPUT_TOKENS
    cost = model.price.worst_case(asked, ask.kept_back_tokens) if model.price else 0
    return Amounts(cost, asked + ask.kept_back_tokens, 1)


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
