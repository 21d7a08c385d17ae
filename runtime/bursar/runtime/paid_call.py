"""One paid model call: choose a model, attempt it, take the next; the only way to a provider."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime

from bursar.budget.admission import ToolQuote
from bursar.budget.limits import Limits
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call
from bursar.budget.scope import Scope
from bursar.runtime.attempt import Ask, Attempts, Delta, PaidReply
from bursar.runtime.context import RunContext
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.catalog import Catalog, Model
from bursar.runtime.models.causes import Failure
from bursar.runtime.models.choice import choose
from bursar.runtime.models.provider import ContextTooLong
from bursar.runtime.models.tokens import TokenCounter
from bursar.runtime.paid_embedding import PaidEmbeddings
from bursar.runtime.stop import LimitReached, ModelCallFailed
from bursar.runtime.waiting import WaitingRoom

__all__ = ["PaidCalls"]

USEFUL_OUTPUT_TOKENS = 16
"""The least output that is worth paying the input for."""


class PaidCalls:
    """Makes paid calls on one ledger; safe to use from several event loops."""

    def __init__(
        self,
        ledger: LedgerThread,
        catalog: Catalog,
        *,
        clock: Callable[[], datetime],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.catalog = catalog
        self.counter = TokenCounter()
        self._attempts = Attempts(ledger, WaitingRoom(rng), clock=clock, rng=rng, sleep=sleep)
        self.embeddings = PaidEmbeddings(catalog, self._attempts, self.counter, self._stop)

    async def make(self, run: RunContext, ask: Ask, call_id: str, on_delta: Delta | None = None) -> PaidReply:
        """The answer to `ask`, paid for by the run, or replayed where `call_id` was settled before.

        Raises LimitReached where the ledger refuses (the run is stopped then), ModelCallFailed where no model
        answered, LedgerUnavailable where the ledger stays away. Nothing is sent without a reservation.
        """
        models = self._models(run, ask)
        counted = self.counter.count_request(ask.messages, ask.tools)
        plan = list(choose(ask.tier, models, counted, USEFUL_OUTPUT_TOKENS))
        failures: list[Failure] = []
        refusal: Refusal | None = None
        too_small = 0
        for place, (model, reason) in enumerate(plan, start=1):
            if model.context_window is not None and model.context_window <= too_small:
                continue
            call = Call(
                id=call_id,
                scope=run.scope,
                epoch=run.epoch,
                node=ask.node,
                digest=ask.digest,
                tier=ask.tier,
                model=model.name,
                reason=f"{reason}; {failures[-1].words()}" if failures else reason,
            )
            made = await self._attempts.run(run, ask, call, model, counted, on_delta, alone=place == len(plan))
            if isinstance(made, PaidReply):
                return made
            if isinstance(made, Failure):
                failures.append(made)
                if made.then == "stop":
                    break
                if made.then == "next_larger":
                    too_small = max(too_small, model.context_window or 0)
                continue
            refusal = made
            if made.dimension != "nanousd":
                break  # another model of the tier can only help where money refused
        if refusal is not None and (not failures or failures[-1].then != "stop"):
            raise await self._stop(run, refusal)
        raise _failed(ask.tier, failures)

    async def open(self, run: RunContext, scope: Scope, limits: Limits) -> None:
        """Open the account of an agent that is used as a tool in a run."""
        await run.ledger.do(run.ledger.gates.open, scope, limits)

    async def charge_tool(self, run: RunContext, call: Call) -> None:
        """Charge one tool call, once for its id; raises LimitReached where the ledger refuses."""
        # Never Wait: a tool call is settled in the transaction that reserves it, so none is held.
        made = await run.ledger.charge(call, ToolQuote())
        if isinstance(made, Refusal):
            raise await self._stop(run, made)

    async def _stop(self, run: RunContext, refusal: Refusal) -> LimitReached:
        """Make the stop stick before anybody hears of it; where it sticks, that is."""
        if run.sticky and refusal.cause in ("limit", "unpriced", "deadline"):
            path = refusal.path if refusal.kind == "run" else run.scope.run_path
            await run.ledger.do(run.ledger.gates.stop, path, refusal)
        run.tell("limit", text=refusal.words())
        return LimitReached(refusal)

    def _models(self, run: RunContext, ask: Ask) -> tuple[Model, ...]:
        """Who may answer: the models of the tier, or the one that was named."""
        if ask.model is not None:
            return (self.catalog.model(ask.model),)
        self._allow(run, ask.tier)
        return self.catalog.tier(ask.tier)

    @staticmethod
    def _allow(run: RunContext, tier: str) -> None:
        if run.tiers is not None and tier not in run.tiers:
            raise ModelCallFailed(
                f"tenant {run.scope.tenant} may not use tier {tier}; it may use {', '.join(run.tiers)}",
                next_step=f"add {tier} to tenants.{run.scope.tenant}.tiers",
            )


def _failed(tier: str, failures: list[Failure]) -> ModelCallFailed:
    failures = failures or [Failure(tier, ContextTooLong("no context window can hold the call"), "stop", attempts=0)]
    said = "; ".join(failure.words() for failure in failures)
    return ModelCallFailed(f"no model of tier {tier} answered: {said}", failures=failures, next_step="bursar doctor")
