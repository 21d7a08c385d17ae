"""What a store's journal holds."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import RowMapping, select

from bursar.budget import Store
from bursar.budget.schema import entry

__all__ = ["entries_of"]


def entries_of(store: Store, kind: str) -> Sequence[RowMapping]:
    """Every entry of a kind, one chain after the other."""
    with store.read() as connection:
        return (
            connection.execute(select(entry).where(entry.c.kind == kind).order_by(entry.c.chain, entry.c.number))
            .mappings()
            .all()
        )
