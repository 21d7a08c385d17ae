"""A new SQLite store for a test, copied from one that was migrated before, which takes a tenth of the time."""

from __future__ import annotations

import tempfile
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from bursar.budget import Store
from bursar.budget.stores.migrate import migrate

__all__ = ["new_runtime_file", "new_store"]


def new_store(folder: Path) -> Store:
    """A store with all of the ledger's tables and nothing in them."""
    path = folder / "ledger.db"
    path.write_bytes(_migrated())
    return Store(f"sqlite:///{path}")


def new_runtime_file(folder: Path) -> None:
    """What a runtime would make of `sqlite:///bursar.db` in this folder when it is first opened, unless it is there."""
    for name, content in (("bursar.db", _migrated(runs=True)), ("bursar.checkpoints.db", _of_checkpoints())):
        if not (folder / name).exists():
            (folder / name).write_bytes(content)


@lru_cache
def _migrated(*, runs: bool = False) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        with closing(Store(f"sqlite:///{path}")) as store:
            migrate(store)
            if runs:
                from bursar.runtime.runs.records import MIGRATIONS
                from bursar.tools.effect_table import MIGRATIONS as EFFECTS

                migrate(store, scripts=MIGRATIONS, version_table="bursar_runs_version")
                migrate(store, scripts=EFFECTS, version_table="bursar_effects_version")
        return path.read_bytes()


@lru_cache
def _of_checkpoints() -> bytes:
    from bursar.memory.opening import MIGRATIONS, VERSION_TABLE

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        with closing(Store(f"sqlite:///{path}")) as store:
            migrate(store, scripts=MIGRATIONS, version_table=VERSION_TABLE)
        return path.read_bytes()
