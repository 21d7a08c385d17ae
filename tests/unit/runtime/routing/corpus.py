"""Labelled requests, made up: the words of easy and of hard ones overlap, and so does what they need."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from bursar.runtime.routing.labels import Label

__all__ = ["TIERS", "corpus", "shuffled"]

TIERS = ("small", "standard", "frontier")

_SYLLABLES = (
    "ba",
    "cor",
    "de",
    "fin",
    "gal",
    "hor",
    "ist",
    "jun",
    "ker",
    "lom",
    "mar",
    "nor",
    "op",
    "pra",
    "que",
    "ris",
)


def _words(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(_SYLLABLES, k=rng.randint(2, 4))) for _ in range(count)]


_COMMON, _EASY, _HARD = _words(1, 400), _words(2, 150), _words(3, 150)


def corpus(
    count: int, seed: int, *, tiers: Sequence[str] = ("small", "frontier"), sharpness: float = 6.0
) -> list[Label]:
    """As many labels as asked for. Sharper ones follow more surely from the words; at 0 they are a coin's."""
    rng = random.Random(seed)
    return [_label(rng, tiers, sharpness) for _ in range(count)]


def shuffled(labels: Sequence[Label], seed: int) -> list[Label]:
    """The same texts and the same tiers, but none of the tiers has anything to do with its text."""
    tiers = [label.tier for label in labels]
    random.Random(seed).shuffle(tiers)
    return [Label(label.text, tier) for label, tier in zip(labels, tiers, strict=True)]


def _word(rng: random.Random, hardness: float) -> str:
    if rng.random() < 0.02:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=8))  # somebody's name, or a slip of the pen
    if rng.random() < 0.5:
        return rng.choice(_COMMON)
    return rng.choice(_HARD if rng.random() < hardness else _EASY)


def _label(rng: random.Random, tiers: Sequence[str], sharpness: float) -> Label:
    hardness = rng.random()
    text = " ".join(_word(rng, hardness) for _ in range(30))
    needed = 1 / (1 + math.exp(-sharpness * (4 * hardness - 2)))
    place = sum(rng.random() < needed for _ in tiers[1:])
    return Label(text, tiers[place])
