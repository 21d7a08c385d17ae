"""Mistakes of whoever calls the command: one line on stderr that says what to do next, and never a traceback."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bursar.budget.stores.store import Store
from bursar.runtime.cli.exits import Exit
from tests.unit.runtime.cli_project import Command, command, make_project

RUN = ("run", "agents.py:support", "Hello", "--tenant", "acme")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command is called."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


@pytest.fixture
def bursar(project: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process."""
    return command(capsys)


MISTAKES = [
    # what was called, the exit code, what the error says, what it tells to do
    (("rnu",), 2, 'Unknown command "rnu". Did you mean "run"?', "bursar --help"),
    (("runs", "lss"), 2, 'Did you mean "ls"?', "bursar runs --help"),
    (("run", "agents.py:support", "Hello"), 2, "--tenant requires an argument", "bursar run --help"),
    (("run", "agents.py:support", "--tenant", "acme"), 2, "TEXT requires an argument", "bursar run --help"),
    ((*RUN, "--cost-limit", "-1"), 2, "is no amount of USD such as 0.25", "bursar run --help"),
    ((*RUN, "--cost-limit", "nan"), 2, "is no amount of USD such as 0.25", "bursar run --help"),
    ((*RUN, "--cost-limit", "inf"), 2, "is no amount of USD such as 0.25", "bursar run --help"),
    ((*RUN, "--cost-limit", "0.0000000001"), 2, "of at most 9 decimals", "bursar run --help"),
    ((*RUN, "--cost-limit", "1e30"), 2, "is no amount of USD such as 0.25", "bursar run --help"),
    ((*RUN, "--cost-limit", "much"), 2, "'much' is no amount of USD", "bursar run --help"),
    ((*RUN, "--steps", "-1"), 2, "'-1' is no whole number", "bursar run --help"),
    ((*RUN, "--steps", "1.5"), 2, "'1.5' is no whole number", "bursar run --help"),
    ((*RUN, "--seconds", "0"), 2, "Must be > 0", "bursar run --help"),
    ((*RUN, "--seconds", "nan"), 2, "--seconds", "bursar run --help"),
    ((*RUN, "--on-limit", "panic"), 2, 'Choose from: "finalize", "escalate", "downgrade", "stop"', "bursar run --help"),
    ((*RUN, "--cost-limt", "1"), 2, "Unknown option: --cost-limt. Did you mean --cost-limit?", "bursar run --help"),
    (("run", "agents.py:support", "Hello", "--tenant", "acmee"), 2, "tenant 'acmee' is not", "under tenants:"),
    (("run", "nothing.py:x", "Hello", "--tenant", "acme"), 2, "there is no Python file 'nothing.py'", "FILE.py:NAME"),
    (("run", "agents.py:suport", "Hello", "--tenant", "acme"), 2, "defines no 'suport'", "agents.py:support"),
    (("run", "agents.py", "Hello", "--tenant", "acme"), 2, "defines 5 agents", "say which: agents.py:support"),
    (("run", "bad.py:a", "Hello", "--tenant", "acme"), 2, "bad.py:1: syntax error", None),
    (("run", "raises.py:a", "Hello", "--tenant", "acme"), 2, "raises.py:2: RuntimeError: no \\x1b[2Jkey", None),
    ((*RUN, "--config", "nope.yaml"), 1, "nope.yaml: there is no configuration here", "bursar init"),
    ((*RUN, "--config", "wrong.yaml"), 1, "wrong.yaml:3:17: tiers.small[0]", None),
    (("runs", "show", "run_1"), 1, "there is no run run_1", "bursar runs ls"),
    (("runs", "tail", "run_1"), 1, "there is no run run_1", "bursar runs ls"),
    (("runs", "cancel", "run_1"), 1, "there is no run run_1", "bursar runs ls"),
    (("runs", "resume", "run_1", "--approve"), 1, "there is no run run_1", "bursar runs ls"),
    (("runs", "ls", "--limit", "0"), 2, "Must be >= 1", "bursar runs ls --help"),
    (("runs", "ls", "--status", "done"), 2, "Choose from", "bursar runs ls --help"),
    (("budget", "why", "run_1"), 1, "no run run_1", "bursar runs ls"),
    (("budget", "set", "acmee", "--usd", "1"), 2, "tenant 'acmee' is not", "under tenants:"),
    (("budget", "set", "acme"), 2, "nothing to set", "bursar budget set acme --usd 5"),
    (("budget", "set", "acme", "--usd", "-1"), 2, "is no amount of USD such as 0.25", "bursar budget set --help"),
    (("budget", "set", "acme", "--usd", "NaN"), 2, "is no amount of USD such as 0.25", "bursar budget set --help"),
    (
        ("budget", "set", "acme", "--usd", "5", "--zone", "Mars"),
        2,
        "zone 'Mars': expected an IANA",
        "bursar budget set --help",
    ),
    (("budget", "set", "acme", "--usd", "5", "--alert", "0"), 2, "from 1 to 1000", "bursar budget set --help"),
    (("budget", "set", "acme", "--steps", "-1"), 2, "'-1' is no whole number", "bursar budget set --help"),
    (("budget", "set", "acme", "--usd", "1", "--zone", "Pariss"), 2, "expected an IANA name", None),
    (("budget", "set", "acme/a/b", "--usd", "1"), 2, "belongs to an organisation, a tenant", "acme, acme/support"),
    (("budget", "grant", "acme"), 2, "needs an amount above zero", "--usd 5"),
    (("budget", "grant", "nobody", "--usd", "1"), 1, "there is no budget for nobody", "bursar budget ls"),
    (("init",), 2, "bursar.yaml would be overwritten", "bursar init OTHER_FOLDER"),
    (("demo", "--keep", "."), 2, "is not empty", "bursar demo --keep NEW_FOLDER"),
    (("price", "ls", "--config", "nope.yaml"), 1, "there is no configuration here", "bursar init"),
]


@pytest.mark.parametrize(("arguments", "code", "says", "advises"), MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_do(
    bursar: Command, project: Path, arguments: tuple[str, ...], code: int, says: str, advises: str | None
) -> None:
    (project / "bad.py").write_text("a = (\n")
    (project / "raises.py").write_text("\nraise RuntimeError('no \\x1b[2Jkey')\n")
    (project / "wrong.yaml").write_text(
        "database: sqlite:///x.db\nmodels: {a: {provider: sim, scenario: echo}}\ntiers: {small: [b]}\n"
    )
    said = bursar(*arguments)
    assert said.code == code, said
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert says in said.err
    assert "Traceback" not in said.err
    if advises is not None:
        assert advises in said.err.partition(" -> ")[2]


def test_every_mistake_of_a_configuration_is_said_at_once(bursar: Command, project: Path) -> None:
    (project / "wrong.yaml").write_text("database: postgres://x\nmodels: {}\ntiers: {small: [a]}\nsurprise: 1\n")
    said = bursar("config", "check", "--config", "wrong.yaml")
    assert said.code == Exit.ERROR
    assert {line.removeprefix("error: ")[:13] for line in said.err.splitlines()} == {
        f"wrong.yaml:{line}:" for line in (1, 2, 3, 4)
    }


@pytest.mark.parametrize("arguments", [("runs", "ls"), ("budget", "set", "acme", "--usd", "1"), RUN])
def test_a_locked_database_is_said_to_be_locked(
    bursar: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    bursar("runs", "ls")
    assert Store.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Store.__init__.__kwdefaults__, "locked_s_max", 0.2)
    with closing(sqlite3.connect("bursar.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = bursar(*arguments)
    assert said.code == Exit.ERROR
    assert "bursar.db is locked by another process; nothing was reserved -> wait for it" in said.err
    assert said.err.count("\n") == 1


def test_a_database_that_is_none_is_said_so(bursar: Command, project: Path) -> None:
    (project / "bursar.db").write_text("these are not the tables you are looking for" * 100)
    for arguments in (("runs", "ls"), RUN, ("db", "upgrade")):
        said = bursar(*arguments)
        assert said.code == Exit.ERROR
        assert "bursar.db is not a Bursar ledger; nothing was reserved -> name another file" in said.err


def test_a_database_of_a_newer_version_is_left_alone(bursar: Command) -> None:
    bursar("runs", "ls")
    with closing(sqlite3.connect("bursar.db")) as store:
        store.execute("UPDATE bursar_version SET version_num = '9999'")
        store.commit()
    for arguments in (("runs", "ls"), RUN):
        said = bursar(*arguments)
        assert said.code == Exit.ERROR
        assert "has version 9999" in said.err
        assert "-> pip install --upgrade bursar" in said.err


def test_a_folder_that_is_missing_is_said_so(bursar: Command, project: Path) -> None:
    text = (project / "bursar.yaml").read_text()
    (project / "bursar.yaml").write_text(text.replace("sqlite:///bursar.db", "sqlite:///no/such/folder/bursar.db"))
    said = bursar("runs", "ls")
    assert said.code == Exit.ERROR
    assert "cannot be opened" in said.err
    assert "check that its folder exists" in said.err


def test_a_bug_shows_its_traceback_and_where_to_report_it(bursar: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("impossible")

    monkeypatch.setattr("bursar.runtime.cli.config.load_config", broken)
    said = bursar("config", "check")
    assert said.code == Exit.ERROR
    assert said.err.startswith("Traceback (most recent call last)")
    assert said.err.splitlines()[-1].startswith("error: this is a bug in Bursar: AssertionError: impossible -> ")
