"""Runs that are left to a worker, as a person and as a program use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from tests.support.processes import Child
from tests.unit.runtime.cli_project import Command, command, make_project, run_id

DETACHED = ("run", "agents.py:support", "Hello, my parcel is late.", "--tenant", "acme", "--detach")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command is called."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


@pytest.fixture
def bursar(project: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process."""
    return command(capsys)


def test_a_detached_run_is_queued_and_a_worker_executes_it(bursar: Command, project: Path) -> None:
    """It says how to go on, and the worker what it does."""
    said = bursar(*DETACHED)
    assert said.code == Exit.OK
    assert said.out.startswith("queued  $0.00  0 tokens  0 steps  run_")
    assert [" ".join(line) for line in said.nexts] == ["worker", f"runs tail {run_id(said)}"]
    assert run_id(said) in bursar("runs", "ls", "--status", "queued").out

    worked = bursar("worker", "--once")
    assert worked.code == Exit.OK
    first, began, ended = worked.out.splitlines()
    assert first.startswith("worker ")
    assert first.endswith("16 runs at once; Ctrl-C ends it")
    assert run_id(said) in began
    assert "succeeded" in ended
    assert run_id(said) in ended
    shown = bursar("runs", "show", run_id(said), "--json").json
    assert [one["status"] for one in shown["history"]] == ["queued", "running", "succeeded"]


def test_a_detached_run_is_json_for_programs(bursar: Command) -> None:
    said = bursar(*DETACHED, "--json")
    assert said.json["status"] == "queued"
    bursar("worker", "--once")
    told = [json.loads(line) for line in bursar("runs", "tail", said.json["id"], "--json").out.splitlines()]
    assert [one["status"] for one in told if one["kind"] == "status"] == ["queued", "running", "succeeded"]


def test_a_run_has_to_end_by_its_deadline(bursar: Command) -> None:
    said = bursar(*DETACHED, "--deadline", "2h")
    assert said.code == Exit.OK
    said = bursar(*DETACHED, "--deadline", "2020-01-01")
    assert said.code == Exit.USAGE
    assert "expected a time to come" in said.err


def test_a_tail_that_follows_lasts_until_somebody_decides(bursar: Command, project: Path) -> None:
    """Without it, it ends where the run waits for a person."""
    said = bursar("run", "agents.py:support", "Refund order 1001, it never came.", "--tenant", "acme")
    assert said.code == Exit.WAITS
    assert bursar("runs", "tail", run_id(said)).code == Exit.WAITS
    with Child(
        "-m", "bursar.runtime.cli", "runs", "tail", run_id(said), "--follow", "--config", project / "bursar.yaml"
    ) as tail:
        tail.wait_for("interrupted", timeout_s=60)
        assert bursar("runs", "resume", run_id(said), "--approve").code == Exit.OK
        tail.wait_for("succeeded", timeout_s=60)
        assert tail.wait(timeout_s=30) == Exit.OK
