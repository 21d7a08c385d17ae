"""The commands that look after the database, where it is a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import pytest

from bursar.runtime.cli.checks import Check, checks
from bursar.runtime.cli.exits import Exit
from tests.support.postgres import Postgres
from tests.unit.runtime.cli_project import Command, command, make_project, run_id

MODELS = "models: {demo: {provider: sim, scenario: support}}\ntiers: {small: [demo]}\nunknown_tenants: allow\n"


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """A database without a table."""
    with postgres.database() as name:
        yield postgres.url(name)


@pytest.fixture
def bursar(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, in a folder whose configuration names the database."""
    monkeypatch.chdir(tmp_path)
    configure(url)
    return command(capsys)


def configure(database: str) -> None:
    Path("bursar.yaml").write_text(f"database: {database}\n{MODELS}")


def looked_at(env: dict[str, str] | None = None) -> Check:
    [found] = [check for check in checks(Path("bursar.yaml"), env or {}, {}) if check.subject == "database"]
    return found


def test_an_upgrade_makes_the_tables_of_a_server_and_a_dry_run_does_not(bursar: Command) -> None:
    planned = "ledger would be upgraded from nothing to 0001"
    assert planned in bursar("db", "upgrade", "--dry-run").out
    assert planned in bursar("db", "upgrade", "--dry-run").out
    assert "ledger upgraded from nothing to 0001, runs upgraded from nothing to 0001" in bursar("db", "upgrade").out
    assert bursar("db", "upgrade").out.endswith(": up to date\n")
    assert bursar("db", "upgrade", "--json").json["found"] == dict.fromkeys(
        ("ledger", "runs", "effects", "checkpoints"), "0001"
    )


def parts(version: str) -> str:
    return ", ".join(f"{part} at {version}" for part in ("ledger", "runs", "effects", "checkpoints"))


def test_the_doctor_says_which_server_and_what_is_in_it(bursar: Command, url: str) -> None:
    found = looked_at()
    assert (found.state, found.text) == ("ok", f"{url} (PostgreSQL 18): {parts('nothing')}")
    bursar("db", "upgrade")
    assert looked_at().text == f"{url} (PostgreSQL 18): {parts('0001')}"


def test_a_server_that_is_not_there_is_said_so_without_the_password(bursar: Command, tmp_path: Path) -> None:
    nowhere = f"postgresql+psycopg://bob@/bursar?host={quote(str(tmp_path))}\ndatabase_password_env: DB_PASSWORD"
    configure(nowhere)
    assert "DB_PASSWORD is not set" in looked_at().text
    found = looked_at({"DB_PASSWORD": "hunter2"})
    assert found.state == "fail"
    assert "postgresql+psycopg://bob:***@/bursar cannot be reached" in found.text
    assert "hunter2" not in str(found)
    said = bursar("db", "upgrade")
    assert said.code == Exit.ERROR
    assert said.err.startswith("error: ")
    assert "export DB_PASSWORD=" in said.err


def test_a_run_is_kept_charged_asked_about_and_resumed_on_a_server(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("bursar.db").unlink()  # the project's file, of which there is no need here
    configuration = Path("bursar.yaml").read_text()
    Path("bursar.yaml").write_text(configuration.replace("sqlite:///bursar.db", url))
    bursar = command(capsys)
    asked = bursar("run", "agents.py:support", "Refund order 1001, it never came.", "--tenant", "acme")
    assert asked.code == Exit.WAITS
    run = run_id(asked)
    assert bursar("runs", "resume", run, "--approve").code == Exit.OK
    shown = bursar("runs", "show", run, "--json").json
    assert shown["status"] == "succeeded"
    [spent] = [line["posted"]["cost_usd"] for line in bursar("budget", "ls", "--json").json if line["path"] == "acme"]
    assert Decimal(spent) == Decimal(shown["cost_usd"]) > 0
    assert bursar("budget", "why", run).code == Exit.OK
    assert not Path("bursar.db").exists()
