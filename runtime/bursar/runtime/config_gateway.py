"""The gateway: the section of `bursar.yaml` about `bursar serve`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from bursar.runtime.config_fields import SECTION, PositiveCount, Text, VariableName

__all__ = ["GatewayConfig"]


class GatewayConfig(BaseModel):
    """Where and how `bursar serve` answers."""

    model_config = SECTION

    host: Text = "127.0.0.1"
    """The address that it listens at; `0.0.0.0` for every one of the machine's."""

    port: Annotated[int, Field(ge=0, le=65_535)] = 4141
    """The port that it listens at; 0 takes a free one."""

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """How many processes answer."""

    key_secret_env: VariableName | None = None
    """The environment variable that holds the secret under which keys are hashed; without it a file beside the SQLite
    database, readable by its owner alone, which `key create` makes."""

    body_bytes_max: PositiveCount = 20_000_000
    """The largest request body that is read."""
