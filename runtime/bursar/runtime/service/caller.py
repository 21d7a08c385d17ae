"""Who calls the gateway, and where the call says that it belongs."""

from __future__ import annotations

from dataclasses import dataclass

from bursar.budget.scope import Scope
from bursar.runtime.config_routing import RatesConfig
from bursar.runtime.context import RunContext

__all__ = ["Attribution", "Caller"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Where a call says that it belongs: reports show it, and it never widens a limit."""

    session: str | None = None
    """`X-Bursar-Run`: a name under which the client's calls are summed up, as a part of the key's own run."""

    agent: str | None = None
    """`X-Bursar-Agent`: whose budget pays beside the key's; a key that belongs to an agent names no other."""

    node: str = "-"
    """`X-Bursar-Node`: the step of the client's own program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The holder of a valid key."""

    key_id: str
    run: RunContext
    """The run that pays: the key's own, which outlives every session, or the run that the key was made in."""

    agent: str | None = None
    """The agent that the key belongs to."""

    asks_for: frozenset[str] | None = None
    """The tiers, models and `agent:NAME` that may be asked for; None = whatever the tenant may use."""

    rates: RatesConfig = RatesConfig()
    """What the key may ask for in a minute, beside its tenant's rates."""

    @property
    def scope(self) -> Scope:
        """Who pays: organisation, tenant, team, user, agents and the run."""
        return self.run.scope

    @property
    def is_run(self) -> bool:
        """Whether this is a run under way, which a limit stops for good, and not a standing key."""
        return self.run.sticky

    def scope_for(self, where: Attribution) -> Scope:
        """Who pays for a call that belongs there: the key's own run in any case, and a session or an agent beside."""
        agent = self.agent or where.agent
        # No agent's name has a colon, so nobody opens the account of an agent that is used as a tool in a run.
        name = f"session:{where.session}" if where.session else None if agent == self.agent else agent
        return self.scope if name is None else self.scope.child(agent or self.scope.agents[-1], name)
