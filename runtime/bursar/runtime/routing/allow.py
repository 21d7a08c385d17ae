"""Which tiers and models a tenant leaves to choose from, and why a model is not among them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from bursar.agents.tier import Data
    from bursar.runtime.config import ModelConfig
    from bursar.runtime.config_routing import DowngradeStep
    from bursar.runtime.models.catalog import Model

__all__ = ["Policy", "forbidden", "is_local"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a tenant allows."""

    tenant: str
    tiers: Collection[str] | None = None
    """None = all."""

    models: Collection[str] | None = None
    """None = all."""

    data: Data = "any"
    ladder: Sequence[DowngradeStep] = ()


def forbidden(model: Model, policy: Policy, models: Collection[str] | None, data: Data) -> str | None:
    """Why a model may not be asked by a node that allows these models and says this of its data; None where it may."""
    if policy.models is not None and model.name not in policy.models:
        return f"{model.name} is not among {policy.tenant}'s models"
    if models is not None and model.name not in models:
        return f"{model.name} is not among the node's models"
    if not model.local and "local_only" in (data, policy.data):
        return f"{model.name} is not local"
    return None


def is_local(section: ModelConfig) -> bool:
    """Whether a model runs in the house: as its section says, else whether it is served by this machine."""
    if section.local is not None:
        return section.local
    if section.provider == "sim":
        return True
    host = urlsplit(section.api_base or "").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
