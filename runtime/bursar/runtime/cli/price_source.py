"""Where a command looks a price up: the list in the store, where there is a store, and behind it the built-in book."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bursar.budget.pricing.book import PriceBook

if TYPE_CHECKING:
    from bursar.budget.pricing.pricelist import PriceList
    from bursar.runtime.config import Config

__all__ = ["prices_of"]


@contextmanager
def prices_of(config: Config) -> Iterator[PriceBook | PriceList]:
    """The prices in force for a configuration; no store is made where there is none. Raises LedgerError."""
    if config.database_path is not None and not config.database_path.exists():
        yield PriceBook.builtin()
        return
    from bursar.budget.pricing.pricelist import PriceList  # with SQLAlchemy
    from bursar.budget.stores.store import Store

    store = Store(config.database_url())
    try:
        yield PriceList(store)
    finally:
        store.close()
