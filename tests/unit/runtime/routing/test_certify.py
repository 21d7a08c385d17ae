"""A threshold that is certified is wrong too often no more often than was promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit  # type: ignore[import-untyped]  # it comes without types
from scipy.stats import binom  # type: ignore[import-untyped]  # it comes without types

from bursar.runtime.routing.certify import THRESHOLDS, Certification, certify, lower_bound, upper_bound

MAX_WRONG, CONFIDENCE = 0.05, 0.95


def drawn(rng: np.random.Generator, count: int, *, honesty: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and whether following them is wrong; at an honesty under 1 they promise more than they keep."""
    odds = rng.normal(0.5, 2.5, count)
    return expit(odds), rng.random(count) > expit(odds * honesty)


def certified(scores: np.ndarray, wrong: np.ndarray) -> Certification:
    def count(threshold: float) -> tuple[int, int]:
        routed = scores >= threshold
        return int(routed.sum()), int(wrong[routed].sum())

    return certify(count, max_wrong=MAX_WRONG, confidence=CONFIDENCE)


@given(routed=st.integers(1, 500), share=st.floats(0, 1), risk=st.floats(0.001, 0.2))
def test_the_bound_is_the_rate_at_which_so_few_wrong_ones_are_as_improbable_as_the_risk(
    routed: int, share: float, risk: float
) -> None:
    wrong = int(share * routed)
    high, low = upper_bound(wrong, routed, risk), lower_bound(wrong, routed, risk)
    assert low <= wrong / routed <= high
    assert binom.cdf(wrong, routed, high) == pytest.approx(1.0 if wrong == routed else risk, rel=1e-6)
    assert binom.sf(wrong - 1, routed, low) == pytest.approx(1.0 if wrong == 0 else risk, rel=1e-6)


@pytest.mark.parametrize("honesty", [1.0, 0.5])
@pytest.mark.parametrize("count", [300, 1500])
def test_over_many_samples_too_high_a_risk_is_certified_no_more_often_than_the_risk_of_that(
    count: int, honesty: float
) -> None:
    rng, repeats = np.random.default_rng(7), 400
    many, of_many = drawn(rng, 400_000, honesty=honesty)
    misses = 0
    for _ in range(repeats):
        found = certified(*drawn(rng, count, honesty=honesty)).certified
        misses += found is not None and of_many[many >= found.threshold].mean() > MAX_WRONG
    assert misses <= binom.ppf(0.999, repeats, 1 - CONFIDENCE)


def test_with_enough_evidence_most_of_what_is_safe_is_certified() -> None:
    rng = np.random.default_rng(3)
    many, of_many = drawn(rng, 400_000)
    safe = max((many >= lowest).mean() for lowest in THRESHOLDS if of_many[many >= lowest].mean() <= MAX_WRONG)
    found = certified(*drawn(rng, 10_000)).certified
    assert found
    assert (many >= found.threshold).mean() > 0.8 * safe


def test_nothing_is_looked_at_behind_the_first_threshold_that_fails() -> None:
    """Else a lucky one would be found among many."""
    asked = []

    def count(threshold: float) -> tuple[int, int]:
        asked.append(threshold)
        return (400, 0) if threshold > 0.9 else (600, 300) if threshold > 0.8 else (10_000, 0)

    found = certify(count, max_wrong=MAX_WRONG, confidence=CONFIDENCE)
    assert found.certified
    assert found.certified.threshold > 0.9
    assert [trial.bound <= MAX_WRONG for trial in found.trials] == [True] * (len(found.trials) - 1) + [False]
    assert min(asked[1:]) > 0.8  # the first question is only how many there are at all


def test_fewer_than_would_do_without_one_mistake_certify_nothing_and_say_how_many_times_as_many_it_takes() -> None:
    def growth(routed: int) -> Certification:
        return certify(lambda threshold: (routed, 0), max_wrong=MAX_WRONG, confidence=CONFIDENCE)

    assert growth(58).certified is None
    assert growth(58).growth == pytest.approx(59 / 58)
    assert growth(59).certified
    assert growth(0).growth is None


@given(routed=st.integers(60, 400), wrong=st.integers(1, 30))
def test_evidence_that_grows_as_was_said_and_goes_on_as_it_was_certifies(routed: int, wrong: int) -> None:
    def found(times: float) -> Certification:
        grown = round(routed * times)
        return certify(lambda threshold: (grown, int(wrong * times)), max_wrong=MAX_WRONG, confidence=CONFIDENCE)

    first = found(1)
    if first.certified is None and first.growth is not None:
        assert first.growth > 1
        assert found(first.growth).certified
    elif first.certified is None:
        assert wrong / routed >= MAX_WRONG * 0.99
