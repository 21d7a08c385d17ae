"""How long it takes to choose who answers a call, with and without the classifier of `auto`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import quantiles
from typing import Any

from bursar.budget.admission import MoneyLeft
from bursar.runtime.config_routing import AutoConfig, DowngradeStep
from bursar.runtime.routing.allow import Policy
from bursar.runtime.routing.auto import AutoTier
from bursar.runtime.routing.choice import Situation, choose
from bursar.runtime.routing.trained_file import write_trained
from bursar.runtime.routing.training import train
from tests.unit.runtime.routing.corpus import corpus
from tests.unit.runtime.routing.house import CATALOG, asked

CHOICES = 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Wall ms of one choice."""

    p50_ms: float
    p99_ms: float


def measure() -> dict[str, Figures]:
    """Each kind of choice, over a house with three tiers and five models, a ladder and a tool exchange."""
    tiers = ("small", "standard", "frontier")
    policy = Policy(tenant="acme", tiers=tiers, ladder=[DowngradeStep(below_percent=20, tier="standard")])
    now = Situation(left=MoneyLeft("acme", "month", 400 * 10**9, 10**10), in_flight={"llama": 2}, author="mid")
    texts = [label.text for label in corpus(CHOICES, 7)]
    messages: list[list[dict[str, Any]]] = [
        [{"role": "system", "content": "Settle refund requests. " * 80}, {"role": "user", "content": text}]
        for text in texts
    ]
    with tempfile.TemporaryDirectory() as folder:
        labels = corpus(3_000, 1)
        made = train(labels, tiers=["small", "frontier"], incumbent="frontier", max_wrong=0.1, confidence=0.9, seed=1)
        file = Path(folder) / "auto.npz"
        write_trained(file, made.classifier)
        auto = AutoTier(AutoConfig(incumbent="frontier", classifier=str(file)), tiers, Path(folder))
        auto.warm_up()
        classified = replace(now, auto=auto, author=None)
        return {
            "a tier by its name": _timed(
                lambda i: choose(asked("frontier", messages=messages[i]), 900, CATALOG, policy, now)
            ),
            "auto": _timed(lambda i: choose(asked("auto", messages=messages[i]), 900, CATALOG, policy, classified)),
        }


def _timed(choice: Callable[[int], object]) -> Figures:
    took = []
    for number in range(CHOICES):
        begun = time.perf_counter()
        choice(number)
        took.append((time.perf_counter() - begun) * 1000)
    cuts = quantiles(took[100:], n=100)
    return Figures(p50_ms=cuts[49], p99_ms=cuts[98])
