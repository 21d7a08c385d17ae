"""What a run remembers between steps, resumes and processes."""

from __future__ import annotations

from bursar.memory.checkpoints import EPOCH_KEY, TENANT_KEY, CheckpointSaver
from bursar.memory.errors import CheckpointError, CheckpointFenced, CheckpointRefused, CheckpointsUnavailable
from bursar.memory.opening import open_checkpoints
from bursar.memory.strict import AllowedType, StrictSerializer

__all__ = [
    "EPOCH_KEY",
    "TENANT_KEY",
    "AllowedType",
    "CheckpointError",
    "CheckpointFenced",
    "CheckpointRefused",
    "CheckpointSaver",
    "CheckpointsUnavailable",
    "StrictSerializer",
    "open_checkpoints",
]
