"""Small configurations for the tests of bursar.yaml."""

from __future__ import annotations

import pytest

from bursar.budget.errors import ConfigError
from bursar.runtime.config import Config, parse_config

MINIMAL = """\
database: sqlite:///bursar.db
models: {demo: {provider: sim, scenario: support}}
tiers: {small: [demo]}
"""


def model(section: str) -> str:
    """A configuration whose third line is the section of a model `m`."""
    return f"database: sqlite:///bursar.db\nmodels:\n  m: {section}\ntiers: {{small: [m]}}\n"


def parse(text: str) -> Config:
    return parse_config(text, file="bursar.yaml")


def mistakes(text: str) -> list[str]:
    """The lines of the error, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return [line.removeprefix("bursar.yaml:") for line in str(caught.value).splitlines()]
