"""The tenant's ladder: which tier a call gets at most while a budget runs low."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bursar.budget.money import NANO, format_usd
from bursar.runtime.routing.allow import Policy

if TYPE_CHECKING:
    from bursar.budget.admission import MoneyLeft

__all__ = ["Remaining", "below", "capped"]

PATHS_MAX = 20_000
"""Of how many budgets a process remembers what was left."""


def capped(asked: str, order: Sequence[str], policy: Policy, left: MoneyLeft | None) -> tuple[str, str]:
    """The tier that a call gets, and why where it is not the one that is asked for.

    `order` is all tiers from the lowest to the highest. Of several steps that hold, the lowest tier counts.
    """
    if left is None:
        return asked, ""
    caps = [step.tier for step in policy.ladder if left.left_nanousd * 100 < step.below_percent * left.limit_nanousd]
    tier = min([asked, *caps], key=order.index)
    if tier == asked:
        return asked, ""
    of = format_usd(left.limit_nanousd)
    return tier, f"{policy.tenant}'s ladder, {left.percent} % of {of} left ({asked} asked)"


def below(tier: str, order: Sequence[str], policy: Policy, min_tier: str | None) -> list[str]:
    """The tiers under this one that the tenant and the node allow, the highest first."""
    lowest = order.index(min_tier) if min_tier is not None else 0
    lower = reversed(order[lowest : order.index(tier)])
    return [name for name in lower if policy.tiers is None or name in policy.tiers]


class Remaining:
    """What was left of each budget when a call was last made, or a run begun, on it; may be shared by threads."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, MoneyLeft] = OrderedDict()
        self._lock = threading.Lock()

    def learn(self, paths: Iterable[str], left: MoneyLeft | None) -> None:
        """A call on these paths left this of the one of which the least share is left; None where none is limited."""
        with self._lock:
            for path in paths:
                known = self._left.get(path)
                if known is not None and (left is None or _share(known) <= _share(left)):
                    del self._left[path]  # there is no less left of it than of this one
            if left is not None:
                self._left.pop(left.path, None)
                self._left[left.path] = left
                if len(self._left) > PATHS_MAX:
                    self._left.popitem(last=False)

    def of(self, paths: Iterable[str]) -> MoneyLeft | None:
        """The budget among these of which the least share was left; None where nobody knows."""
        found = [left for path in paths if (left := self._left.get(path)) is not None]
        return min(found, key=_share, default=None)


def _share(left: MoneyLeft) -> int:
    return left.left_nanousd * NANO // max(1, left.limit_nanousd)
