"""Fixtures for tests of escalations, on both kinds of store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.unit.runtime.escalations.desk import Desk


@pytest.fixture
def desk_of(store_url: str) -> Iterator[Callable[..., Desk]]:
    """Makes desks: each takes the rest of acme's section of the configuration."""
    made: list[Desk] = []

    def make(tenant: str = "", *, empty: bool = True) -> Desk:
        made.append(Desk(store_url, tenant, empty=empty))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def desk(desk_of: Callable[..., Desk]) -> Desk:
    """One without any people or rules."""
    return desk_of()
