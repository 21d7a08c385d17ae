"""Any schedule of runs, crashes, decisions and deadlines keeps every promise: see `tests.support.run_machine`.

Thirty in any test run; `BURSAR_SCHEDULES=nightly` tries thousands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from bursar.budget import Store
from bursar.runtime.config import load_config
from bursar.runtime.opening import open_ledger
from tests.support.postgres import Postgres
from tests.support.run_machine import CONFIG, RunMachine
from tests.support.run_world import mortal

NIGHTLY = os.environ.get("BURSAR_SCHEDULES") == "nightly"

pytestmark = pytest.mark.timeout(300)

STEPS = 15


@pytest.fixture
def folder() -> Iterator[Path]:
    memory = Path("/dev/shm")  # where there is one: no schedule outlives a power loss
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def _config(folder: Path, database: str) -> Path:
    scenario, file = folder / "scenario.yaml", folder / "bursar.yaml"
    scenario.write_text("function: tests.support.run_machine:answers\n")
    file.write_text(CONFIG.format(database=database, scenario=scenario))
    return file


def try_schedules(machine: type[RunMachine], number: int, schedules: int) -> None:
    with mortal():
        run_state_machine_as_test(
            seed(number)(machine),
            settings=settings(
                max_examples=schedules,
                stateful_step_count=STEPS,
                deadline=None,
                phases=[Phase.generate],  # to shrink a schedule would take many minutes
                suppress_health_check=list(HealthCheck),
            ),
        )


@pytest.mark.parametrize("number", range(300 if NIGHTLY else 3))
def test_any_schedule_on_sqlite(folder: Path, number: int) -> None:
    config = _config(folder, "sqlite:///bursar.db")
    open_ledger(load_config(config))[0].close()
    empty = {file.name: file.read_bytes() for file in folder.iterdir()}

    class Machine(RunMachine):
        def __init__(self) -> None:
            for file in folder.iterdir():
                file.unlink()
            for name, content in empty.items():
                (folder / name).write_bytes(content)
            self.config = config
            self.store = Store(f"sqlite:///{folder}/bursar.db")
            super().__init__()

        def teardown(self) -> None:
            with closing(self.store):
                super().teardown()

    try_schedules(Machine, number, 10)


@pytest.mark.parametrize("number", range(1_000, 1_010 if NIGHTLY else 1_001))
def test_any_schedule_on_postgresql(folder: Path, postgres: Postgres, number: int) -> None:
    with postgres.database() as template:
        config = _config(folder, postgres.url(template))
        open_ledger(load_config(config))[0].close()

        class Machine(RunMachine):
            def __init__(self) -> None:
                self.stack = ExitStack()
                url = postgres.url(self.stack.enter_context(postgres.database(template=template)))
                self.config = _config(folder, url)
                self.store = self.stack.enter_context(closing(Store(url)))
                super().__init__()

            def teardown(self) -> None:
                with self.stack:
                    super().teardown()

        try_schedules(Machine, number, 50 if NIGHTLY else 3)
