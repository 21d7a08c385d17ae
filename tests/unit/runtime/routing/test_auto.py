"""The tier of `auto`: the classifier's where it has evidence, and the incumbent in every other case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bursar.budget.errors import ConfigError
from bursar.runtime.config_routing import AutoConfig
from bursar.runtime.routing.auto import AutoTier
from bursar.runtime.routing.classifier import Verdict
from tests.unit.runtime.routing.house import ASKED, TIERS


class Says:
    """A classifier that always says the same."""

    digest = "0" * 16

    def __init__(self, verdict: Verdict | Exception) -> None:
        self._verdict = verdict

    def classify(self, messages: Any) -> Verdict:
        if isinstance(self._verdict, Exception):
            raise self._verdict
        return self._verdict


def small(_: Path) -> Says:
    return Says(Verdict(tier="small", confidence=0.93, reason="auto: small at 0.93"))


def nothing(_: Path) -> Says:
    return Says(Verdict(tier=None, confidence=0.0, reason="auto: no evidence, standard"))


def elsewhere(_: Path) -> Says:
    return Says(Verdict(tier="huge", confidence=1.0, reason="auto: huge"))


def broken(_: Path) -> Says:
    return Says(ZeroDivisionError())


def chosen(tmp_path: Path, classifier: str | None) -> tuple[str, str]:
    reference = classifier and f"{__name__}:{classifier}"
    auto = AutoTier(AutoConfig(incumbent="standard", classifier=reference), TIERS, tmp_path)
    auto.warm_up()
    return auto(ASKED)


@pytest.mark.parametrize(
    ("classifier", "tier", "why"),
    [
        ("small", "small", "auto: small at 0.93"),
        ("nothing", "standard", "auto: no evidence, standard"),
        ("elsewhere", "standard", "auto: the incumbent, for the classifier's huge is none of the tiers"),
        ("broken", "standard", "auto: the incumbent, for the classifier failed (ZeroDivisionError)"),
        (None, "standard", "auto: no classifier, the incumbent"),
    ],
)
def test_without_evidence_the_incumbent_answers(tmp_path: Path, classifier: str | None, tier: str, why: str) -> None:
    assert chosen(tmp_path, classifier) == (tier, why)


def test_a_classifier_that_is_not_there_shows_when_the_runtime_opens(tmp_path: Path) -> None:
    auto = AutoTier(AutoConfig(incumbent="standard", classifier="routes/auto.npz"), TIERS, tmp_path)
    with pytest.raises(ConfigError, match=r"auto\.npz"):
        auto.warm_up()
