"""One paid model call: choose a model, attempt it, take the next; the only way to a provider."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from bursar.budget.admission import ToolQuote
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.limits import Limits
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call
from bursar.budget.scope import Scope
from bursar.runtime.ask import Ask, Delta, PaidReply
from bursar.runtime.asking import Asking
from bursar.runtime.attempt import Attempts
from bursar.runtime.cascading import Cascading
from bursar.runtime.context import RunContext
from bursar.runtime.effects import Effects
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.catalog import Catalog
from bursar.runtime.models.health import Health
from bursar.runtime.models.tokens import TokenCounter
from bursar.runtime.paid_embedding import PaidEmbeddings
from bursar.runtime.routing.allow import Policy
from bursar.runtime.routing.router import Router
from bursar.runtime.stop import LimitReached, ModelCallFailed
from bursar.runtime.waiting import WaitingRoom
from bursar.tools.journal import EffectJournal

__all__ = ["PaidCalls"]


class PaidCalls:
    """Makes paid calls on one ledger; safe to use from several event loops."""

    def __init__(
        self,
        ledger: LedgerThread,
        catalog: Catalog,
        router: Router,
        health: Health,
        *,
        clock: Callable[[], datetime],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.catalog = catalog
        self._router = router
        self._clock = clock
        self.counter = TokenCounter()
        self._attempts = Attempts(ledger, WaitingRoom(rng), health, clock=clock, rng=rng, sleep=sleep)
        self._ledger = ledger
        self._cascading = Cascading(self._answer, ledger, catalog)
        self.effects = Effects(EffectJournal(ledger.ledger.store, clock), ledger, self._stop)
        self.embeddings = PaidEmbeddings(catalog, self._attempts, self.counter, self._router.policy, self._stop)

    async def begin(self, run: RunContext) -> None:
        """Learn what is left of a run's budgets, where its tenant's ladder depends on it."""
        if self._router.policy(run).ladder:
            with suppress(LedgerUnavailable):  # the first call tells
                self._router.know(run, await self._ledger.do(self._ledger.ledger.money_left, run.scope))

    async def make(self, run: RunContext, ask: Ask, call_id: str, on_delta: Delta | None = None) -> PaidReply:
        """The answer to `ask`, paid for by the run, or replayed where `call_id` was settled before.

        Raises LimitReached where the ledger refuses (the run is stopped then), ModelCallFailed where no model
        answered, LedgerUnavailable where the ledger stays away. Nothing is sent without a reservation.
        """
        if run.tier is not None:
            ask = replace(
                ask, tier=run.tier, min_tier=None, models=None, model=None, cascade=None, why="the fork's tier"
            )
        if ask.cascade is not None:
            return await self._cascading.make(run, ask, ask.cascade, call_id, on_delta)
        return await self._answer(run, ask, call_id, on_delta)

    async def _answer(self, run: RunContext, ask: Ask, call_id: str, on_delta: Delta | None) -> PaidReply:
        """One answer of one model."""
        counted = self.counter.count_request(ask.messages, ask.tools, ask.response_format)
        chooser = self._router.chooser(run, ask, counted)
        stage = chooser.stage()
        _require_allowed(chooser.policy, ask, stage.tier)
        asking = Asking(
            run=run,
            ask=ask,
            call_id=call_id,
            counted=counted,
            on_delta=on_delta,
            attempts=self._attempts,
            slots=self._router.slots,
            clock=self._clock,
        )
        paid = await asking.of(chooser.among(stage))
        if paid is None and asking.refusal is not None:
            for lower in chooser.after(stage, asking.refusal):
                if paid is None and not asking.is_over:
                    paid = await asking.of(chooser.among(lower))
        if paid is None and asking.asked_nobody:
            call = Call(id=call_id, scope=run.scope, epoch=run.epoch, node=ask.node)
            paid = await self._attempts.replay(run, call)
        if paid is None:
            raise await self._ended(asking, stage.tier)
        await self._router.learn(run, ask, paid, chooser.policy)
        return paid

    async def open(self, run: RunContext, scope: Scope, limits: Limits) -> None:
        """Open the account of an agent that is used as a tool in a run."""
        await run.ledger.do(run.ledger.gates.open, scope, limits)

    async def charge_tool(self, run: RunContext, call: Call) -> None:
        """Charge one tool call, once for its id; raises LimitReached where the ledger refuses."""
        if run.lineage is not None and await self._attempts.inherited(run, call) is not None:
            return
        # Never Wait: a tool call is settled in the transaction that reserves it, so none is held.
        made = await run.ledger.charge(call, ToolQuote())
        if isinstance(made, Refusal):
            raise await self._stop(run, made)

    async def _stop(self, run: RunContext, refusal: Refusal) -> LimitReached:
        """Make the stop stick before anybody hears of it; where it sticks, that is."""
        if run.sticky and refusal.cause in ("limit", "unpriced", "deadline"):
            path = refusal.path if refusal.path in run.scope.run_paths else run.scope.run_path
            await run.ledger.do(run.ledger.gates.stop, path, refusal)
        run.tell("limit", text=refusal.words())
        return LimitReached(refusal)

    async def _ended(self, asking: Asking, tier: str) -> LimitReached | ModelCallFailed:
        """Why nobody answered; a failure that ends a call goes before what the ledger refused earlier."""
        stopped = asking.failures and asking.failures[-1].then == "stop"
        if asking.refusal is not None and not stopped:
            return await self._stop(asking.run, asking.refusal)
        return asking.error(tier)


def _require_allowed(policy: Policy, ask: Ask, tier: str) -> None:
    """Raise ModelCallFailed for a tier that the tenant may not use, and a model that stands in none that it may."""
    if policy.tiers is not None and tier not in policy.tiers:
        what = f"tier {tier}" if ask.model is None else f"model {ask.model}, which stands in none of its tiers"
        raise ModelCallFailed(
            f"tenant {policy.tenant} may not use {what}; it may use {', '.join(policy.tiers)}",
            next_step=f"add {tier or 'its tier'} to tenants.{policy.tenant}.tiers",
        )
