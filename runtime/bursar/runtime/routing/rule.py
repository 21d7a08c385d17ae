"""When a classifier may leave the incumbent tier, and when that was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from bursar.runtime.routing.certify import Trial

__all__ = ["Rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When to leave the incumbent, in one direction: down to cheaper tiers, or up to dearer ones."""

    tiers: range
    """Of this direction: places among all tiers, the cheapest first."""

    trial: Trial | None
    """What certified its threshold; without it, nobody is sent this way."""

    @classmethod
    def down(cls, tiers: Sequence[str], incumbent: str, trial: Trial | None = None) -> Self:
        """The rule for the tiers that are cheaper than the incumbent."""
        return cls(tiers=range(tiers.index(incumbent)), trial=trial)

    @classmethod
    def up(cls, tiers: Sequence[str], incumbent: str, trial: Trial | None = None) -> Self:
        """The rule for the tiers that are dearer than the incumbent."""
        return cls(tiers=range(tiers.index(incumbent) + 1, len(tiers)), trial=trial)

    def pick(self, chances: Sequence[float], threshold: float) -> int | None:
        """The cheapest tier that is right surely enough."""
        for tier in self.tiers:
            if self.chance(chances, tier) >= threshold:
                return tier
        return None

    def chance(self, chances: Sequence[float], tier: int) -> float:
        """How probable it is that a tier is right."""
        return min(1.0, sum(chances[self.tiers.start : tier + 1]))

    def is_right(self, tier: int, label: int) -> bool:
        """Whether it was right to send a request to `tier` whose cheapest sufficient tier is `label`."""
        return self.tiers.start <= label <= tier
