"""What the documents say is so: their programs run, their commands parse, their links lead somewhere."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from ruamel.yaml import YAML

from bursar.agents.agent import OnLimit
from bursar.budget.refusal import Cause
from bursar.budget.reservations import Outcome
from bursar.runtime.cli.app import app
from bursar.runtime.config import parse_config, starter_config
from bursar.runtime.models.scenario import load_scenario
from bursar.runtime.runs.run import RunStatus
from bursar.tools.declared import Effect
from tests.support.gateway import Gateway
from tests.support.processes import REPOSITORY

PAGES = sorted(page for pattern in ("*.md", "[!.]*/README.md", "docs/**/*.md") for page in REPOSITORY.glob(pattern))
CONFIGURATION = REPOSITORY / "docs" / "configuration.md"
"""Has tests of its own, and a file with mistakes."""

CLIENTS = REPOSITORY / "docs" / "clients.md"
"""Its programs call a gateway that is there."""

COMMANDS = REPOSITORY / "docs" / "commands.md"
"""Made from the command itself."""

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:^|`)(bursar [^`#\n]+)", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    text: str
    after: str
    """What follows it."""

    @property
    def printed(self) -> str | None:
        """What the page says that the program prints, where it does."""
        found = re.match(r"\s*It prints\n\n```text\n(.*?)^```$", self.after, re.MULTILINE | re.DOTALL)
        return found[1] if found else None


def _name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def _blocks(page: Path, language: str) -> Iterator[Block]:
    text = page.read_text()
    for found in _FENCE.finditer(text):
        if found[1] == language:
            yield Block(page, text.count("\n", 0, found.start()) + 1, found[2], text[found.end() :])


def _parameters(language: str, *, but: Path | None = None) -> list[object]:
    blocks = (block for page in PAGES if page != but for block in _blocks(page, language))
    return [pytest.param(block, id=f"{_name(block.page)}:{block.line}") for block in blocks]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A gateway of the configuration that init writes, as the environment of its clients."""
    with Gateway(tmp_path_factory.mktemp("gateway"), starter_config()) as gateway:
        key = gateway.key()
        yield {
            "OPENAI_BASE_URL": f"{gateway.url}/v1",
            "OPENAI_API_KEY": key,
            "ANTHROPIC_BASE_URL": gateway.url,
            "ANTHROPIC_API_KEY": key,
        }


@pytest.mark.parametrize("block", _parameters("python"))
def test_a_program_runs_as_it_stands_beside_the_configuration_that_init_writes(
    block: Block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if block.page == CLIENTS:
        for name, value in request.getfixturevalue("gateway").items():
            monkeypatch.setenv(name, value)
    (tmp_path / "bursar.yaml").write_text(starter_config())
    program = tmp_path / "program.py"
    program.write_text("\n" * block.line + block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(program)])
    runpy.run_path(str(program), run_name="__main__")
    if block.printed is not None:
        assert capsys.readouterr().out == block.printed


def test_curl_is_answered_as_it_is_printed(gateway: Mapping[str, str]) -> None:
    [block] = [one for one in _blocks(CLIENTS, "sh") if one.text.startswith("curl ")]
    shown = subprocess.run(
        ["sh", "-ec", block.text], env={**os.environ, **gateway}, capture_output=True, text=True, check=True, timeout=20
    )
    assert shown.stdout.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("block", _parameters("yaml", but=CONFIGURATION))
def test_a_configuration_or_scenario_is_valid_alone_or_as_a_part_of_what_init_writes(
    block: Block, tmp_path: Path
) -> None:
    yaml = YAML(typ="safe", pure=True)
    written = yaml.load(block.text)
    file = tmp_path / "part.yaml"
    with file.open("w") as stream:
        yaml.dump(written if "rules" in written else yaml.load(starter_config()) | written, stream)
    if "rules" in written:
        load_scenario(file.name, base=tmp_path)
    else:
        parse_config(file.read_text(), file=file)


@pytest.mark.parametrize("page", [page for page in PAGES if page != COMMANDS], ids=_name)
def test_a_command_is_one_that_bursar_has_with_the_options_it_has(page: Path) -> None:
    for line in _COMMAND.findall(page.read_text()):
        app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{_name(page)} links to {link}"
        if anchor:
            assert anchor in map(_anchor, _HEADING.findall(target.read_text())), f"{_name(page)} links to {link}"


def test_every_document_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    new = {REPOSITORY / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        targets = ((page.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(page.read_text()))
        pages = (found for target in targets for found in (target.glob("*.md") if target.is_dir() else [target]))
        new |= {found for found in pages if found.suffix == ".md" and found.exists()} - reached
    assert [_name(page) for page in PAGES if page not in reached] == []


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_glossary_has_every_word_of_the_closed_sets() -> None:
    glossary = (REPOSITORY / "docs" / "glossary.md").read_text()
    words = [word for kind in (RunStatus, Outcome, Cause, OnLimit, Effect) for word in get_args(kind)]
    assert [word for word in words if f"| {word} |" not in glossary and f"`{word}`" not in glossary] == []
