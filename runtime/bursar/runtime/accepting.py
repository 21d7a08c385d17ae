"""Accepting a run: all that is checked and fixed before it is a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Required, TypedDict, get_args

from bursar.agents.agent import OnLimit
from bursar.budget.errors import PriceMissingError, UsageError
from bursar.budget.limits import Limits
from bursar.budget.scope import Scope
from bursar.budget.windows import to_us
from bursar.runtime.config import Config
from bursar.runtime.graph_context import written_context
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.models.catalog import Catalog
from bursar.runtime.routing.needs import require, tiers_named
from bursar.runtime.runs.records import new_run_id
from bursar.runtime.tenants import require_team, tenant_of
from bursar.runtime.work import Work

__all__ = ["Accepting", "NewRun", "RunOptions", "RunTerms"]


class RunOptions(TypedDict, total=False):
    """What `Runtime.run`, `stream` and `submit` take besides what is run: the fields of `RunTerms`."""

    tenant: Required[str]
    team: str | None
    user: str | None
    limits: Limits | None
    node_limits: Mapping[str, Limits] | None
    on_limit: OnLimit | None
    deadline: datetime | timedelta | None
    name: str | None
    target: str | None
    within: str | None
    context: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTerms:
    """For whom a run is executed, and within which bounds."""

    tenant: str
    team: str | None = None
    user: str | None = None
    """`team` and `user` are whose budgets bind the run beside the tenant's."""

    limits: Limits | None = None
    """They tighten an agent's own, and are a graph's. `seconds` is working time: waiting does not count."""

    node_limits: Mapping[str, Limits] | None = None
    """What single nodes may use in this run, by their names; of these only what is written down counts."""

    on_limit: OnLimit | None = None
    deadline: datetime | timedelta | None = None
    """When the run ends at the latest, whether it works or waits: a moment, or how long from now."""

    name: str | None = None
    """What a graph is called; an agent has a name of its own."""

    target: str | None = None
    """Where another process can load the agent or graph from: `file.py:name`."""

    within: str | None = None
    """The path of another run that pays for this one too, and whose limits hold over it."""

    context: Any = None
    """That of a graph which declares a `context_schema`: data, kept with the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run that may be accepted."""

    values: Mapping[str, Any]
    """Its row."""

    scope: Scope
    limits: Limits
    nodes: Mapping[str, Limits] = field(default_factory=dict)
    until: datetime | None = None
    work: Work
    given: Any
    """The graph's input."""


class Accepting:
    """Checks what is to be run against the configuration, the models and the prices."""

    def __init__(
        self, config: Config, ledger: LedgerThread, catalog: Catalog, *, clock: Callable[[], datetime]
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._catalog = catalog
        self._clock = clock

    async def new_run(self, work: Work, given: Any, terms: RunTerms) -> NewRun:
        """The run that would be accepted; nothing is written.

        Raises UsageError for a tenant, tier, deadline or input that cannot be, PriceMissingError, LedgerUnavailable.
        """
        section = tenant_of(self._config, terms.tenant)
        require_team(self._config, terms.tenant, terms.team)
        if terms.on_limit not in (None, *get_args(OnLimit)):
            raise UsageError(f"on_limit {terms.on_limit!r}: expected one of {', '.join(get_args(OnLimit))}")
        bounds, nodes = work.bounded(terms.limits), terms.node_limits or {}
        work.require_nodes(nodes)
        if bounds.nanousd is not None:
            await self._require_prices(work, terms.tenant)
        for agent in work.agents:
            require(agent, self._catalog, self._config)
        until = self._until(terms.deadline)
        run_id = new_run_id(self._clock())
        context = None if terms.context is None else written_context(work.graph, terms.context)
        begun = work.begin(given)
        kind, blob = work.serde.dumps_typed(begun)
        values = {
            "id": run_id,
            "tenant": terms.tenant,
            "team": terms.team,
            "user": terms.user,
            "agent": work.name,
            "target": terms.target,
            "within": terms.within,
            "context": context,
            "on_limit": terms.on_limit or work.on_limit or section.on_limit or "finalize",
            "max_output_tokens": work.max_output_tokens,
            "deadline_us": None if until is None else to_us(until),
            "input_type": kind,
            "input": blob,
        }
        scope = Scope(
            tenant=terms.tenant,
            agents=(work.name,),
            run_id=run_id,
            organisation=section.organisation,
            team=terms.team,
            user=terms.user,
            within=terms.within,
        )
        work = work.within(context)
        return NewRun(values=values, scope=scope, limits=bounds, nodes=nodes, until=until, work=work, given=begun)

    def _until(self, deadline: datetime | timedelta | None) -> datetime | None:
        now = self._clock()
        at = now + deadline if isinstance(deadline, timedelta) else deadline
        if at is not None and (at.tzinfo is None or at <= now):
            raise UsageError(
                f"deadline {deadline}: expected a time to come, with its zone",
                next_step="timedelta(hours=2), or datetime(..., tzinfo=UTC)",
            )
        return at

    async def _require_prices(self, work: Work, tenant: str) -> None:
        """Raise PriceMissingError for a model without a price, unless the tenant's policy lets it be called."""
        try:
            for agent in work.agents:
                for tier in tiers_named(agent.tier, self._config):
                    self._catalog.require_prices(tier, "the run has a limit in USD")
        except PriceMissingError:
            policies = await self._ledger.do(self._ledger.ledger.policies.ls)
            if tenant not in policies or policies[tenant].unpriced == "refuse":
                raise
