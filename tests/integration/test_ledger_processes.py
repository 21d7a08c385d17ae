"""Several processes on one ledger: what they spend together, what is left when they are killed, what they say."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bursar.budget import Amounts, Ledger
from bursar.budget.reports.report import Attempt
from bursar.budget.testing import NANO_PER_TOKEN, audit
from tests.support.processes import Child

RUNS = ("run_0", "run_1", "run_2", "run_3")
KILLS = int(os.environ.get("BURSAR_KILLS", "8"))


@pytest.fixture
def ledger(store_url: str) -> Iterator[Ledger]:
    """A ledger that lives in real time, on each kind of store in turn."""
    ledger = Ledger.open(store_url)
    yield ledger
    audit(ledger.store)
    ledger.close()


class Crew:
    """A process for each run, all set going at the same moment, and all that they said."""

    def __init__(self, ledger: Ledger, folder: Path, runs: Sequence[str], *, calls: int) -> None:
        go = folder / "go"
        self.child = Child("-m", "tests.support.ledger_worker", ledger.store.url, str(calls), go, *runs)
        self.runs = runs
        self.lines: list[list[str]] = []
        self.pids: dict[str, int] = {}
        for _ in runs:
            self.listen()
        go.touch()

    def listen(self) -> str:
        """Wait for the next line; its first word."""
        line = self.child.line().split()
        self.lines.append(line)
        if line[0] == "start":
            self.pids[line[1]] = int(line[2])
        return line[0]

    @property
    def at_work(self) -> list[str]:
        done = {line[1] for line in self.lines if line[0] == "done"}
        return [run for run in self.runs if run not in done]

    def kill(self, run: str) -> None:
        """Kill a run's worker wherever it is; nothing happens where it has ended, or was not started again yet."""
        if run in self.at_work and (pid := self.pids.pop(run, None)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def finish(self) -> None:
        while self.at_work:
            self.listen()
        assert self.child.wait() == 0, self.child.stderr

    def said(self, word: str) -> list[list[str]]:
        return [line[1:] for line in self.lines if line[0] == word]

    def billed(self) -> Amounts:
        """The true bill."""
        tokens = [int(line[3]) for line in self.said("billed")]
        return Amounts(sum(tokens) * NANO_PER_TOKEN, sum(tokens), len(tokens))


def of_acme(ledger: Ledger) -> tuple[Amounts, Amounts]:
    (line,) = ledger.budgets.ls("acme")
    return line.posted, line.held


# --- Together ---------------------------------------------------------------------------------------------------------


def test_processes_together_get_exactly_the_calls_that_the_budget_is_worth(ledger: Ledger, tmp_path: Path) -> None:
    ledger.budgets.set("acme", limit={"steps": 10}, author="dana")
    crew = Crew(ledger, tmp_path, RUNS, calls=50)
    with crew.child:
        crew.finish()
    assert len(crew.said("billed")) == 10
    assert len(crew.said("refused")) == 190
    assert of_acme(ledger) == (crew.billed(), Amounts())


def test_processes_together_use_a_budget_up_and_no_more(ledger: Ledger, tmp_path: Path) -> None:
    ledger.budgets.set("acme", limit={"nanousd": 1_000 * NANO_PER_TOKEN}, author="dana")
    crew = Crew(ledger, tmp_path, RUNS, calls=50)
    with crew.child:
        crew.finish()
    assert 900 < crew.billed().tokens <= 1_000
    assert of_acme(ledger) == (crew.billed(), Amounts())


def test_a_limit_lowered_in_one_process_holds_for_the_next_call_of_another(ledger: Ledger, tmp_path: Path) -> None:
    ledger.budgets.set("acme", limit={"steps": 10_000}, author="dana")
    crew = Crew(ledger, tmp_path, RUNS[:1], calls=10_000)
    with crew.child:
        while len(crew.said("billed")) < 5:
            crew.listen()
        line = ledger.budgets.set("acme", limit={"steps": 0}, author="dana")
        while not crew.said("refused"):
            crew.listen()
    assert crew.said("refused") == [["run_0", "limit", "acme"]]
    assert of_acme(ledger) == (crew.billed(), Amounts())
    assert crew.billed().steps == line.posted.steps + line.held.steps < 10_000


# --- Killed -----------------------------------------------------------------------------------------------------------


def test_whenever_processes_are_killed_the_ledger_knows_what_was_billed(ledger: Ledger, tmp_path: Path) -> None:
    rng = random.Random(KILLS)
    ledger.budgets.set("acme", limit={"tokens": 100 * 20 * KILLS}, author="dana")
    crew = Crew(ledger, tmp_path, RUNS, calls=10 * KILLS)
    with crew.child:
        for _ in range(KILLS):
            for _ in range(rng.randrange(1, 30)):
                if crew.at_work:
                    crew.listen()
            crew.kill(rng.choice(RUNS))
        crew.finish()
    assert len(crew.said("start")) > len(RUNS), "nobody was killed"
    Ledger(ledger.store, clock=lambda: datetime.now(UTC) + timedelta(hours=1)).reap()
    posted, held = of_acme(ledger)
    assert held == Amounts(), "a hold was leaked"
    attempts = {run: ledger.reports.bill(run).attempts for run in RUNS}
    for run in RUNS:
        agrees(attempts[run], {(call, int(n)): int(tokens) for of, call, n, tokens in crew.said("billed") if of == run})
    unknown = [one.posted for found in attempts.values() for one in found if one.outcome == "unknown"]
    assert crew.billed().tokens <= posted.tokens <= crew.billed().tokens + sum(one.tokens for one in unknown)
    assert posted.tokens <= 100 * 20 * KILLS


def agrees(attempts: Sequence[Attempt], billed: dict[tuple[str, int], int]) -> None:
    """Every bill is known to the ledger, exactly or as unknown, and no call that was settled was sent again."""
    kept = {(one.call, one.attempt): one for one in attempts}
    assert billed.keys() <= kept.keys()
    for key, one in kept.items():
        if one.outcome == "exact":
            assert one.posted.tokens == billed[key]
        elif one.outcome == "unknown":
            assert one.posted.tokens == one.held.tokens >= billed.get(key, 0)
        else:
            assert (one.state, one.posted) == ("released", Amounts())
            assert key not in billed, "a call that was sent was given back"
    exact = Counter(one.call for one in attempts if one.outcome == "exact")
    assert not exact or max(exact.values()) == 1, "a call was paid twice"


# --- Started at once, and stores that cannot be used ------------------------------------------------------------------


def test_processes_that_start_at_once_on_a_new_file_make_its_tables_once(tmp_path: Path) -> None:
    code = f"""if True:
        import os, sys, time
        import alembic.command, bursar.budget.ledger
        start = time.monotonic() + 0.05
        for _ in range(6):
            if os.fork() == 0:
                while time.monotonic() < start:
                    pass
                bursar.budget.ledger.Ledger.open("sqlite:///{tmp_path}/new.db").close()
                sys.exit()
        print([os.wait()[1] for _ in range(6)])
    """
    with Child("-c", code) as child:
        assert child.line() == "[0, 0, 0, 0, 0, 0]", child.stderr
    ledger = Ledger.open(f"sqlite:///{tmp_path}/new.db")
    assert ledger.budgets.ls() == []
    ledger.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, as pytest's own cannot be."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_store_that_may_not_be_written_is_said_so(open_folder: Path) -> None:
    modes = {"file": (0o444, 0o777), "file and folder": (0o444, 0o555), "unreadable": (0o000, 0o777)}
    for name, (file, folder) in modes.items():
        home = open_folder / name
        home.mkdir()
        Ledger.open(f"sqlite:///{home}/ledger.db").close()
        (home / "ledger.db").chmod(file)
        home.chmod(folder)
    code = f"""if True:
        import os
        import bursar.budget.ledger, bursar.budget.stores.sqlite
        from bursar.budget.errors import LedgerUnavailable
        if os.geteuid() == 0:
            os.setgid(65534), os.setuid(65534)
        for name in {list(modes)!r}:
            try:
                ledger = bursar.budget.ledger.Ledger.open(f"sqlite:///{open_folder}/{{name}}/ledger.db")
                ledger.budgets.set("acme", limit={{}}, author="eve")
            except LedgerUnavailable as error:
                print(error)
    """
    with Child("-c", code) as child:
        said = [child.line() for _ in modes]
    for line, words in zip(said, ("is read-only", "is read-only", "cannot be opened"), strict=True):
        assert f"ledger.db {words}; nothing was reserved -> " in line
