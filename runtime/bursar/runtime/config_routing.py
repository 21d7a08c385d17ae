"""Which tier and model answers: the sections of `bursar.yaml` about routing."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from bursar.runtime.config_fields import SECTION, PositiveCount, Text

__all__ = ["AutoConfig", "DowngradeStep", "RatesConfig"]


class AutoConfig(BaseModel):
    """Who chooses for `tier: auto`."""

    model_config = SECTION

    incumbent: Text
    """The tier that answers where there is no evidence for another; one of `tiers`."""

    classifier: Text | None = None
    """A file made by `route train`, relative to this one, or `module:function`; without it the incumbent
    always answers."""

    log: Text | None = None
    """A file, relative to this one, to which the texts of calls of `auto` are appended, to be labelled and trained on;
    without it nothing is kept."""


class DowngradeStep(BaseModel):
    """One step of a tenant's ladder."""

    model_config = SECTION

    below_percent: Annotated[int, Field(ge=1, le=100)]
    """It holds while less than this share of a budget in money is left."""

    tier: Text
    """The highest tier that may be used then; one of `tiers`, which stand from the lowest to the highest."""


class RatesConfig(BaseModel):
    """How much may be asked of the gateway in a minute."""

    model_config = SECTION

    requests_per_minute: PositiveCount | None = None
    """Requests, whatever they come to."""

    tokens_per_minute: PositiveCount | None = None
    """Input and output tokens together; a request counts by its bound until it has ended."""
