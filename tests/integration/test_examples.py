"""The examples do on scripted models what they say, to the nano-USD."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from decimal import Decimal
from pathlib import Path

import pytest

from bursar.runtime.cli import main
from bursar.runtime.cli.exits import Exit
from tests.support.processes import REPOSITORY, Child

EXAMPLES = REPOSITORY / "examples"

SAID = {
    "support.py": [
        "interrupted: support wants to call refund {'order_id': '1001', 'amount_usd': 42.5}, $0.000176000 so far",
        "succeeded: Order 1001 never arrived, so I have refunded $42.50 to your card. Sorry for the trouble.",
        "3 model calls, 606 tokens, $0.000306000",
    ],
    "two_reviewers.py": [
        "desk wants to call refund: {'order_id': '1001', 'amount_usd': 42.5}",
        "kim: escalation 1 is about kim's own run: two others must agree",
        "dana approves: it is open",
        "lee approves: it is decided",
        "succeeded: Order 1001 never arrived, so I have refunded $42.50 to your card. Sorry for the trouble.",
    ],
    "own_graph.py": [
        "succeeded: Go ahead: a week of work, no second sign-in, and the data stays where it is.",
        "4 model calls, 174 tokens, $0.000150000",
    ],
    "agents_as_tools.py": [
        "succeeded: In short: I compared three sources: they agree on the main point and differ only in detail.",
        "analyst     model  model           50,800 nano-USD",
        "analyst     tool   tool                 0 nano-USD",
        "researcher  model  model           36,800 nano-USD",
        "analyst     model  model           82,800 nano-USD",
        "3 model calls, 1 tool call, $0.000170400",
    ],
    "create_agent.py": [
        "stopped: refused: run RUN has 0 steps left of 5 steps; this call needs at least 1 step. "
        "Nothing was sent. -> bursar runs resume RUN --grant-steps 20",
        "5 model calls, 740 tokens, $0.000398000",
    ],
}
RACE = "two_processes.py"

COMMANDED = {
    "support.py": (Exit.WAITS, "interrupted  $0.000176 "),
    "two_reviewers.py": (Exit.WAITS, "interrupted  $0.0001728 "),
    "own_graph.py": (Exit.OK, "succeeded  $0.00015 "),
    "agents_as_tools.py": (Exit.OK, "succeeded  $0.0001704 "),
    "create_agent.py": (Exit.LIMIT, "stopped  $0.000398 "),
}


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the examples, so that their ledger is new."""
    copy = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("*.db*", "__pycache__"))
    return copy


def test_every_example_is_tested() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == {*SAID, RACE}


@pytest.mark.parametrize("name", SAID)
def test_an_example_ends_costs_and_says_what_is_written_here(
    name: str, examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(examples / name), run_name="__main__")
    said = re.sub(r"run_\w+", "RUN", capsys.readouterr().out)
    assert said.splitlines() == SAID[name]


@pytest.mark.parametrize("name", COMMANDED)
def test_an_example_runs_by_the_command_that_it_names(
    name: str, examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(examples.parent)
    (command,) = re.findall(r"^bursar (run .*)$", (examples / name).read_text(), re.MULTILINE)
    code, summary = COMMANDED[name]
    assert main(shlex.split(command)) == code
    assert summary in capsys.readouterr().out


def test_two_processes_use_up_their_budget_and_never_more(examples: Path) -> None:
    with Child(examples / RACE) as race:
        assert race.wait() == 0, race.stderr
        said = [race.line() for _ in range(4)]
    answered, spent = zip(*(_answered_and_spent(line) for line in said[1:3]), strict=True)
    together = Decimal("0.0009976")
    assert said[3] == f"together ${together} of $0.001"
    assert sum(spent) == together
    assert sum(answered) == 29
    assert min(answered) > 0


def _answered_and_spent(line: str) -> tuple[int, Decimal]:
    _, answered, refused, spent = line.split()
    assert int(answered) + int(refused) == 20
    return int(answered), Decimal(spent.removeprefix("$"))
