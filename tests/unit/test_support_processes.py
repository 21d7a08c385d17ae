"""Crash tests stand on children that are started, watched, killed and read as told."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.processes import Child, ChildError, WarmChild

SAY = "import sys, time; print('why', file=sys.stderr, flush=True); print('ready: 7', flush=True); "


def test_a_child_is_killed_in_the_middle_of_what_it_does() -> None:
    with Child("-c", SAY + "time.sleep(600)") as child:
        assert child.wait_for("ready") == "ready: 7"
        child.kill()
        assert child.wait() == -signal.SIGKILL
        assert child.stderr == "why\n"


def test_leaving_the_context_kills_the_child() -> None:
    with Child("-c", SAY + "time.sleep(600)") as child:
        child.wait_for("ready")
    assert child.wait(0) == -signal.SIGKILL


def test_a_child_that_ends_before_its_marker_shows_its_stderr() -> None:
    with Child("-c", SAY + "sys.exit(3)") as child:
        for _ in range(2):
            with pytest.raises(ChildError, match="ended with code 3 and said no more\nwhy"):
                child.wait_for("never said")


def test_a_child_that_says_nothing_is_not_waited_for_longer_than_allowed() -> None:
    with Child("-c", SAY + "time.sleep(600)") as child:
        child.wait_for("ready")
        started = time.monotonic()
        with pytest.raises(ChildError, match="no line within"):
            child.wait_for("never said", timeout_s=0.1)
        with pytest.raises(ChildError, match=r"still running after 0\.1 s\nwhy"):
            child.wait(0.1)
        assert time.monotonic() - started < 5


def test_a_child_imports_the_repository_and_is_given_the_tests_variables() -> None:
    code = "import os, bursar.budget, tests.support; print(os.environ['LEDGER'])"
    with Child("-c", code, env={"LEDGER": "sqlite:///here.db"}) as child:
        assert child.line() == "sqlite:///here.db"
        assert child.wait() == 0


def test_a_script_is_run_with_its_arguments(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; print(sys.argv[1:])")
    with Child(script, "a", "b") as child:
        assert child.line() == "['a', 'b']"


def test_a_warm_child_is_a_process_of_its_own_that_shares_nothing_with_another() -> None:
    with ExitStack() as children:
        first, second = (
            children.enter_context(WarmChild("tests.support.warm_example", "a", "b", env={"LEDGER": ledger}))
            for ledger in ("one", "other")
        )
        assert json.loads(first.line()) == [first.pid, "one", ["a", "b"], 1, False]
        assert json.loads(second.line()) == [second.pid, "other", ["a", "b"], 1, False]
        first.kill()
        assert first.wait() == -signal.SIGKILL
        second.send_signal(signal.SIGTERM)
        assert second.wait() == 1
        assert "UserWarning: told to end" in second.stderr
