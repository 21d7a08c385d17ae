"""The commands that change a run under way, and that go on from an earlier state of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from tests.unit.runtime.cli_project import Command, command, make_project, run_id


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path)
    return command(capsys)


def test_a_limit_is_raised_and_the_run_goes_on(bursar: Command) -> None:
    run = run_id(bursar("run", "agents.py:runaway", "Find it.", "--tenant", "acme", "--on-limit", "stop"))
    tried = bursar("runs", "retune", run, "--steps", "10", "--usd", "none", "--dry-run")
    assert f"would change {run}: " in tried.out
    assert "steps 8 -> 10" in tried.out
    said = bursar("runs", "retune", run, "--steps", "10", "--by", "dana", "--note", "nearly there", "--json")
    assert said.json["limits"]["before"]["steps"] == 8  # the dry run has changed nothing
    assert said.json["limits"]["after"] == said.json["limits"]["before"] | {"steps": 10}
    resumed = bursar("runs", "resume", run, "--json")
    assert (resumed.code, resumed.json["steps"]) == (Exit.LIMIT, 10)
    shown = bursar("runs", "show", run, "--json").json
    assert ("steps 8 -> 10 (nearly there)", "dana") in [(one["cause"], one["by"]) for one in shown["history"]]
    assert "retune" in bursar("budget", "history").out


def test_a_run_that_waits_for_a_worker_is_paused_and_let_go_on(bursar: Command) -> None:
    run = run_id(bursar("run", "agents.py:support", "Hello, my parcel is late.", "--tenant", "acme", "--detach"))
    paused = bursar("runs", "retune", run, "--pause", "--by", "dana").out
    assert "paused" in paused
    assert f"-> bursar runs retune {run} --resume" in paused, "a mere resume would not let it go on"
    assert bursar("runs", "show", run, "--json").json["stop_reason"] == "paused by dana"
    bursar("worker", "--once")
    assert bursar("runs", "show", run, "--json").json["status"] == "interrupted"
    assert bursar("runs", "retune", run, "--resume", "--json").json["status"] == "queued"
    bursar("worker", "--once")
    assert bursar("runs", "show", run, "--json").json["status"] == "succeeded"


def test_a_fork_goes_on_from_a_checkpoint_that_is_listed(bursar: Command) -> None:
    run = run_id(bursar("run", "agents.py:support", "Refund order 1001, it never came.", "--tenant", "acme"))
    listed = bursar("runs", "checkpoints", run, "--json").json
    first = next(one for one in reversed(listed) if one["next"] == ["model"])
    assert first["id"] in bursar("runs", "checkpoints", run).out
    assert f"at checkpoint {first['id']}, before model" in (
        bursar("runs", "fork", run, "--checkpoint", first["id"], "--dry-run").out
    )
    fork = bursar("runs", "fork", run, "--checkpoint", first["id"], "--steps", "1", "--on-limit", "stop", "--json").json
    assert (fork["status"], fork["forked_from"]) == ("queued", run)
    bursar("worker", "--once")
    ended = bursar("runs", "show", fork["id"], "--json").json
    assert (ended["status"], ended["steps"]) == ("stopped", 1)


@pytest.mark.parametrize(
    ("mistake", "why"),
    [
        (("retune", "RUN"), "nothing to change"),
        (("retune", "RUN", "--pause", "--resume"), "expected one of them"),
        (("retune", "run_0", "--pause"), "there is no run run_0"),
        (("fork", "RUN", "--tier", "huge"), "tier 'huge'"),
        (("fork", "RUN", "--checkpoint", "1f"), "has no checkpoint 1f"),
        (("checkpoints", "run_0"), "there is no run run_0"),
    ],
)
def test_what_cannot_be_is_said(mistake: tuple[str, ...], why: str, bursar: Command) -> None:
    run = run_id(bursar("run", "agents.py:support", "Refund order 1001, it never came.", "--tenant", "acme"))
    said = bursar("runs", *(run if part == "RUN" else part for part in mistake))
    assert said.code != Exit.OK
    assert why in said.err


def test_a_run_without_checkpoints_offers_no_fork(bursar: Command) -> None:
    run = run_id(bursar("run", "agents.py:support", "Refund order 1001.", "--tenant", "acme", "--detach"))
    said = bursar("runs", "checkpoints", run).out
    assert "no checkpoint yet" in said
    assert "fork --checkpoint" not in said
