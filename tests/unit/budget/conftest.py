"""A ledger on a fresh store, and more of them on the same store, as other processes have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from bursar.budget import Ledger, Limits, Store
from bursar.budget.testing import SUPPORT, Clock, audit
from bursar.budget.verify import verify
from tests.support.ledger import new_store

# How long an example takes says nothing where a machine has other work to do.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def clock() -> Clock:
    """The time, which stands still until a test moves it."""
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with all tables; whatever a test did to it, it is audited at the end."""
    store = new_store(tmp_path)
    yield store
    audit(store)
    assert not verify(store).findings
    store.close()


@pytest.fixture
def empty_ledger(store: Store, clock: Clock) -> Ledger:
    """A ledger without a run or a budget."""
    return Ledger(store, clock=clock)


@pytest.fixture
def ledger(empty_ledger: Ledger) -> Ledger:
    """A ledger with run_1 of acme's agent support open, without a limit of any kind."""
    empty_ledger.gates.open(SUPPORT, Limits.unlimited())
    return empty_ledger


@pytest.fixture
def another(store: Store, clock: Clock) -> Iterator[Callable[[], Ledger]]:
    """Makes ledgers on the same store that share nothing else with the first, as another process does."""
    opened: list[Ledger] = []

    def make() -> Ledger:
        opened.append(Ledger(Store(store.url), clock=clock))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
