"""Ledgers for pytest, on the stores that the fixture `open_store` opens: import all of these into a `conftest.py`.

`open_store` is the store author's own. It returns a function that opens one and the same store again and again, as
other processes would; at first it has the ledger's tables and nothing in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from bursar.budget import Ledger, Limits, Store
from bursar.budget.audit.verify import verify
from bursar.budget.testing.audit import audit
from bursar.budget.testing.plain import SUPPORT, Clock

__all__ = ["another", "clock", "empty_ledger", "ledger", "store"]

# The rules say more when they break; said here, before the contract itself is imported.
pytest.register_assert_rewrite("bursar.budget.testing.contract")


@pytest.fixture
def clock() -> Clock:
    """The time, which stands still until a test moves it."""
    return Clock()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Iterator[Store]:
    """A store with all tables; whatever a test did to it, it is audited at the end."""
    with closing(open_store()) as store:
        yield store
        audit(store)
        assert not verify(store).findings


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
def another(open_store: Callable[[], Store], clock: Clock) -> Iterator[Callable[[], Ledger]]:
    """Makes ledgers on the same store that share nothing else with the first, as another process does."""
    with ExitStack() as opened:

        def make() -> Ledger:
            return Ledger(opened.enter_context(closing(open_store())), clock=clock)

        yield make
