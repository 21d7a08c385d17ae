"""The character n-grams of a text as hashes: three to five characters of one word."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Counts", "Hashes", "ngrams"]

Hashes: TypeAlias = NDArray[np.uint32]
Counts: TypeAlias = NDArray[np.int64]

SHORTEST, LONGEST = 3, 5

_SPACE = np.uint64(ord(" "))
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


def ngrams(text: str) -> tuple[Hashes, Counts]:
    """The distinct n-grams of a text, ascending, and how often each is in it.

    Case and the amount of space do not count. A word has a space at either end, as in scikit-learn's `char_wb`: that
    is how `un` before a word differs from `un` within it.
    """
    spaced = f" {'  '.join(text.lower().split())} "
    points = np.frombuffer(spaced.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    between_words = (points[:-1] == _SPACE) & (points[1:] == _SPACE)
    hashes, crosses = points, np.zeros(len(points), dtype=np.bool_)
    found = []
    for length in range(2, LONGEST + 1):
        hashes = hashes[:-1] * _FACTOR + points[length - 1 :]
        crosses = crosses[:-1] | between_words[length - 2 :]
        if length >= SHORTEST:
            found.append(hashes[~crosses])
    return np.unique(_mixed(np.concatenate(found)), return_counts=True)


def _mixed(hashes: NDArray[np.uint64]) -> Hashes:
    """Half as many bits, in which every character has a say."""
    folded = (hashes ^ (hashes >> _HALF)) * _FACTOR
    return (folded >> _HALF).astype(np.uint32)
