"""A new SQLite store for a test, copied from one that was migrated before."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from bursar.budget import Store
from bursar.budget.stores.migrate import migrate

__all__ = ["new_store"]


def new_store(folder: Path) -> Store:
    """A store with all tables and nothing in them."""
    path = folder / "ledger.db"
    path.write_bytes(_migrated())
    return Store(f"sqlite:///{path}")


@lru_cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        store = Store(f"sqlite:///{path}")
        migrate(store)
        store.close()
        return path.read_bytes()
