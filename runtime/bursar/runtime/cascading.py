"""A cascade under way: the cheap answer, its verification, and the stronger answer, each a paid call of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from bursar.agents.tier import Cascade, Judge
from bursar.budget.amounts import Amounts
from bursar.runtime.ask import Ask, Delta, PaidReply
from bursar.runtime.context import RunContext
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.catalog import Catalog
from bursar.runtime.routing.cascade import complaint, judged, question_for, shown_attempt
from bursar.runtime.routing.session import MADE_BY, is_open, last_answer
from bursar.runtime.routing.tally import Tally, worth_trying
from bursar.runtime.runs.cascades import Cascades, Which
from bursar.runtime.stop import ModelCallFailed

__all__ = ["Cascading"]

Answer = Callable[[RunContext, Ask, str, Delta | None], Awaitable[PaidReply]]


class Cascading:
    """Makes the calls of cascades, and counts what comes of them.

    The ids of a cascade's calls are the call's own with `:first`, `:judge` and `:then` behind it, so that a node which
    is run again finds each of them.
    """

    def __init__(self, answer: Answer, ledger: LedgerThread, catalog: Catalog) -> None:
        """`answer` makes one paid call, without a cascade."""
        self._answer = answer
        self._ledger = ledger
        self._cascades = Cascades(ledger.ledger.store)
        self._catalog = catalog

    async def make(
        self, run: RunContext, ask: Ask, cascade: Cascade, call_id: str, on_delta: Delta | None
    ) -> PaidReply:
        """The cheap tier's answer where it is accepted, else the stronger one's."""
        plain = replace(ask, cascade=None)
        if ask.final:  # what was kept back for it may be no more than the cheap tier costs
            return await self._answer(run, replace(plain, tier=cascade.first), call_id, on_delta)
        which = Which(
            tenant=run.scope.tenant,
            agent=run.scope.agents[-1],
            node=ask.node,
            first=cascade.first,
            then=cascade.then,
            verifier=cascade.verifier,
        )
        first_id, then_id = f"{call_id}:first", f"{call_id}:then"
        standing = (which, run.scope.run_id, (first_id, then_id))
        tally, answered = await run.ledger.do(self._cascades.standing, *standing)
        tries, why = worth_trying(tally, cascade.first, cascade.then, call_id)
        if answered:  # before a crash: what was paid for is taken up again, whatever the tally says by now
            tries, why = first_id in answered, "cascade: goes on"
        elif self._is_held(ask, cascade):
            tries, why = False, f"cascade: {cascade.then} is in a tool exchange"
        if not tries:
            paid = await self._answer(run, replace(plain, why=why), then_id, on_delta)
            self._count(which, paid, Tally(straight=1, then_nanousd=paid.posted.nanousd))
            return paid
        return await self._climbed(run, replace(plain, why=why), cascade, which, call_id, on_delta)

    async def _climbed(
        self, run: RunContext, ask: Ask, cascade: Cascade, which: Which, call_id: str, on_delta: Delta | None
    ) -> PaidReply:
        """The cheap answer, or the stronger one after it."""
        kept: list[Mapping[str, Any]] = []  # nobody hears of an answer before it is accepted
        try:
            first = await self._answer(
                run, replace(ask, tier=cascade.first), f"{call_id}:first", kept.append if on_delta else None
            )
        except ModelCallFailed as failed:
            why = f"cascade: {failed.message}"
            return await self._answer(run, replace(ask, digest=None, why=why), f"{call_id}:then", on_delta)
        wrong, verified = await self._verified(run, ask, cascade, first, call_id)
        spent = Tally(tried=1, recent_tried=1, first_nanousd=first.posted.nanousd, verify_nanousd=verified.nanousd)
        if wrong is None:
            for delta in kept:
                if on_delta is not None:
                    on_delta(delta)
            instead = self._instead(ask, first)
            self._count(which, first, replace(spent, accepted=1, recent_accepted=1, instead_nanousd=instead))
            return replace(first, posted=first.posted + verified)
        stronger = replace(
            ask,
            messages=shown_attempt(ask.messages, first.message, wrong),
            digest=None,  # another request, and no repetition of the first
            why=f"cascade: {cascade.first}'s answer was not accepted ({cascade.verifier})",
        )
        paid = await self._answer(run, stronger, f"{call_id}:then", on_delta)
        self._count(which, paid, replace(spent, then_nanousd=paid.posted.nanousd))
        return replace(paid, posted=first.posted + verified + paid.posted)

    async def _verified(
        self, run: RunContext, ask: Ask, cascade: Cascade, first: PaidReply, call_id: str
    ) -> tuple[str | None, Amounts]:
        """Why an answer is not accepted, None where it is; and what that cost."""
        wrong = complaint(cascade, ask, first)
        if wrong is not None or not isinstance(cascade.accept, Judge):
            return wrong, Amounts()
        judge = cascade.accept
        question = Ask(
            tier=judge.tier,
            node=ask.node,
            messages=question_for(judge, ask.messages, first.message),
            max_output_tokens=judge.max_output_tokens,
            models=ask.models,
            data=ask.data,
            exclusive=ask.exclusive,
            why="judges a cascade's answer",
        )
        try:
            said = await self._answer(run, question, f"{call_id}:judge", None)
        except ModelCallFailed:
            return "nobody could check it", Amounts()
        return (None if judged(said.message) else "a check of its content failed"), said.posted

    def _is_held(self, ask: Ask, cascade: Cascade) -> bool:
        """Whether the stronger tier is in the middle of a tool exchange."""
        answer = last_answer(ask.messages) or {}
        first, then = (list(self._catalog.tiers.get(tier, ())) for tier in (cascade.first, cascade.then))
        author = answer.get(MADE_BY)
        return author in then and author not in first and is_open(ask.messages)

    def _instead(self, ask: Ask, first: PaidReply) -> int:
        """What an answer of the same length would have cost on the stronger tier."""
        price = self._catalog.tier(ask.tier)[0].price_for(ask.messages)
        return price.cost(first.usage) if price is not None and first.usage is not None else 0

    def _count(self, which: Which, paid: PaidReply, more: Tally) -> None:
        """Add to the tally, unless the answer was a replay, which was counted when it was made."""
        if not paid.replayed:
            self._ledger.soon(self._cascades.count, which, more)
