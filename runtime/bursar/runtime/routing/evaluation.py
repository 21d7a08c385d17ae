"""How a classifier does on labels: what it sends where, and how often wrongly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bursar.budget.errors import UsageError
from bursar.runtime.routing.certify import lower_bound, upper_bound
from bursar.runtime.routing.classifier import Classifier
from bursar.runtime.routing.labels import Label
from bursar.runtime.routing.rule import Rule

__all__ = ["Evaluation", "evaluate"]

RISK = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a classifier did with labelled requests."""

    incumbent: str
    sent: Mapping[str, int]
    """How many requests each tier got, the cheapest first; the incumbent's include those without evidence."""

    wrong: Mapping[str, int]
    """How many of what another tier than the incumbent got it should not have got.

    A cheaper tier did not do the job; a dearer one was not needed, or did not do it either.
    """

    no_evidence: int

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(self.sent.values())

    @property
    def away(self) -> int:
        """How many were sent away from the incumbent."""
        return self.requests - self.sent[self.incumbent]

    @property
    def wrong_away(self) -> int:
        """How many of those wrongly."""
        return sum(self.wrong.values())

    @property
    def wrong_between(self) -> tuple[float, float] | None:
        """Where the true share of wrong ones among those sent away lies, with probability 0.95; None without any."""
        if not self.away:
            return None
        wrong, away = self.wrong_away, self.away
        return lower_bound(wrong, away, RISK / 2), upper_bound(wrong, away, RISK / 2)


def evaluate(
    classifier: Classifier,
    labels: Sequence[Label],
    *,
    tiers: Sequence[str],
    incumbent: str,
    tell: Callable[[float], None] = lambda done: None,
) -> Evaluation:
    """Ask the classifier about every label; `tiers` are all there are, the cheapest first.

    Raises UsageError for a classifier that names another tier.
    """
    sent, wrong = Counter(dict.fromkeys(tiers, 0)), Counter({tier: 0 for tier in tiers if tier != incumbent})
    no_evidence = 0
    down, up = Rule.down(tiers, incumbent), Rule.up(tiers, incumbent)
    for done, label in enumerate(labels):
        named = classifier.classify([{"role": "user", "content": label.text}]).tier
        no_evidence += named is None
        tier = incumbent if named is None else named
        if tier not in sent:
            raise UsageError(f"the classifier names tier {tier!r}, expected one of {', '.join(tiers)}")
        sent[tier] += 1
        if tier != incumbent:
            place = tiers.index(tier)
            rule = down if place in down.tiers else up
            wrong[tier] += not rule.is_right(place, tiers.index(label.tier))
        tell(done / len(labels))
    return Evaluation(incumbent=incumbent, sent=sent, wrong=wrong, no_evidence=no_evidence)
