"""What can go wrong with what a run remembers.

BursarError
└── CheckpointError
    ├── CheckpointFenced        the writer lost the run to another worker
    ├── CheckpointRefused       a row is damaged or another's, or names a type that may not be rebuilt
    └── CheckpointsUnavailable  the store could not be reached, is damaged or was made by a newer version
"""

from __future__ import annotations

from bursar.budget.errors import BursarError

__all__ = ["CheckpointError", "CheckpointFenced", "CheckpointRefused", "CheckpointsUnavailable"]


class CheckpointError(BursarError):
    """A run's checkpoints could not be used."""


class CheckpointFenced(CheckpointError):
    """This run was taken over by another worker; nothing was written."""


class CheckpointRefused(CheckpointError):
    """A checkpoint holds what may not be rebuilt; nothing of it was executed."""


class CheckpointsUnavailable(CheckpointError):
    """The store of checkpoints cannot be used now."""
