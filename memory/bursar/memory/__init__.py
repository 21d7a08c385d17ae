"""What a run remembers between steps, resumes and processes."""

from __future__ import annotations

from bursar.memory.checkpoints import EPOCH_KEY, CheckpointSaver, open_checkpoints
from bursar.memory.errors import CheckpointError, CheckpointFenced, CheckpointRefused, CheckpointsUnavailable
from bursar.memory.strict import AllowedType, StrictSerializer

__all__ = [
    "EPOCH_KEY",
    "AllowedType",
    "CheckpointError",
    "CheckpointFenced",
    "CheckpointRefused",
    "CheckpointSaver",
    "CheckpointsUnavailable",
    "StrictSerializer",
    "open_checkpoints",
]
