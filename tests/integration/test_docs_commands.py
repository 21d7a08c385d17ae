"""The commands of the documents, run in their order as they are printed."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from tests.support.processes import REPOSITORY
from tests.unit.runtime.cli_project import Command, command, run_id

PAGES = ("tenant-admins", "reports", "audit", "what-if", "prices", "alerts")

OF_ANOTHER_LEDGER = ("run_0198c2f4b7a3e1d5a0c6f", "why 17", "acme#42", "acme:1234:", "gpu llama")
"""Names that only the page's own ledger or configuration has."""

_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILES = {"policy.yaml": ("what-if", "yaml"), "prices.csv": ("prices", "text")}


def _map() -> Path:
    """The map of prices that litellm brings along; importing litellm would look for a newer one."""
    found = find_spec("litellm")
    assert found
    assert found.origin
    return Path(found.origin).with_name("model_prices_and_context_window_backup.json")


def page(name: str) -> str:
    return (REPOSITORY / "docs" / f"{name}.md").read_text()


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in a folder with what `init` writes, the files that the documents print, and a signing key.

    Its tenant's budget has stopped a run.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BURSAR_SIGNING_KEY", "k" * 64)
    for file, (of, language) in _FILES.items():
        [text, *_] = re.findall(rf"^```{language}\n(.*?)^```$", page(of), re.MULTILINE | re.DOTALL)
        (tmp_path / file).write_text(text)
    (tmp_path / "model_prices_and_context_window.json").symlink_to(_map())
    call = command(capsys)
    assert call("init").code == Exit.OK
    assert call("budget", "set", "acme", "--usd", "0.0001", "--per", "month").code == Exit.OK
    return call


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_a_page_works_as_it_is_printed(bursar: Command, name: str) -> None:
    run = run_id(bursar("run", "agent.py:support", "Refund order 1001.", "--tenant", "acme"))
    lines = [line for block in _SHELL.findall(page(name)) for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("bursar ")]
    assert commands
    for line in commands:
        if not any(words in line for words in OF_ANOTHER_LEDGER):
            said = bursar(*(run if word == "RUN" else word for word in shlex.split(line, comments=True)[1:]))
            assert said.code in (Exit.OK, Exit.WAITS), f"{line}: {said.err}"
