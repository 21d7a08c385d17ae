"""From which probability on a classifier may be followed, so that it is wrong at most so often, surely enough.

Thresholds are tested from the strictest down, each at the full level, until the first that fails (fixed-sequence
testing), by the exact bound of a binomial (Clopper and Pearson): with probability `confidence`, none that passed is
wrong more often than `max_wrong`. The thresholds are fixed beforehand, and where the tests begin depends on how many
requests a threshold routes, never on how they went.

This holds for traffic like the labels. It protects from chance; not from wrong labels, nor from traffic that changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["THRESHOLDS", "Certification", "Trial", "certify", "lower_bound", "upper_bound"]

THRESHOLDS = tuple(1 / (1 + math.exp(-step / 10)) for step in range(60, -1, -1))
"""From 0.998 down to 0.5, in even steps of log-odds."""

BEGIN_SHARE, BEGIN_MOST = 0.2, 5
"""Tests begin where a fifth of what could be routed is, or five times what would certify without one wrong answer.

Sooner, one wrong answer among a few ends them; later, the surest are tested together with doubtful ones.
"""

LABELS_MAX = 10_000_000
"""Beyond this, nobody is told to label more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a threshold did on labels that training has not seen."""

    threshold: float
    routed: int
    """How many requests it routes away from the incumbent."""

    wrong: int
    """How many of them wrongly."""

    bound: float
    """The share of wrong ones is at most this, surely enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certification:
    """What testing came to."""

    trials: tuple[Trial, ...]
    """The thresholds tested, the strictest first; all but perhaps the last have passed."""

    certified: Trial | None
    """The lowest threshold that passed; None where there is not enough evidence for any."""

    growth: float | None = None
    """Without a certified threshold: how many times the evidence, if it went on as it is, would certify one.

    None where no amount would.
    """


def certify(count: Callable[[float], tuple[int, int]], *, max_wrong: float, confidence: float) -> Certification:
    """Find the lowest threshold that may be followed.

    `count` says how many requests a threshold routes, and how many of them wrongly; a lower threshold routes no fewer.
    """
    risk = 1 - confidence
    fewest = _needed(0.0, max_wrong, risk) or LABELS_MAX
    most, _ = count(THRESHOLDS[-1])
    trials: list[Trial] = []
    passed: Trial | None = None
    for trial in _trials(count, max(fewest, min(most * BEGIN_SHARE, fewest * BEGIN_MOST)), risk):
        trials.append(trial)
        if trial.bound > max_wrong:
            break
        passed = trial
    growth = None if passed else _growth(trials, most, fewest, max_wrong, risk)
    return Certification(trials=tuple(trials), certified=passed, growth=growth)


def upper_bound(wrong: int, routed: int, risk: float) -> float:
    """The rate that `wrong` of `routed` exceeds with probability `risk` at most: Clopper and Pearson's."""
    from scipy.special import betaincinv  # type: ignore[import-untyped]  # it comes without types

    return 1.0 if wrong >= routed else float(betaincinv(wrong + 1, routed - wrong, 1 - risk))


def lower_bound(wrong: int, routed: int, risk: float) -> float:
    """The rate that `wrong` of `routed` falls short of with probability `risk` at most."""
    return 1 - upper_bound(routed - wrong, routed, risk)


def _trials(count: Callable[[float], tuple[int, int]], begin: float, risk: float) -> Iterator[Trial]:
    for threshold in THRESHOLDS:
        routed, wrong = count(threshold)
        if routed >= begin:
            yield Trial(threshold=threshold, routed=routed, wrong=wrong, bound=upper_bound(wrong, routed, risk))


def _growth(trials: list[Trial], most: int, fewest: int, max_wrong: float, risk: float) -> float | None:
    if not trials:
        return fewest / most if most else None
    [failed] = trials
    needed = _needed(failed.wrong / failed.routed, max_wrong, risk)
    return needed and needed / failed.routed


def _needed(rate: float, max_wrong: float, risk: float) -> int | None:
    """How many routed requests certify a classifier that is wrong at this rate; None where none would."""
    if rate >= max_wrong:
        return None
    low, high = 0, 1
    while upper_bound(math.ceil(rate * high), high, risk) > max_wrong:
        low, high = high, high * 2
        if high > LABELS_MAX:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if upper_bound(math.ceil(rate * middle), middle, risk) > max_wrong:
            low = middle
        else:
            high = middle
    return high
