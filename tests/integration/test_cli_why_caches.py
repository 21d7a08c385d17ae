"""`bursar budget why`: what the providers' prompt caches saved a run, or cost it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from bursar.budget import Limits
from bursar.budget.testing import PRICE, SUPPORT, a_call, a_quote, reserved
from bursar.budget.usage import Usage
from bursar.runtime.cli.exits import Exit
from bursar.runtime.config import load_config
from bursar.runtime.opening import open_ledger
from tests.unit.runtime.cli_project import Command, command

CACHED = replace(PRICE, id="cached", cache_read_usd_per_mtok=Decimal("0.1"), cache_write_usd_per_mtok=Decimal("1.25"))


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    call = command(capsys)
    assert call("init").code == Exit.OK
    return call


@pytest.mark.parametrize(
    ("usage", "words", "saved"),
    [
        (
            Usage(input_tokens=40, output_tokens=5, cache_read_tokens=30),
            "saved by caches      $0.000027000",
            "0.000027000",
        ),
        (
            Usage(input_tokens=40, output_tokens=5, cache_write_tokens=40),
            "caches cost, so far  $0.000010000",
            "-0.000010000",
        ),
        (Usage(input_tokens=40, output_tokens=5), None, "0.000000000"),
    ],
    ids=["read", "written", "neither"],
)
def test_why_says_what_caches_saved(bursar: Command, usage: Usage, words: str | None, saved: str) -> None:
    ledger, _ = open_ledger(load_config("bursar.yaml"))
    ledger.gates.open(SUPPORT, Limits.unlimited())
    made = reserved(ledger, a_call("run_1:task::0"), a_quote(price=CACHED))
    ledger.settle(made, usage=usage, outcome="exact", reply="hello")
    ledger.close()
    shown = bursar("budget", "why", "run_1").out
    assert words in shown if words else "caches" not in shown
    assert bursar("budget", "why", "run_1", "--json").json["saved_by_caches_usd"] == saved
