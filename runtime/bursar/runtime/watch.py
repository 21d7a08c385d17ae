"""Who executes runs no more: judged by what this process has seen of others, never by what their clocks say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bursar.budget.gate import Sign
from bursar.runtime.runs.records import Held

__all__ = ["Watch"]

LATE_S = 1.0
"""A look may be as late as this on a busy machine, however short the lease."""


class Watch:
    """Looks at the signs of life of other holders. One that does not change for a lease's time is its holder's last.

    Only the time between two looks counts, on a clock of this process that never jumps: whatever another worker's clock
    says, its live runs stay its own, and a dead one's are taken over. After a while without a look, as when the store
    was away, it begins anew: others could not give a sign either.
    """

    def __init__(self, lease_s: float, monotonic: Callable[[], float]) -> None:
        self._lease_s = lease_s
        self._monotonic = monotonic
        self._seen: dict[str, tuple[Sign, float]] = {}
        self._looked_at = monotonic()

    def silent(self, held: Sequence[Held]) -> list[Held]:
        """Those of all runs that others hold whose holders are dead."""
        now = self._monotonic()
        if now - self._looked_at > max(self._lease_s / 2, LATE_S):
            self._seen = {}
        self._looked_at = now
        self._seen = {one.run["id"]: self._since(one, now) for one in held}
        return [one for one in held if now - self._seen[one.run["id"]][1] >= self._lease_s]

    def _since(self, one: Held, now: float) -> tuple[Sign, float]:
        known = self._seen.get(one.run["id"])
        return known if known is not None and known[0] == one.sign else (one.sign, now)
