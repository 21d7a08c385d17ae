"""What to say when the store of checkpoints cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from bursar.budget.errors import LedgerUnavailable, LedgerVersionError
from bursar.memory.errors import CheckpointsUnavailable

__all__ = ["explained"]


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Say of the checkpoints what the store says of the ledger, whose errors it raises."""
    try:
        yield
    except (LedgerUnavailable, LedgerVersionError) as error:
        cause = error.__cause__ or error
        said = getattr(cause, "orig", cause) if isinstance(cause, DBAPIError) else cause
        raise CheckpointsUnavailable(
            f"the checkpoints {name} cannot be used: {said}", next_step=error.next_step
        ) from error
