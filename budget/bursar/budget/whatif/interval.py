"""Prediction intervals from what was seen before, without a guess about how it is distributed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from bursar.budget.errors import UsageError

__all__ = ["GROUP_SIZE", "alike", "needed", "prediction"]

GROUP_SIZE = 50
"""The smallest group that is worth telling apart: its interval covers at most 2 % more than was asked for."""


def needed(percent: int) -> int:
    """How many values an interval of so many percent needs: 9 for 80 %, 19 for 90 %.

    Raises UsageError for anything but a whole number from 1 to 99.
    """
    if type(percent) is not int or not 1 <= percent <= 99:
        raise UsageError(f"an interval of {percent!r} %: expected a whole number from 1 to 99")
    seen = 1
    while seen + 1 - _covered(seen, percent) < 2:
        seen += 1
    return seen


def prediction(values: Sequence[int], percent: int) -> tuple[int, int] | None:
    """Two of the values between which the next one lies in `percent` of 100 cases; None where there are too few.

    The ends are order statistics. If the next value is exchangeable with those seen (any order of them all is as
    likely as any other), it falls into each of the n + 1 gaps between them with the same probability, whatever their
    distribution, heavy tails included. So an interval over k gaps covers it with a probability of k / (n + 1), or more
    where values repeat; k is the smallest number that is enough, and as many gaps are left out below as above
    (conformal prediction: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005). The probability
    is over the values seen and the next one together. Values that drift, as after a change of the prompt, are not
    exchangeable: then nothing is promised.
    """
    if len(values) < needed(percent):
        return None
    ordered = sorted(values)
    covered = _covered(len(values), percent)
    below = (len(values) + 1 - covered) // 2
    return ordered[below - 1], ordered[below + covered - 1]


def alike(mark: int, marks: Sequence[int]) -> list[int]:
    """The places of those `marks` that rank with `mark`, in groups of `GROUP_SIZE` or more.

    The groups are made of the ranks of all marks with `mark` among them. It would be grouped in the same way were it
    any of the others, so the values within its group stay exchangeable, and an interval made of them keeps its promise
    (Mondrian conformal prediction). All places where there are too few for two groups, or where equal marks leave
    its group smaller than that.
    """
    ordered = sorted((mark, *marks))
    groups = max(1, len(ordered) // GROUP_SIZE)

    def group(one: int) -> int:
        return bisect_left(ordered, one) * groups // len(ordered)

    found = [place for place, one in enumerate(marks) if group(one) == group(mark)]
    return found if len(found) + 1 >= GROUP_SIZE else [*range(len(marks))]


def _covered(seen: int, percent: int) -> int:
    """The fewest of the n + 1 gaps that hold so many percent."""
    return -(-(seen + 1) * percent // 100)
