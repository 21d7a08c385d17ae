"""When a budget runs out at the present pace, with an interval that says how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from math import sqrt
from statistics import NormalDist

__all__ = ["COVERAGE", "Forecast", "forecast"]

COVERAGE = 0.8
"""The share of forecasts whose interval holds the truth."""

STRETCHES_MIN = 4
"""With fewer stretches in which something was spent there is a pace, but no interval."""

HORIZON = timedelta(days=3653)
"""Nothing is forecast beyond ten years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Amounts are in the unit of the limit; each interval holds the truth in COVERAGE of all cases.

    An interval's end is None where too little was seen to name it, or where there is none within the window.
    """

    expected: int | None
    """What will be spent when the window ends; None for a window that never ends."""

    low: int | None
    high: int | None

    runs_out_at: datetime | None
    """When nothing is left at the mean pace; None where the window ends before that."""

    runs_out_earliest: datetime | None
    runs_out_latest: datetime | None

    stretches: int
    """In how many of the observed stretches something was spent: what the forecast rests on."""


def forecast(
    buckets: Sequence[tuple[datetime, int]],
    *,
    limit: int,
    spent: int,
    now: datetime,
    window_end: datetime | None,
    leaving: Sequence[tuple[datetime, int]] = (),
) -> Forecast:
    """Carry the pace of the past on to the end of the window.

    `buckets` are consecutive stretches of the past, empty ones included: the time at which each begins, and what was
    spent until the next one begins; the last goes on until `now`. `leaving` is what a rolling window will lose again,
    and when, the soonest first; its `window_end` is one window from now.

    The method: spending is taken as a process of independent increments with constant mean m and variance v per
    second, both estimated from the stretches. Over the next h seconds m*h is expected, with a variance of v*h for the
    process itself and v*h*h/D for the error of an m that was seen over D seconds; the interval is Student's t with one
    degree of freedom less than there are stretches with spending. Since spending never falls, the time at which the
    limit is reached has the quantiles at which those of the spending cross it, which is a quadratic equation in h.
    Night, weekends and trends are not modelled: they widen the interval, since they widen v. Floats are used for
    estimates only, no balance is made of them.
    """
    pace = _observed(buckets, now)
    end = now + HORIZON if window_end is None else window_end
    rest = [(at, amount) for at, amount in leaving if at <= end]
    low, expected, high = _at_end(pace, spent - sum(amount for _, amount in rest), (end - now).total_seconds())
    latest, at, earliest = (_runs_out(pace, t, limit - spent, now, [*rest, (end, 0)]) for t in (-pace.t, 0.0, pace.t))
    return Forecast(
        expected=None if window_end is None else expected,
        low=None if window_end is None or not pace.is_sure else low,
        high=None if window_end is None or not pace.is_sure else high,
        runs_out_at=at,
        runs_out_earliest=earliest if pace.is_sure else None,
        runs_out_latest=latest if pace.is_sure else None,
        stretches=pace.stretches,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """Mean and variance of the spending per second, seen over so many seconds."""

    mean: float
    variance: float
    observed_s: float
    stretches: int

    @property
    def is_sure(self) -> bool:
        return self.stretches >= STRETCHES_MIN

    @property
    def t(self) -> float:
        """The quantile of Student's t between which COVERAGE lies."""
        return _student_t((1 + COVERAGE) / 2, self.stretches - 1) if self.is_sure else 0.0

    def spending(self, seconds: float, t: float) -> float:
        """What is spent in the next seconds, `t` deviations above the mean; never below 0."""
        if not self.observed_s:
            return 0.0
        deviation = sqrt(self.variance * (seconds + seconds * seconds / self.observed_s))
        return max(0.0, self.mean * seconds + t * deviation)

    def seconds_to(self, room: int, t: float) -> float | None:
        """When `spending(seconds, t)` reaches an amount above 0; None where it never does."""
        if not self.mean:
            return None
        noise = t * t * self.variance
        middle = 2 * room * self.mean + noise
        root = sqrt(4 * noise * room * (self.mean + room / self.observed_s) + noise * noise)
        if t >= 0:
            return 2 * room * room / (middle + root)
        square = self.mean * self.mean - noise / self.observed_s
        return (middle + root) / (2 * square) if square > 0 else None


def _observed(buckets: Sequence[tuple[datetime, int]], now: datetime) -> _Pace:
    amounts = [amount for _, amount in buckets]
    seconds = [(to - at).total_seconds() for at, to in pairwise([*(at for at, _ in buckets), now])]
    if len(buckets) > 1 and seconds[-1] < seconds[-2]:
        # The unfinished stretch: by itself it says little, and one call in its first second would say too much.
        last_s, last = seconds.pop(), amounts.pop()
        seconds[-1] += last_s
        amounts[-1] += last
    observed_s = sum(seconds)
    if observed_s <= 0:
        return _Pace(mean=0.0, variance=0.0, observed_s=0.0, stretches=0)
    mean = sum(amounts) / observed_s
    squares = sum((amount - mean * s) ** 2 / s for amount, s in zip(amounts, seconds, strict=True))
    return _Pace(
        mean=mean,
        variance=squares / max(1, len(amounts) - 1),
        observed_s=observed_s,
        stretches=sum(1 for amount in amounts if amount),
    )


def _at_end(pace: _Pace, kept: int, seconds: float) -> tuple[int, int, int]:
    """Low, expected and high spending of the window when it ends; `kept` of it is spent by now."""
    low, expected, high = (kept + round(pace.spending(seconds, t)) for t in (-pace.t, 0.0, pace.t))
    return low, expected, high


def _runs_out(
    pace: _Pace, t: float, room: int, now: datetime, pieces: Sequence[tuple[datetime, int]]
) -> datetime | None:
    """When the room is used up; at the end of each piece of time it grows by an amount, after the last nothing does."""
    for until, amount in pieces:
        seconds = pace.seconds_to(room, t) if room > 0 else 0.0
        if seconds is not None and seconds <= (until - now).total_seconds():
            return now + timedelta(seconds=seconds)
        room += amount
    return None


def _student_t(probability: float, freedom: int) -> float:
    """A quantile of Student's t, within 0.2 % for 3 degrees of freedom and more.

    Cornish and Fisher's expansion around the normal quantile (Abramowitz and Stegun, 26.7.5).
    """
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return float(z + first / freedom + second / freedom**2 + third / freedom**3)
