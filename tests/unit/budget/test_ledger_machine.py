"""Any schedule of calls, slices, limits, grants, clocks and crashes, against a plain model of what must come of it.

Five hundred of them, each with its seed, in any test run; `BURSAR_SCHEDULES=nightly` tries ten thousand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from bursar.budget import Store
from tests.support.ledger import new_store
from tests.support.ledger_machine import LedgerMachine

SCHEDULES = 50
"""With one seed."""

NIGHTLY = os.environ.get("BURSAR_SCHEDULES") == "nightly"


@pytest.fixture
def sqlite() -> Iterator[Store]:
    memory = Path("/dev/shm")  # where there is one: no schedule outlives a power loss
    folder = TemporaryDirectory(dir=memory if memory.is_dir() else None)
    with folder as name, closing(new_store(Path(name))) as store:
        yield store


@pytest.fixture
def postgresql(postgres: object) -> Iterator[Store]:
    with postgres.migrated() as url, closing(Store(url)) as store:  # type: ignore[attr-defined]
        yield store


def try_schedules(store: Store, number: int, schedules: int) -> None:
    machine = seed(number)(type("Machine", (LedgerMachine,), {"store": store}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=schedules,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.parametrize("number", range(200 if NIGHTLY else 10))
def test_any_schedule_on_sqlite(sqlite: Store, number: int) -> None:
    try_schedules(sqlite, number, SCHEDULES)


@pytest.mark.parametrize("number", range(1_000, 1_020 if NIGHTLY else 1_001))
def test_any_schedule_on_postgresql(postgresql: Store, number: int) -> None:
    try_schedules(postgresql, number, SCHEDULES if NIGHTLY else 25)
