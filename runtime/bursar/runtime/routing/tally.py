"""What a cascade has come to, and whether it is worth trying the cheap tier first: exact arithmetic on counts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import sqrt

from bursar.budget.money import format_usd

__all__ = ["RECENT_MAX", "TRIES_MIN", "Tally", "worth_trying"]

TRIES_MIN = 20
"""How often the cheap tier is tried before the tally says anything."""

RECENT_MAX = 200
"""How many tries count for the acceptance that is expected; older ones fade."""

ONE_IN = 20
"""One call in so many tries the cheap tier although it does not pay, to see whether it does by now."""

Z_95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The calls of one cascade of one node; amounts in nano-USD."""

    tried: int = 0
    """Calls that went to the cheap tier first."""

    accepted: int = 0
    """Of these, answers that were accepted."""

    straight: int = 0
    """Calls that went to the stronger tier at once."""

    recent_tried: int = 0
    recent_accepted: int = 0
    first_nanousd: int = 0
    verify_nanousd: int = 0
    then_nanousd: int = 0
    instead_nanousd: int = 0
    """What the accepted answers would have cost on the stronger tier, had they been as long there: an estimate."""

    @property
    def saved_nanousd(self) -> int:
        """Against asking the stronger tier each time; below 0 where the cascade cost more. An estimate."""
        return self.instead_nanousd - self.first_nanousd - self.verify_nanousd

    @property
    def accepted_percent(self) -> tuple[float, float] | None:
        """The 95 % interval of the share that is accepted, by Wilson's score; None before the first try."""
        if not self.tried:
            return None
        n, share = self.tried, self.accepted / self.tried
        middle = share + Z_95**2 / (2 * n)
        spread = Z_95 * sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))
        scale = 100 / (1 + Z_95**2 / n)
        return max(0.0, (middle - spread) * scale), min(100.0, (middle + spread) * scale)


def worth_trying(tally: Tally, first: str, then: str, call_id: str) -> tuple[bool, str]:
    """Whether a call tries the cheap tier first, and why; the same for the same call and tally.

    It is where `c_cheap + c_verify + (1 - a) * c_strong < c_strong`, with the costs' means and the recent acceptance
    `a`, to which one accepted and one refused answer are added.
    """
    strong_calls = tally.tried + tally.straight
    if tally.tried < TRIES_MIN:
        return True, f"cascade: try {tally.tried + 1} of the first {TRIES_MIN}"
    cheap = (tally.first_nanousd + tally.verify_nanousd) // tally.tried
    strong = (tally.then_nanousd + tally.instead_nanousd) // strong_calls
    accepted, of = tally.recent_accepted + 1, tally.recent_tried + 2
    seen = f"{tally.recent_accepted} of {tally.recent_tried} accepted"
    if accepted * strong > of * cheap:
        return True, f"cascade: {first} first, {seen}"
    if int.from_bytes(hashlib.blake2b(call_id.encode(), digest_size=4).digest()) % ONE_IN == 0:
        return True, f"cascade: {first} does not pay ({seen}), one in {ONE_IN} is tried"
    expected = cheap + strong - accepted * strong // of
    return False, f"cascade: straight, {seen}: {first} first {format_usd(expected)}, {then} {format_usd(strong)}"
