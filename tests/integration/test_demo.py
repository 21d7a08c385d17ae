"""The demo: offline, quick, true to its ledger, and every command that it prints works as printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bursar.runtime.cli import main
from bursar.runtime.cli.exits import Exit
from bursar.runtime.demo.story import SECONDS_PER_CALL, WEEKEND_HOURS

BURSAR = Path(sys.executable).with_name("bursar")

COLD_S_MAX = 15


@dataclass(frozen=True, slots=True)
class Told:
    """What the demo printed, where it played, and how long it took."""

    text: str
    folder: Path
    seconds: float

    def bursar(self, *arguments: str) -> Any:
        """What a command says of the demo's folder, as JSON."""
        done = subprocess.run(
            [BURSAR, *arguments, "--json"], cwd=self.folder, capture_output=True, text=True, check=True, timeout=60
        )
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The demo, played once in a process of its own without keys."""
    folder = tmp_path_factory.mktemp("demo") / "kept"
    began = time.perf_counter()
    done = subprocess.run(
        [BURSAR, "demo", "--keep", folder], capture_output=True, text=True, timeout=60, env={"HOME": "/nowhere"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return Told(done.stdout, folder, time.perf_counter() - began)


def test_the_demo_is_over_within_fifteen_seconds(told: Told) -> None:
    assert told.seconds < COLD_S_MAX


def test_the_demo_touches_no_network(tmp_path: Path, no_network: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--keep", str(tmp_path / "kept")]) == Exit.OK
    assert no_network == []
    assert "Try next" in capsys.readouterr().out


def test_four_runs_end_in_four_ways(told: Told) -> None:
    runs = {(run["agent"], run["status"]): run for run in told.bursar("runs", "ls")}
    assert sorted(runs) == [
        ("analyst", "stopped"),
        ("analyst", "succeeded"),
        ("crawler", "stopped"),
        ("desk", "succeeded"),
    ]
    crawler, refused = runs["crawler", "stopped"], runs["analyst", "stopped"]
    assert "refused: run " in crawler["stop_reason"]
    assert Decimal("0.1") < Decimal(crawler["cost_usd"]) <= Decimal("0.25")
    assert crawler["output"], "it gave its last answer from what was kept back"
    assert "refused: tenant globex has $" in refused["stop_reason"]
    assert refused["steps"] == 0, "nothing was sent"
    history = told.bursar("runs", "show", runs["desk", "succeeded"]["id"])["history"]
    assert [event["status"] for event in history] == ["running", "interrupted", "queued", "running", "succeeded"]
    (decided,) = told.bursar("inbox", "ls", "--status", "decided")
    assert (decided["decided_by"], decided["amount_usd"]) == ("dana", "42.500000000")
    assert "kim may decide on $20.00 at most, and this is about $42.50; dana may" in " ".join(told.text.split())


def test_the_table_is_the_ledgers(told: Told) -> None:
    rows = re.findall(r"^(acme|globex) +(\d+) +(\d+) +([\d,]+) +\$([\d.]+) +\$([\d.]+) +\$([\d.]+)", told.text, re.M)
    assert [row[0] for row in rows] == ["acme", "globex"]
    for tenant, count, calls, tokens, cost, limit, left in rows:
        runs = told.bursar("runs", "ls", "--tenant", tenant)
        assert int(count) == len(runs) == 2
        assert int(calls) == sum(run["steps"] for run in runs)
        assert int(tokens.replace(",", "")) == sum(run["tokens"] for run in runs)
        assert Decimal(cost) == sum(Decimal(run["cost_usd"]) for run in runs)
        assert 0 <= Decimal(limit) - Decimal(cost) - Decimal(left) < Decimal("0.01")


def test_the_weekend_is_computed_from_what_was_measured_and_says_what_it_assumes(told: Told) -> None:
    [crawler] = [run for run in told.bursar("runs", "ls") if run["agent"] == "crawler"]
    calls = WEEKEND_HOURS * 3600 // SECONDS_PER_CALL
    cost = calls * Decimal(crawler["cost_usd"]) / crawler["steps"]
    said = " ".join(told.text.split())
    assert f"Unlimited it would have cost ${cost:,.0f} from Friday 18:00 to Monday 8:00" in said
    assert f"{calls:,} calls, assuming one every {SECONDS_PER_CALL} s" in said
    assert cost > 1000


def test_it_fits_into_eighty_columns_of_plain_text(told: Told) -> None:
    before = told.text.partition("Try next")[0]
    assert max(len(line.rstrip()) for line in before.splitlines()) <= 80
    assert "\x1b" not in told.text
    assert "Traceback" not in told.text


def test_the_folder_is_kept_and_said(told: Told) -> None:
    assert f"cd {told.folder}\n" in told.text
    assert {file.name for file in told.folder.iterdir()} >= {"bursar.yaml", "agents.py", "script.yaml", "bursar.db"}


def test_json_says_the_same_as_the_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--keep", str(tmp_path), "--json"]) == Exit.OK
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(tmp_path)
    assert [run["status"] for run in said["runs"]] == ["succeeded", "succeeded", "stopped", "stopped"]
    assert {line["path"] for line in said["tenants"]} == {"acme", "globex"}


def test_the_commands_it_prints_work_as_printed_and_the_refused_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["demo", "--keep", str(tmp_path)])
    script = capsys.readouterr().out.partition("Try next\n")[2]
    commands = [line.strip() for line in script.splitlines() if not line.strip().startswith("#")]
    assert len(commands) == 5, "a cd, and four to try"
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "cost of the run " in done.stdout
    assert "succeeded" in done.stdout.splitlines()[-2]
