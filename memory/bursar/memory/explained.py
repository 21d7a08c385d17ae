"""What to say when the store of checkpoints cannot be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from bursar.budget.errors import LedgerUnavailable, LedgerVersionError
from bursar.memory.errors import CheckpointRefused, CheckpointsUnavailable

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
    except (DBAPIError, sqlite3.Error) as error:  # whose words may hold a whole row
        raise CheckpointRefused(
            f"a row of the checkpoints {name} cannot be read", next_step="restore them from a backup"
        ) from error
