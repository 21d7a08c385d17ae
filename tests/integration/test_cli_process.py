"""The command as a process: Ctrl-C, terminals, pipes, and what a locked store does to it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from tests.unit.runtime.cli_project import Command, command, make_project

BURSAR = Path(sys.executable).with_name("bursar")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command is called."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


@pytest.fixture
def bursar(project: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process."""
    return command(capsys)


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BURSAR, *arguments], capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def on_a_terminal(*arguments: str, until: Callable[[str], bool] = lambda _: False) -> tuple[int, str]:
    """The exit code and all that the command wrote to a terminal; it is interrupted once `until` holds."""
    terminal, end = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests in a shell's background ignore it
    process = subprocess.Popen([BURSAR, *arguments], stdin=end, stdout=end, stderr=end, env=env, preexec_fn=heed)
    os.close(end)
    seen, interrupted = "", False
    with suppress(OSError):  # the terminal is gone once the process is
        while chunk := os.read(terminal, 65536):
            seen += chunk.decode(errors="replace")
            if not interrupted and until(seen):
                process.send_signal(signal.SIGINT)
                interrupted = True
    os.close(terminal)
    return process.wait(60), seen


def test_the_installed_command_runs_and_its_exit_code_is_the_runs(project: Path) -> None:
    done = run("run", "agents.py:support", "Refund order 1001, it never came.", "--tenant", "acme", "--json")
    assert done.returncode == Exit.WAITS
    assert json.loads(done.stdout)["status"] == "interrupted"
    assert done.stderr == "looking for 1001\n"


def test_a_terminal_shows_step_tier_model_and_spent_of_limit_and_then_the_answer(project: Path) -> None:
    code, seen = on_a_terminal("run", "agents.py:slow", "Find it.", "--tenant", "acme", "--steps", "3")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert code == Exit.LIMIT
    assert "opening" in plain
    assert re.search(r"step 2 of 3  \$0\.0\d+ of \$1\.00  slow/slow  asking the model", plain)
    assert re.search(r"^stopped  \$0\.0\d+  [\d,]+ tokens  3 steps  run_\w+\r$", plain, re.MULTILINE)
    assert "\x1b[33mstopped\x1b[0m" in seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h")  # the cursor that was hidden is there again


def test_without_a_terminal_there_is_no_colour_and_no_progress(project: Path) -> None:
    done = run("run", "agents.py:runaway", "Find it.", "--tenant", "acme", "--steps", "3")
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == ""
    # What has to be copied is never wrapped.
    assert re.search(r"^refused: .*Nothing was sent\.$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("at", ["step 2", "asking the model"])
def test_ctrl_c_settles_the_run_and_says_how_to_resume_it(bursar: Command, at: str) -> None:
    code, seen = on_a_terminal(
        *("run", "agents.py:slow", "Find it.", "--tenant", "acme", "--steps", "4", "--on-limit", "stop"),
        until=lambda seen: at in seen,
    )
    assert code == Exit.BROKEN_OFF
    found = re.search(r"broken off; run (run_\w+) is settled -> (bursar runs resume run_\w+)", seen.replace("\r\n", ""))
    assert found, seen
    broken = bursar("runs", "show", found[1], "--json").json
    assert broken["status"] == "interrupted"
    bill = bursar("budget", "why", found[1], "--json").json
    assert bill["held"]["steps"] == 0
    assert {attempt["state"] for attempt in bill["attempts"]} <= {"settled", "released"}

    assert bursar("runs", "resume", found[1]).code == Exit.LIMIT
    settled = [attempt["reserved_at"] for attempt in bill["attempts"]]
    after = bursar("budget", "why", found[1], "--json").json["attempts"]
    assert [attempt["reserved_at"] for attempt in after][: len(settled)] == settled


def test_a_reader_that_goes_away_is_no_error(project: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{BURSAR} config schema | head -1"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr
