"""The stores that every test of checkpoints runs on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def checkpoints_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a store without any checkpoints, on each kind of store in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'checkpoints.db'}"
        return
    server = request.getfixturevalue("postgres")
    with server.database() as name:
        yield server.url(name)
