"""What an agent asks of the configuration, checked before anything is spent: its tiers, its models, their prices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bursar.agents.tier import AUTO, Cascade, Judge, Tier
from bursar.budget.errors import UsageError

if TYPE_CHECKING:
    from bursar.agents.agent import Agent
    from bursar.runtime.config import Config
    from bursar.runtime.models.catalog import Catalog

__all__ = ["require", "tiers_named"]


def tiers_named(tier: Tier, config: Config) -> Iterator[str]:
    """Every tier that a call may be given to; for `auto` all of them, or `auto` where bursar.yaml has no section."""
    if isinstance(tier, Cascade):
        yield from (tier.first, tier.then)
        if isinstance(tier.accept, Judge):
            yield tier.accept.tier
    elif tier == AUTO and config.auto is not None:
        yield from config.tiers
    else:
        yield tier


def require(agent: Agent, catalog: Catalog, config: Config) -> None:
    """Raise UsageError for a tier or model that is none, ConfigError for a missing key of a model that may be asked."""
    if agent.tier == AUTO and config.auto is None:
        raise UsageError(
            f"agent {agent.name} asks for tier auto, and bursar.yaml has no section auto",
            next_step="add `auto: {incumbent: TIER}`",
        )
    catalog.require("model", *(agent.models or ()))
    catalog.require("tier", *([agent.min_tier] if agent.min_tier else []))
    tiers = list(tiers_named(agent.tier, config))
    for tier in tiers:
        models = catalog.tier(tier)
        if agent.tier == AUTO or agent.models is None or any(model.name in agent.models for model in models):
            continue
        raise UsageError(
            f"agent {agent.name}: none of its models ({', '.join(agent.models)}) stands in tier {tier}",
            next_step=f"models=[...] of {', '.join(model.name for model in models)}",
        )
    _require_order(agent, list(config.tiers))


def _require_order(agent: Agent, order: list[str]) -> None:
    """Tiers stand from the lowest to the highest: a cascade climbs, and no tier is below the node's lowest."""
    if isinstance(agent.tier, Cascade) and order.index(agent.tier.first) > order.index(agent.tier.then):
        raise UsageError(
            f"agent {agent.name}: its Cascade leads down from {agent.tier.first} to {agent.tier.then}",
            next_step="tiers in bursar.yaml stand from the lowest to the highest",
        )
    first = agent.tier.first if isinstance(agent.tier, Cascade) else agent.tier
    if agent.min_tier and first != AUTO and order.index(first) < order.index(agent.min_tier):
        raise UsageError(
            f"agent {agent.name}: tier {first} is below its min_tier {agent.min_tier}",
            next_step=f"tier={agent.min_tier!r}, or a lower min_tier",
        )
