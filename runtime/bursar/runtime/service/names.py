"""What a caller may ask for: tiers, models of bursar.yaml and agents, each by the name that goes into `model`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bursar.agents.tier import AUTO
from bursar.runtime.config import Config, TenantConfig
from bursar.runtime.routing.allow import is_local
from bursar.runtime.service.caller import Caller
from bursar.runtime.service.errors import UnknownModel
from bursar.runtime.tenants import tenant_of

__all__ = ["AGENT_PREFIX", "Kind", "Names", "Offer"]

AGENT_PREFIX = "agent:"

Kind = Literal["chat", "embedding", "rerank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Something that `model` may name."""

    name: str
    tier: str
    """The tier that answers, `auto` among them; for a model the first tier that it stands in."""

    model: str | None = None
    """The one model that answers."""

    agent: str | None = None
    """The agent that answers, by its name under `agents` of bursar.yaml."""

    kind: Kind = "chat"


class Names:
    """The names of one configuration, as each caller sees them."""

    def __init__(self, config: Config, *, agents: bool = True) -> None:
        """`agents` says whether agents can be run here."""
        self._config = config
        self._agents = config.agents if agents else {}
        self._seen: dict[tuple[str, str | None, frozenset[str] | None], dict[str, Offer]] = {}

    def offers(self, caller: Caller) -> dict[str, Offer]:
        """All that the caller may ask for, by name: tiers first, then models, then agents."""
        key = (caller.scope.tenant, caller.agent, caller.asks_for)
        if key not in self._seen:
            found = {offer.name: offer for offer in self._of_tenant(caller.scope.tenant)}
            if caller.agent is not None:  # an agent does not hand its work to one that it does not pay for
                found = {name: offer for name, offer in found.items() if offer.agent in (None, caller.agent)}
            allowed = caller.asks_for
            self._seen[key] = {name: offer for name, offer in found.items() if allowed is None or name in allowed}
        return self._seen[key]

    def resolve(self, caller: Caller, name: str, kind: Kind = "chat") -> Offer:
        """What a name stands for; raises UnknownModel, also for what the caller may not use."""
        offers = self.offers(caller)
        found = offers.get(name)
        if found is None or found.kind != kind:
            fitting = [offer.name for offer in offers.values() if offer.kind == kind]
            raise UnknownModel(name, difflib.get_close_matches(name, fitting, 3) or fitting[:3])
        return found

    def _of_tenant(self, tenant: str) -> Iterator[Offer]:
        section = tenant_of(self._config, tenant)
        tiers = self._config.tiers if section.tiers is None else section.tiers
        if self._config.auto is not None:
            yield Offer(name=AUTO, tier=AUTO)
        for tier in tiers:
            yield Offer(name=tier, tier=tier)
        for agent in self._agents:
            yield Offer(name=f"{AGENT_PREFIX}{agent}", tier="", agent=agent)
        for name, model in self._config.models.items():
            home = next((tier for tier in tiers if name in self._config.tiers[tier]), None)
            stands = home is not None or model.kind != "chat" or section.tiers is None
            if stands and name not in tiers and self._may(section, name):
                yield Offer(name=name, tier=home or "-", model=name, kind=model.kind)

    def _may(self, tenant: TenantConfig, model: str) -> bool:
        """Whether the tenant's content may go to a model."""
        listed = tenant.models is None or model in tenant.models
        return listed and (tenant.data != "local_only" or is_local(self._config.models[model]))
