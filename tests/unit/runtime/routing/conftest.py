"""One trained classifier for all tests that only ask it."""

from __future__ import annotations

import pytest

from bursar.runtime.routing.training import Training, train
from tests.unit.runtime.routing.corpus import corpus


@pytest.fixture(scope="session")
def training() -> Training:
    """Of 4,000 labels, which are enough to certify something."""
    made = train(corpus(4000, seed=0), tiers=("small", "frontier"), incumbent="frontier")
    assert made.down
    assert made.down.certified
    return made
