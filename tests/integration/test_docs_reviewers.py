"""The commands of the page for reviewers, each as it is printed, on an escalation that it fits."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from tests.support.processes import REPOSITORY
from tests.unit.runtime.cli_project import Command, command, make_project, run_id

_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for block in _SHELL.findall((REPOSITORY / "docs" / "reviewers.md").read_text())
    for line in block.splitlines()
    if line.startswith("bursar inbox")
]

WAITS = {
    "refund": ("agents.py:support", "Refund order 1001, it never came."),
    "limit": ("agents.py:runaway", "Find it.", "--steps", "2", "--on-limit", "escalate"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def bursar(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command in a folder in which a refund waits as 1 and a run at its limit as 2; made once."""
    call = command(capsys)
    if not (prepared / "waiting").exists():
        monkeypatch.chdir(prepared)
        (prepared / "waiting").write_text(
            "\n".join(run_id(call("run", *one, "--tenant", "acme")) for one in WAITS.values())
        )
    copy = tmp_path / "project"
    shutil.copytree(prepared, copy)
    monkeypatch.chdir(copy)
    return call


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_works_as_it_is_printed(bursar: Command, line: str) -> None:
    words = shlex.split(line)[1:]
    about = "2" if words[1] in ("grant", "downgrade", "stop") else "1"
    if words[1] == "release":
        assert bursar("inbox", "claim", about).code == Exit.OK
    said = bursar(*(about if word == "17" else word for word in words))
    assert said.code in (Exit.OK, Exit.WAITS, Exit.LIMIT), said.err
