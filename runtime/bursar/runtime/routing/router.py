"""What a process knows when it chooses: the tenants' policies, what is left, who is busy, who wrote what."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bursar.agents.tier import AUTO
from bursar.budget.errors import UsageError
from bursar.runtime.routing.allow import Policy
from bursar.runtime.routing.auto import AutoTier
from bursar.runtime.routing.choice import Chooser, Situation
from bursar.runtime.routing.ladder import Remaining
from bursar.runtime.routing.load import Slots
from bursar.runtime.routing.session import Authors

if TYPE_CHECKING:
    from bursar.budget.admission import MoneyLeft
    from bursar.runtime.ask import Ask, PaidReply
    from bursar.runtime.config import Config
    from bursar.runtime.context import RunContext
    from bursar.runtime.models.catalog import Catalog
    from bursar.runtime.models.causes import Failure

__all__ = ["Router"]

_AUTO_SECTION = "add `auto: {incumbent: TIER, classifier: FILE.npz}`"


class Router:
    """Makes choices, and learns from what came of them; may be shared by threads and event loops."""

    def __init__(
        self, config: Config, catalog: Catalog, *, cooling: Callable[[str], Failure | None] = lambda _: None
    ) -> None:
        """`cooling` says why a model is passed by just now."""
        self._config = config
        self._cooling = cooling
        self._catalog = catalog
        self._remaining = Remaining()
        self._authors = Authors()
        self._auto = AutoTier(config.auto, config.tiers, config.base) if config.auto else None
        self.slots = Slots()

    def warm_up(self) -> None:
        """Load the classifier of `auto`, where there is one; raises ConfigError where it cannot be."""
        if self._auto is not None:
            self._auto.warm_up()

    def policy(self, run: RunContext) -> Policy:
        """What the run's tenant allows."""
        section = self._config.tenants.get(run.scope.tenant)
        if section is None:
            return Policy(tenant=run.scope.tenant, tiers=run.tiers)
        return Policy(
            tenant=run.scope.tenant,
            tiers=run.tiers,
            models=section.models,
            data=section.data,
            ladder=section.downgrade,
        )

    def chooser(self, run: RunContext, ask: Ask, input_tokens: int) -> Chooser:
        """The choice for a call of a run; raises UsageError for `auto` where bursar.yaml does not say who chooses."""
        if ask.tier == AUTO and self._auto is None:
            raise UsageError("a node asks for tier auto, and bursar.yaml has no section auto", next_step=_AUTO_SECTION)
        policy = self.policy(run)
        now = Situation(
            left=self._remaining.of(run.scope.with_node(ask.node)) if policy.ladder else None,
            in_flight=self.slots.in_flight,
            cooling=self._cooling,
            author=self._authors.of(run.scope.run_id, ask.messages),
            downgrades=run.on_limit == "downgrade",
            auto=self._auto,
        )
        return Chooser(ask, input_tokens, self._catalog, policy, now)

    def know(self, run: RunContext, left: MoneyLeft | None) -> None:
        """What is left of a run's budgets when it begins."""
        self._remaining.learn(run.scope.paths, left)

    async def learn(self, run: RunContext, ask: Ask, paid: PaidReply, policy: Policy) -> None:
        """What a reply tells of the budgets, of who made its tool calls, and of what `auto` is asked."""
        if policy.ladder and not paid.replayed:
            self._remaining.learn(run.scope.with_node(ask.node), paid.money_left)
        if paid.message.get("tool_calls"):
            self._authors.learn(run.scope.run_id, paid.message, paid.model)
        if self._auto is not None and ask.tier == AUTO and not paid.replayed:
            await self._auto.log(run, ask, run.now())
