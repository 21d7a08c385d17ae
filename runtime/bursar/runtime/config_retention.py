"""Retention in `bursar.yaml`: how long the checkpoints of a tenant's runs are kept."""

from __future__ import annotations

from pydantic import BaseModel

from bursar.runtime.config_escalations import Span
from bursar.runtime.config_fields import SECTION

__all__ = ["RetentionConfig"]


class RetentionConfig(BaseModel):
    """How long the checkpoints of a tenant's runs are kept; what the ledger says of the runs stays."""

    model_config = SECTION

    checkpoints: Span | None = None
    """How long after a run's end its checkpoints are kept, such as `30d`. From then on it can neither be resumed nor
    forked. Without it they are kept for ever."""

    history: Span | None = None
    """How long after a run's last change its earlier checkpoints are kept, such as `1d`, while it waits or after its
    end. From then on only the last one is left: the run can go on, but be forked nowhere else. Without it they are
    kept as long as the last one."""

    @property
    def says_something(self) -> bool:
        """Whether anything is ever deleted."""
        return self.checkpoints is not None or self.history is not None
