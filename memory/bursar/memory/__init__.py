"""What a run remembers between steps, resumes and processes."""

from __future__ import annotations

from bursar.memory.checkpoints import open_checkpoints
from bursar.memory.errors import CheckpointError, CheckpointRefused, CheckpointsUnavailable
from bursar.memory.strict import AllowedType, StrictSerializer

__all__ = [
    "AllowedType",
    "CheckpointError",
    "CheckpointRefused",
    "CheckpointsUnavailable",
    "StrictSerializer",
    "open_checkpoints",
]
