"""What a store's journal holds."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import RowMapping, select

from bursar.budget import Store
from bursar.budget.schema import entry

__all__ = ["entries_of"]


def entries_of(store: Store, kind: str) -> Sequence[RowMapping]:
    """Every entry of a kind, in order."""
    with store.read() as connection:
        return connection.execute(select(entry).where(entry.c.kind == kind).order_by(entry.c.seq)).mappings().all()
