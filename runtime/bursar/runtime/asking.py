"""Asking the models that were chosen, one after the other: which failure or refusal leads on, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call
from bursar.runtime.ask import Ask, Delta, PaidReply
from bursar.runtime.attempt import WAITED_S_MAX, Attempts
from bursar.runtime.context import RunContext
from bursar.runtime.models.causes import Failure
from bursar.runtime.models.provider import ContextTooLong, Overloaded
from bursar.runtime.routing.choice import Candidate, Choice, Obstacle
from bursar.runtime.routing.load import Slots
from bursar.runtime.routing.session import portable
from bursar.runtime.stop import ModelCallFailed

__all__ = ["Asking"]


@dataclass(slots=True, kw_only=True)
class Asking:
    """One call on its way from model to model."""

    run: RunContext
    ask: Ask
    call_id: str
    counted: int
    """The tokens of its input."""

    on_delta: Delta | None
    attempts: Attempts
    slots: Slots
    clock: Callable[[], datetime]

    failures: list[Failure] = field(default_factory=list)
    passed: list[Obstacle] = field(default_factory=list)
    refusal: Refusal | None = None
    """The last."""

    too_small: int = 0
    """The largest context window that did not hold the call."""

    @property
    def is_over(self) -> bool:
        """Whether no other model can help: one said so, or it is not that a call is too dear that was not begun."""
        stopped = bool(self.failures) and self.failures[-1].then == "stop"
        refusal = self.refusal
        return stopped or (refusal is not None and (refusal.dimension != "nanousd" or refusal.cut))

    @property
    def asked_nobody(self) -> bool:
        """Whether it reached neither the ledger nor a model."""
        return self.refusal is None and not any(failure.attempts for failure in self.failures)

    async def of(self, choice: Choice) -> PaidReply | None:
        """The answer of the first that gives one. Who has no free slot is asked when the others gave none."""
        self.passed += choice.passed
        full: list[Candidate] = []
        last = len(choice.candidates)
        for place, candidate in enumerate(choice.candidates, start=1):
            if self._holds_too_little(candidate):
                continue
            if not self._has_slot(candidate):
                if not candidate.held:
                    full.append(candidate)
                    continue
                if await self._waited([candidate]) is None:
                    return None
            paid = await self._at(candidate, alone=place == last and not full)
            if paid is not None or self.is_over:
                return paid
        while full := [one for one in full if not self._holds_too_little(one)]:
            freed = await self._waited(full)
            if freed is None:
                return None
            full.remove(freed)
            paid = await self._at(freed, alone=not full)
            if paid is not None or self.is_over:
                return paid
        for candidate in choice.candidates:
            paid = await self._again(candidate)
            if paid is not None or self.is_over:
                return paid
        return None

    def error(self, tier: str) -> ModelCallFailed:
        """Why no model gave an answer, where the ledger did not refuse."""
        tried = {failure.model for failure in self.failures}
        passed = [one.failure for one in self.passed if one.failure is not None and one.failure.model not in tried]
        failures = [*passed, *self.failures]
        said = "; ".join(failure.words() for failure in failures) or "; ".join(one.words for one in self.passed)
        whose = f"model of tier {tier}" if tier else "model"
        if failures and all(isinstance(failure.error, ContextTooLong) for failure in failures):
            said = f"no context window can hold the call; {said}"
        step = "bursar doctor" if failures else "bursar config check"
        return ModelCallFailed(f"no {whose} answered: {said}", failures=failures, next_step=step)

    def _holds_too_little(self, candidate: Candidate) -> bool:
        window = candidate.model.context_window
        return window is not None and window <= self.too_small

    def _has_slot(self, candidate: Candidate) -> bool:
        slots = candidate.model.slots
        return slots is None or self.slots.take(candidate.model.name, slots)

    async def _waited(self, full: list[Candidate]) -> Candidate | None:
        """The first of them that has a slot; None where the run's time is over before."""
        limits = {one.model.name: one.model.slots for one in full if one.model.slots is not None}
        names = ", ".join(limits)
        self.run.tell("waiting", node=self.ask.node, model=names, text=f"the slots of {names}")
        left_s = WAITED_S_MAX
        if self.run.deadline is not None:
            left_s = max(0.0, (self.run.deadline - self.clock()).total_seconds())
        name = await self.slots.wait(limits, left_s)
        if name is None:
            error = Overloaded(f"no slot became free within {left_s:g} s")
            self.failures += [Failure(model, error, "stop", attempts=0) for model in limits]
        return next((one for one in full if one.model.name == name), None)

    async def _again(self, candidate: Candidate) -> PaidReply | None:
        """Ask a model that was left for others, which gave no answer either."""
        earlier = next((one for one in self.failures if one.model == candidate.model.name), None)
        if earlier is None or earlier.cause.again == "never" or not self._has_slot(candidate):
            return None
        self.failures.remove(earlier)
        return await self._at(candidate, alone=True, earlier=earlier)

    async def _at(self, candidate: Candidate, *, alone: bool, earlier: Failure | None = None) -> PaidReply | None:
        """Ask one model, which gives its slot back."""
        model = candidate.model
        try:
            ask, call = _for(self.ask, model.name), self._call(candidate)
            made = await self.attempts.run(
                self.run, ask, call, model, self.counted, self.on_delta, alone=alone, earlier=earlier
            )
        finally:
            if model.slots is not None:
                self.slots.free(model.name)
        if isinstance(made, PaidReply):
            return made
        if isinstance(made, Refusal):
            if made.cause != "unpriced" or self.refusal is None:  # a lower tier without prices is no way out
                self.refusal = made
            return None
        self.failures.append(made)
        if made.then == "next_larger":
            self.too_small = max(self.too_small, model.context_window or 0)
        return None

    def _call(self, candidate: Candidate) -> Call:
        reason = candidate.reason
        if self.failures:  # the cause alone: callers are told the reason, and what a provider says may hold its address
            reason = f"{reason}; {self.failures[-1].model}: {self.failures[-1].cause.name}"
        return Call(
            id=self.call_id,
            scope=self.run.scope,
            epoch=self.run.epoch,
            node=self.ask.node,
            digest=self.ask.digest,
            tier=candidate.tier or None,
            model=candidate.model.name,
            reason=reason,
        )


def _for(ask: Ask, model: str) -> Ask:
    """What is asked, with the messages as this model may read them."""
    messages = portable(ask.messages, model)
    return ask if messages is ask.messages else replace(ask, messages=messages)
