"""The audit by command: what was tampered with is found, balances are made anew, history tells, old entries roll up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from bursar.runtime.cli.exits import Exit
from tests.unit.runtime.cli_project import Command, command, make_project

RUN = ("run", "agents.py:support", "Hello, my parcel is late.", "--tenant", "acme")
KEY = "a secret of at least thirty-two bytes"


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in a folder in which a run was made and a limit was changed."""
    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("BURSAR_SIGNING_KEY", raising=False)
    bursar = command(capsys)
    assert bursar(*RUN).code == Exit.OK
    assert bursar("budget", "set", "acme", "--steps", "9", "--per", "day", "--by", "dana", "--reason", "a try").out
    return bursar


def tamper(statement: str) -> None:
    engine = create_engine("sqlite:///bursar.db")
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_an_honest_ledger_is_verified_and_its_heads_are_printed(bursar: Command) -> None:
    said = bursar("budget", "verify", "--json")
    assert said.code == Exit.OK
    assert said.json["findings"] == []
    (head,) = [head for head in said.json["heads"] if head.startswith("acme:")]
    assert bursar("budget", "verify", "--head", head).code == Exit.OK
    assert "all as it was written" in bursar("budget", "verify").out


def test_what_was_tampered_with_is_a_row_of_a_table_and_exit_code_1(bursar: Command) -> None:
    tamper("UPDATE entry SET note = 'never' WHERE chain = 'acme' AND number = 2")
    said = bursar("budget", "verify")
    assert said.code == Exit.ERROR
    assert "acme" in said.out
    assert "entry 2" in said.out
    assert bursar("budget", "verify", "--rebuild").code == Exit.ERROR


def test_a_balance_is_made_anew_only_when_it_is_asked_for(bursar: Command) -> None:
    tamper("UPDATE account SET posted_nanousd = 77 WHERE id = 1")
    assert "--rebuild" in bursar("budget", "verify").out
    assert "would be made anew" in bursar("budget", "verify", "--rebuild", "--dry-run").out
    assert bursar("budget", "verify").code == Exit.ERROR
    assert bursar("budget", "verify", "--rebuild", "--by", "ada").code == Exit.OK
    assert bursar("budget", "verify").code == Exit.OK
    assert "rebuild" in bursar("budget", "history", "--author", "ada").out


def test_history_says_who_changed_what_and_why(bursar: Command) -> None:
    (change,) = bursar("budget", "history", "acme", "--author", "dana", "--json").json
    assert (change["kind"], change["path"], change["per"], change["note"]) == ("limit", "acme", "day", "a try")
    assert change["amount"]["steps"] == 9
    assert "a try" in bursar("budget", "history").out
    assert bursar("budget", "history", "--since", "2099-01-01").out == "no changes\n"


def test_old_entries_are_rolled_up_with_a_key_and_the_ledger_is_still_verified(
    bursar: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = bursar("budget", "compact", "--older-than", "0d")
    assert refused.code == Exit.USAGE
    assert "BURSAR_SIGNING_KEY" in refused.err
    monkeypatch.setenv("BURSAR_SIGNING_KEY", KEY)
    # What is rolled up counts at noon of its day, which may not have come yet.
    whole_days = ("budget", "report", "--until", f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}", "--json")
    report = bursar(*whole_days).json
    assert "nothing was changed" in bursar("budget", "compact", "--older-than", "0d", "--dry-run").out
    done = bursar("budget", "compact", "--older-than", "0d", "--json").json
    assert done["entries"] > 5
    assert done["runs_closed"] == 1
    assert bursar("budget", "verify").code == Exit.OK
    after = bursar(*whole_days).json
    assert {**after, "since": report["since"], "until": report["until"]} == report
    assert "a try" in bursar("budget", "history").out


def test_a_ledger_that_was_tampered_with_is_not_rolled_up(bursar: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSAR_SIGNING_KEY", KEY)
    tamper("UPDATE account SET posted_nanousd = 77 WHERE id = 1")
    said = bursar("budget", "compact", "--older-than", "0d")
    assert said.code == Exit.ERROR
    assert "nothing was rolled up" in said.err


def test_a_pipe_gets_no_empty_line_for_a_bar_that_was_not_shown(bursar: Command) -> None:
    assert bursar("budget", "verify").err == ""
