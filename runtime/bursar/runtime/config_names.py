"""Names in a configuration that name nothing, or not what belongs there.

All of it takes data of any shape, to be reported beside every other error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from bursar.runtime.config_problems import KeyPath, Problem, nearest

__all__ = ["as_mapping", "misnamed"]


def misnamed(data: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the names in tiers and tenants."""
    models, tiers, organisations, tenants = (
        as_mapping(data.get(key)) for key in ("models", "tiers", "organisations", "tenants")
    )
    for tier, names in tiers.items():
        yield from _wrong_models(tier, names, models)
    yield from _unknown_name(("auto", "incumbent"), as_mapping(data.get("auto")).get("incumbent"), "tier", tiers)
    for tenant, section in tenants.items():
        settings, path = as_mapping(section), ("tenants", tenant)
        yield from _unknown_names((*path, "tiers"), settings.get("tiers"), "tier", tiers)
        yield from _unknown_names((*path, "models"), settings.get("models"), "model", models)
        yield from _wrong_ladder((*path, "downgrade"), settings, list(tiers))
        named = settings.get("organisation")
        if isinstance(named, str) and named not in organisations:
            text = f"there is no such organisation{nearest(named, organisations)}"
            yield Problem(path=(*path, "organisation"), text=text)


def as_mapping(value: object) -> Mapping[str, Any]:
    """The value, where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _wrong_models(tier: str, names: object, models: Mapping[str, Any]) -> Iterator[Problem]:
    if tier == "auto":
        yield Problem(path=("tiers", tier), text="this name is kept for the tier that `auto` chooses")
    yield from _unknown_names(("tiers", tier), names, "model", models)
    for index, name in enumerate(_listed(names)):
        kind = as_mapping(models.get(name) if isinstance(name, str) else None).get("kind", "chat")
        if kind in ("embedding", "rerank"):
            text = f"expected a chat model, and {name} is of kind {kind}: calls name it, no tier does"
            yield Problem(path=("tiers", tier, index), text=text)


def _wrong_ladder(path: KeyPath, settings: Mapping[str, Any], order: list[str]) -> Iterator[Problem]:
    """Steps whose tier is none, or not the tenant's; and such as do not fall."""
    steps = [as_mapping(step) for step in _listed(settings.get("downgrade"))]
    allowed = settings.get("tiers")
    for index, step in enumerate(steps):
        tier = step.get("tier")
        yield from _unknown_name((*path, index, "tier"), tier, "tier", order)
        if isinstance(allowed, list) and tier in order and tier not in allowed:
            yield Problem(path=(*path, index, "tier"), text=f"expected one of the tenant's tiers: {_shown(allowed)}")
    for index, (before, step) in enumerate(pairwise(steps), start=1):
        shares = (before.get("below_percent"), step.get("below_percent"))
        if isinstance(shares[0], int) and isinstance(shares[1], int) and shares[1] >= shares[0]:
            text = f"expected a smaller share than the step before it ({shares[0]}): the ladder leads down"
            yield Problem(path=(*path, index, "below_percent"), text=text)
        tiers = (before.get("tier"), step.get("tier"))
        if tiers[0] in order and tiers[1] in order and order.index(tiers[1]) >= order.index(tiers[0]):
            text = f"expected a lower tier than the step before it ({tiers[0]}); tiers stand from the lowest up"
            yield Problem(path=(*path, index, "tier"), text=text)


def _unknown_names(path: KeyPath, names: object, noun: str, known: Mapping[str, Any]) -> Iterator[Problem]:
    for index, name in enumerate(_listed(names)):
        yield from _unknown_name((*path, index), name, noun, list(known))


def _unknown_name(path: KeyPath, name: object, noun: str, known: Mapping[str, Any] | list[str]) -> Iterator[Problem]:
    if isinstance(name, str) and name not in known:
        yield Problem(path=path, text=f"there is no such {noun}{nearest(name, known)}")


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _shown(names: list[Any]) -> str:
    return ", ".join(map(str, names))
