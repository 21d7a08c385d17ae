"""What commands read: the configuration, its ledger and its runs, open for as long as a command needs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bursar.runtime.config import Config, load_config

if TYPE_CHECKING:
    from bursar.budget.ledger import Ledger
    from bursar.runtime.runs.records import Records

__all__ = ["Books", "open_books"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """A configuration with its open store."""

    config: Config
    ledger: Ledger
    records: Records


@contextmanager
def open_books(file: Path) -> Iterator[Books]:
    """Open the store that a configuration names; raises ConfigError and LedgerError."""
    from bursar.runtime.opening import open_ledger  # with SQLAlchemy

    config = load_config(file)
    ledger, records = open_ledger(config)
    try:
        yield Books(config=config, ledger=ledger, records=records)
    finally:
        ledger.close()
