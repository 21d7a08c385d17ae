"""What a run does when the ledger's store is away, in `bursar.yaml`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from bursar.runtime.config_fields import SECTION, Count, PositiveCount, Seconds, Usd

__all__ = ["LeaseConfig", "LedgerConfig"]


class LeaseConfig(BaseModel):
    """What a run holds in advance under `when_unreachable: lease`. What does not fit into its budgets is not taken."""

    model_config = SECTION

    usd: Usd = Decimal("0.10")
    """Dollars."""

    tokens: Count = 20_000
    """Input and output tokens together."""

    steps: PositiveCount = 10
    """Model calls."""

    tool_calls: Count = 20
    """Tool executions."""

    seconds: Annotated[Seconds, Field(ge=10, le=3600)] = 60
    """How long a run may go on within it without the ledger."""


class LedgerConfig(BaseModel):
    """How runs bear it that the ledger's store is away."""

    model_config = SECTION

    when_unreachable: Literal["refuse", "lease"] = "refuse"
    """`refuse`: nothing is sent, and runs wait for the ledger. `lease`: each run holds a part of what it may spend in
    advance, and goes on within it."""

    wait_s: Annotated[Seconds, Field(le=3600)] = 60
    """How many seconds a run waits for the ledger before it is interrupted."""

    lease: LeaseConfig = Field(default_factory=LeaseConfig)
    """What a run holds in advance."""
