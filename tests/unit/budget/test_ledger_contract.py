"""The rules that every store of the ledger keeps, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from bursar.budget import Store
from bursar.budget.testing.contract import LedgerContract


class TestLedger(LedgerContract):
    @pytest.fixture
    def open_store(self, store_url: str) -> Callable[[], Store]:
        return partial(Store, store_url)
