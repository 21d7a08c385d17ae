"""The built-in classifier: a linear model over n-grams that names a tier only where that was certified."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bursar.runtime.models.provider import Message
from bursar.runtime.routing.certify import Trial
from bursar.runtime.routing.classifier import Verdict
from bursar.runtime.routing.evidence import text_of
from bursar.runtime.routing.ngrams import Hashes, ngrams
from bursar.runtime.routing.rule import Rule

__all__ = ["Floats", "TrainedClassifier", "Vocabulary", "text_hash"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The n-grams that training has seen in more than one text, and how much each tells."""

    keys: Hashes
    """Ascending."""

    idf: Floats
    """Of each key: the logarithm of how rare it is."""

    def weigh(self, text: str) -> tuple[NDArray[np.int64], Floats, float]:
        """The keys in a text, their weights (tf-idf, of length 1), and the share of its n-grams that are keys."""
        hashes, counts = ngrams(text)
        if not (len(hashes) and len(self.keys)):
            return np.empty(0, np.int64), np.empty(0, np.float32), 0.0
        places = np.searchsorted(self.keys, hashes)
        places[places == len(self.keys)] = 0
        known = self.keys[places] == hashes
        places = places[known]
        weights = (1 + np.log(counts[known], dtype=np.float32)) * self.idf[places]
        length = np.sqrt(weights @ weights)
        return places, weights / length if length else weights, float(known.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedClassifier:
    """What `bursar route train` makes. May be asked from any thread."""

    tiers: tuple[str, ...]
    """All of them, the cheapest first."""

    incumbent: str
    vocabulary: Vocabulary
    weights: Floats
    """A row for each key, a column for each tier."""

    bias: NDArray[np.float64]
    """Of each tier; minus infinity for one that no label named."""

    known_min: float
    """The share of a text's n-grams that must be known."""

    down: Rule
    up: Rule
    seen: NDArray[np.uint64]
    """Of each text that it was trained or certified on, ascending: who checks it must check it on others."""

    digest: str = ""

    def classify(self, messages: Sequence[Message]) -> Verdict:
        """The tier that these messages need, or no evidence."""
        text = text_of(messages)
        if not text.strip():
            return _no_evidence("no text of a user alone")
        chances, known = self.chances(text)
        if known < self.known_min:
            share, expected = math.floor(known * 100), math.ceil(self.known_min * 100)
            return _no_evidence(f"{share} % of its n-grams are known, expected {expected} %")
        for rule in (self.down, self.up):
            if rule.trial and (tier := rule.pick(chances, rule.trial.threshold)) is not None:
                return self._named(rule, rule.trial, tier, chances)
        return self._kept(chances)

    def has_seen(self, text: str) -> bool:
        """Whether it was trained or certified on this text."""
        hashed = text_hash(text)
        place = np.searchsorted(self.seen, hashed)
        return bool(place < len(self.seen) and self.seen[place] == hashed)

    def chances(self, text: str) -> tuple[list[float], float]:
        """How probably each tier is the cheapest that does the job, and which share of the n-grams is known."""
        places, values, known = self.vocabulary.weigh(text)
        scores = (values[:, np.newaxis] * self.weights[places]).sum(axis=0) + self.bias
        raised = np.exp(scores - scores.max())
        chances: list[float] = (raised / raised.sum()).tolist()
        return chances, known

    def _named(self, rule: Rule, trial: Trial, tier: int, chances: Sequence[float]) -> Verdict:
        name, chance = self.tiers[tier], rule.chance(chances, tier)
        why = f"threshold {trial.threshold:.2f}, certified on {trial.routed} labels"
        return Verdict(tier=name, confidence=chance, reason=f"auto: {name} at {chance:.2f} ({why})")

    def _kept(self, chances: Sequence[float]) -> Verdict:
        likeliest = max(range(len(chances)), key=chances.__getitem__)
        name = self.tiers[likeliest]
        if name == self.incumbent:
            chance = chances[likeliest]
            return Verdict(tier=name, confidence=chance, reason=f"auto: {name} at {chance:.2f}, the incumbent")
        rule = self.down if likeliest in self.down.tiers else self.up
        expected = f"under {rule.trial.threshold:.2f}" if rule.trial else "and no threshold is certified"
        return _no_evidence(f"{name} at {rule.chance(chances, likeliest):.2f}, {expected}")


def text_hash(text: str) -> np.uint64:
    """A text as `seen` holds it."""
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little"))


def _no_evidence(why: str) -> Verdict:
    return Verdict(tier=None, confidence=0.0, reason=f"auto: no evidence ({why})")
