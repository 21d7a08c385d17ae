"""A ledger on a fresh store, and more of them on the same store, as other processes have."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

from bursar.budget import Store
from bursar.budget.testing.fixtures import another, clock, empty_ledger, ledger, store
from tests.support.ledger import new_store

__all__ = ["another", "clock", "empty_ledger", "ledger", "open_store", "store"]

# How long an example takes says nothing where a machine has other work to do.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[[], Store]:
    """Opens the store of a test, a SQLite file; tests that run on each kind of store have another such fixture."""
    with closing(new_store(tmp_path)) as store:
        return partial(Store, store.url)
