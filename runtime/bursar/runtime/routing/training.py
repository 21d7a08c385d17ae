"""Makes the built-in classifier from labels: learns on one part of them, and certifies on the other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bursar.budget.errors import UsageError
from bursar.runtime.routing.certify import Certification, certify
from bursar.runtime.routing.fitting import fit_weights, learn_vocabulary
from bursar.runtime.routing.labels import Label
from bursar.runtime.routing.rule import Rule
from bursar.runtime.routing.trained import TrainedClassifier, text_hash
from bursar.runtime.routing.trained_file import signed

__all__ = ["LABELS_PER_TIER_MIN", "Training", "train"]

FIT_SHARE = 0.6
LABELS_PER_TIER_MIN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A trained classifier, and what is known of it."""

    classifier: TrainedClassifier
    fitted: int
    """How many labels it learned from."""

    held: tuple[Label, ...]
    """The labels that it has not learned from, on which it was certified."""

    down: Certification | None
    """For tiers cheaper than the incumbent; None where no label names one."""

    up: Certification | None
    """For tiers dearer than the incumbent; None where no label names one."""

    @property
    def labels_missing(self) -> int | None:
        """About how many more labels would certify something, if they are like these.

        0 where something is certified; None where no number would, since it is wrong too often.
        """
        tests = [test for test in (self.down, self.up) if test]
        if any(test.certified for test in tests):
            return 0
        growths = [test.growth for test in tests if test.growth is not None]
        return math.ceil((min(growths) - 1) * (self.fitted + len(self.held))) if growths else None


def train(
    labels: Sequence[Label],
    *,
    tiers: Sequence[str],
    incumbent: str,
    max_wrong: float = 0.05,
    confidence: float = 0.95,
    seed: int = 0,
    tell: Callable[[float], None] = lambda done: None,
) -> Training:
    """Train a classifier that is wrong on at most `max_wrong` of what it sends away from the incumbent.

    That is so with probability `confidence`, for both directions at once, on traffic like the labels. `tiers` are all
    there are, the cheapest first. The same labels and seed make the same classifier. `tell` is told the fraction that
    is done. Raises UsageError where there is too little to learn from.
    """
    _check(labels, tiers)
    order = np.random.default_rng(seed).permutation(len(labels))
    fit, held = ([labels[place] for place in part] for part in np.split(order, [int(len(labels) * FIT_SHARE)]))
    vocabulary, known_min = learn_vocabulary(fit)
    tell(0.2)
    weights, bias = fit_weights(vocabulary, fit, tiers, seed)
    tell(0.8)
    classifier = TrainedClassifier(
        tiers=tuple(tiers),
        incumbent=incumbent,
        vocabulary=vocabulary,
        weights=weights,
        bias=bias,
        known_min=known_min,
        down=Rule.down(tiers, incumbent),
        up=Rule.up(tiers, incumbent),
        seen=np.unique(np.array([text_hash(label.text) for label in labels])),
    )
    down, up = _certified(classifier, held, max_wrong, confidence)
    certified = replace(
        classifier,
        down=replace(classifier.down, trial=down.certified if down else None),
        up=replace(classifier.up, trial=up.certified if up else None),
    )
    return Training(classifier=signed(certified), fitted=len(fit), held=tuple(held), down=down, up=up)


def _check(labels: Sequence[Label], tiers: Sequence[str]) -> None:
    counts = Counter(label.tier for label in labels)
    if len(counts) < 2:
        said = f"every label says {next(iter(counts))}" if counts else "there are no labels"
        raise UsageError(
            f"not enough evidence: {said}, expected labels of two tiers or more", next_step="label more requests"
        )
    for tier in tiers:
        if 0 < counts[tier] < LABELS_PER_TIER_MIN:
            raise UsageError(
                f"not enough evidence: {counts[tier]} labels say {tier}, expected at least {LABELS_PER_TIER_MIN}",
                next_step=f"label {LABELS_PER_TIER_MIN - counts[tier]} more requests that need {tier}",
            )


def _certified(
    classifier: TrainedClassifier, held: Sequence[Label], max_wrong: float, confidence: float
) -> tuple[Certification | None, Certification | None]:
    """Test both rules as `classify` follows them. Where there are two, each may fail half as often."""
    rows = []
    for label in held:
        chances, known = classifier.chances(label.text)
        if known >= classifier.known_min:
            rows.append((chances, classifier.tiers.index(label.tier)))
    possible = [bool(np.isfinite(classifier.bias[rule.tiers]).any()) for rule in (classifier.down, classifier.up)]

    def certified(rule: Rule) -> Certification:
        def count(threshold: float) -> tuple[int, int]:
            routed = [(tier, label) for chances, label in rows if (tier := rule.pick(chances, threshold)) is not None]
            return len(routed), sum(not rule.is_right(tier, label) for tier, label in routed)

        return certify(count, max_wrong=max_wrong, confidence=1 - (1 - confidence) / sum(possible))

    down, up = possible
    return certified(classifier.down) if down else None, certified(classifier.up) if up else None
