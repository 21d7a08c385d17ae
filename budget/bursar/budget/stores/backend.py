"""What each kind of store does in its own way, behind `bursar.budget.stores.store.Store`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection

__all__ = ["Backend", "StoreBusy"]


class StoreBusy(Exception):
    """The transaction would have to wait."""


class Backend(Protocol):
    """One kind of store."""

    def write(self, *, durable: bool, wait: bool) -> AbstractContextManager[Connection]:
        """One writing transaction; raises StoreBusy where it would have to wait and must not."""

    def read(self, *, wait: bool) -> AbstractContextManager[Connection]:
        """One reading transaction; raises StoreBusy like `write`."""

    def close(self) -> None:
        """Give every connection back."""
