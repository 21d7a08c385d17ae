"""`bursar route report`: what cascades have come to, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from bursar.runtime.config import load_config
from bursar.runtime.opening import open_ledger
from bursar.runtime.routing.tally import Tally
from bursar.runtime.runs.cascades import Cascades, Which
from tests.unit.runtime.cli_project import Command, command

WHICH = Which(tenant="acme", agent="clerk", node="model", first="small", then="frontier", verifier="judge small")
TALLY = Tally(
    tried=100,
    accepted=90,
    straight=3,
    first_nanousd=1_000_000,
    verify_nanousd=500_000,
    then_nanousd=2_000_000,
    instead_nanousd=9_000_000,
)


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    call = command(capsys)
    assert call("init").code == Exit.OK
    return call


def test_a_report_says_what_was_tried_accepted_spent_and_saved(bursar: Command) -> None:
    assert bursar("route", "report").out == "no cascade has been used yet\n"
    ledger, _ = open_ledger(load_config("bursar.yaml"))
    Cascades(ledger.store).count(WHICH, TALLY)
    ledger.close()
    shown = bursar("route", "report").out
    assert "acme/clerk/model" in shown
    assert "small, then frontier (judge small)" in shown
    assert "90 (83 to 94 %)" in shown
    assert "$0.0075" in shown
    [line] = json.loads(bursar("route", "report", "--tenant", "acme", "--json").out)
    assert (line["accepted_percent_95"], line["saved_usd_estimate"]) == ([82.6, 94.5], "0.007500000")
    assert json.loads(bursar("route", "report", "--tenant", "rival", "--json").out) == []
