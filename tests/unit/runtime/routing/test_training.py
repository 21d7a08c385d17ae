"""Training: what is learned holds for new requests, and what cannot be learned is never followed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom  # type: ignore[import-untyped]  # it comes without types

from bursar.budget.errors import UsageError
from bursar.runtime.routing.certify import lower_bound
from bursar.runtime.routing.evaluation import evaluate
from bursar.runtime.routing.labels import Label
from bursar.runtime.routing.trained_file import write_trained
from bursar.runtime.routing.training import LABELS_PER_TIER_MIN, Training, train
from tests.unit.runtime.routing.corpus import TIERS, corpus, shuffled

TWO = ("small", "frontier")


def test_what_is_sent_away_is_wrong_no_more_often_than_promised_on_requests_that_come_later(training: Training) -> None:
    later = evaluate(training.classifier, corpus(4000, seed=1), tiers=TWO, incumbent="frontier")
    assert later.away > 500
    assert later.wrong_away / later.away < 0.05


def test_of_requests_with_a_probability_about_so_many_have_that_tier(training: Training) -> None:
    rows = corpus(4000, seed=2)
    chances = np.array([training.classifier.chances(row.text)[0][0] for row in rows])
    is_small = np.array([row.tier == "small" for row in rows])
    for low in np.arange(0, 1, 0.2):
        inside = (low <= chances) & (chances < low + 0.2)
        assert abs(chances[inside].mean() - is_small[inside].mean()) < 0.07


def test_where_labels_have_nothing_to_do_with_texts_nothing_is_certified() -> None:
    """Over 40 seeds, at most by the chance that was agreed to."""
    certified = 0
    for seed in range(40):
        made = train(shuffled(corpus(200, seed), seed), tiers=TWO, incumbent="frontier", seed=seed)
        assert made.down
        certified += made.down.certified is not None
    assert certified <= binom.ppf(0.999, 40, 0.05)


def test_what_a_lucky_sample_certifies_is_too_risky_no_more_often_than_agreed() -> None:
    """Where little is asked, so that much is certified: 30 % wrong, at 80 % confidence."""
    later, misses, certified = corpus(600, seed=999, sharpness=2), 0, 0
    for seed in range(20):
        made = train(
            corpus(250, seed, sharpness=2), tiers=TWO, incumbent="frontier", max_wrong=0.3, confidence=0.8, seed=seed
        )
        done = evaluate(made.classifier, later, tiers=TWO, incumbent="frontier")
        certified += done.away > 0
        misses += done.away > 0 and lower_bound(done.wrong_away, done.away, 0.05) > 0.3
    assert certified > 5
    assert misses <= binom.ppf(0.999, 20, 0.2)


def test_where_nothing_is_certified_the_incumbent_always_answers_and_it_is_said_how_much_is_missing() -> None:
    made = train(corpus(150, seed=3), tiers=TWO, incumbent="frontier")
    assert made.labels_missing
    assert evaluate(made.classifier, corpus(500, seed=4), tiers=TWO, incumbent="frontier").away == 0


def test_no_number_of_labels_is_named_where_the_surest_are_wrong_too_often() -> None:
    assert train(corpus(1500, seed=0, sharpness=0.5), tiers=TWO, incumbent="frontier").labels_missing is None


def test_with_tiers_on_both_sides_each_direction_is_certified_by_itself() -> None:
    made = train(corpus(2500, seed=5, tiers=TIERS), tiers=TIERS, incumbent="standard", max_wrong=0.4)
    assert made.down
    assert made.up
    assert made.down.certified
    assert made.up.certified
    later = evaluate(made.classifier, corpus(2000, seed=6, tiers=TIERS), tiers=TIERS, incumbent="standard")
    for tier in ("small", "frontier"):
        assert later.sent[tier] > 100
        assert later.wrong[tier] / later.sent[tier] < 0.4


def test_two_directions_share_the_risk() -> None:
    rows = corpus(1000, seed=5, tiers=TIERS)
    both = train(rows, tiers=TIERS, incumbent="standard", max_wrong=0.4)
    one = train(rows, tiers=TIERS, incumbent="frontier", max_wrong=0.4)
    assert one.up is None
    assert both.down
    assert one.down
    [first, *_] = one.down.trials
    same = [trial for trial in both.down.trials if (trial.routed, trial.wrong) == (first.routed, first.wrong)]
    assert all(trial.bound > first.bound for trial in same)


def test_a_tier_that_no_label_names_is_never_named_and_changes_nothing_for_the_others(training: Training) -> None:
    made = train(corpus(4000, seed=0), tiers=("tiny", *TIERS), incumbent="frontier").classifier
    for row in corpus(200, seed=7):
        (tiny, small, standard, frontier), _ = made.chances(row.text)
        assert tiny == standard == 0
        assert [small, frontier] == pytest.approx(training.classifier.chances(row.text)[0], abs=1e-5)
    assert made.down.trial == training.classifier.down.trial


def test_the_same_labels_and_seed_make_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    def made(name: str, seed: int) -> bytes:
        write_trained(
            tmp_path / name, train(corpus(200, seed=0), tiers=TWO, incumbent="frontier", seed=seed).classifier
        )
        return (tmp_path / name).read_bytes()

    assert made("a.npz", 0) == made("b.npz", 0)
    assert made("c.npz", 1) != made("a.npz", 0)


def test_labels_it_was_certified_on_are_none_that_it_was_trained_on(training: Training) -> None:
    rows = corpus(4000, seed=0)
    assert training.fitted + len(training.held) == len(rows)
    assert all(training.classifier.has_seen(row.text) for row in rows)
    assert not any(training.classifier.has_seen(row.text) for row in corpus(50, seed=8))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "there are no labels"),
        ([Label(f"text {i}", "small") for i in range(50)], "every label says small"),
        (
            [Label(f"text {i}", "small") for i in range(50)] + [Label("other", "frontier")],
            f"1 labels say frontier, expected at least {LABELS_PER_TIER_MIN}",
        ),
        ([Label(chr(0x4E00 + i) * 4, TWO[i % 2]) for i in range(60)], "no two texts have a word in common"),
    ],
)
def test_too_little_to_learn_from_is_said_and_not_guessed_around(rows: list[Label], said: str) -> None:
    with pytest.raises(UsageError, match=f"not enough evidence: {said}"):
        train(rows, tiers=TWO, incumbent="frontier")
