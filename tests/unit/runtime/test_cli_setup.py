"""The commands that set things up and look after them: init, config, price, db, doctor."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bursar.runtime.cli.checks import Check, checks
from bursar.runtime.cli.exits import Exit
from bursar.runtime.cli.init import AGENT
from bursar.runtime.config import config_schema, starter_config
from tests.unit.runtime.cli_project import Command, command

NO_SERVERS: dict[int, str] = {}

CLOUD = """\
database: sqlite:///bursar.db
models:
  mini: {provider: openai, model: gpt-4.1-mini, api_key_env: OPENAI_API_KEY}
  mine:
    provider: openai
    model: gpt-4.1-mini
    api_key_env: OPENAI_API_KEY
    price: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}
  house: {provider: openai_compatible, model: house-7b, api_base: "http://127.0.0.1:9/v1"}
  own: {provider: openai_compatible, model: own-7b, api_base: "http://127.0.0.1:9/v1", price: free}
tiers: {small: [mini, mine, own], other: [house]}
"""


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return command(capsys)


@contextmanager
def server(models: list[str], path: str = "/v1/models") -> Iterator[int]:
    """An OpenAI-compatible server on this machine, that lists some models; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": model} for model in models]}).encode()
            self.send_response(200 if self.path == path else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening.server_port
        finally:
            listening.shutdown()
            thread.join()


# init


def test_init_writes_a_configuration_and_an_agent_that_run_as_they_are(bursar: Command, tmp_path: Path) -> None:
    said = bursar("init", "shop")
    assert said.code == Exit.OK
    assert (tmp_path / "shop" / "bursar.yaml").read_text() == starter_config()
    assert (tmp_path / "shop" / "agent.py").read_text() == AGENT
    config = ("--config", "shop/bursar.yaml")
    assert bursar("config", "check", *config).code == Exit.OK
    waits = bursar("run", "shop/agent.py:support", "Refund order 1001, it never came.", "--tenant", "acme", *config)
    assert waits.code == Exit.WAITS


def test_the_commands_that_init_prints_work(bursar: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, *nexts = bursar("init", "shop").out.splitlines()[2:]
    assert change == "-> cd shop"
    monkeypatch.chdir(tmp_path / "shop")
    assert [bursar(*line).code for line in bursar("init", "x", "--dry-run").nexts[1:]] == [0, 4, 0]
    assert len(nexts) == 3


def test_init_overwrites_nothing_and_a_dry_run_writes_nothing(bursar: Command, tmp_path: Path) -> None:
    assert bursar("init", "--dry-run").out.startswith("would write bursar.yaml")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "agent.py").write_text("mine")
    said = bursar("init")
    assert said.code == Exit.USAGE
    assert "agent.py would be overwritten" in said.err
    assert [file.name for file in tmp_path.iterdir()] == ["agent.py"]
    assert bursar("init", "agent.py/x").code == Exit.USAGE


# config


def test_config_check_says_what_it_found_and_the_schema_is_the_librarys(bursar: Command) -> None:
    bursar("init")
    assert bursar("config", "check").out == "bursar.yaml is fine: 1 model, 1 tier, 1 tenant\n"
    assert bursar("config", "check", "--json").json["ok"] is True
    assert bursar("config", "schema").json == config_schema()


def test_config_check_finds_a_scenario_that_is_not_there_and_a_price_that_is_missing(
    bursar: Command, tmp_path: Path
) -> None:
    text = starter_config()
    (tmp_path / "bursar.yaml").write_text(text.replace("scenario: support", "scenario: suport"))
    assert "there is no scenario 'suport'" in bursar("config", "check").err
    (tmp_path / "bursar.yaml").write_text(CLOUD + "tenants: {acme: {budgets: [{usd: 1}]}}\n")
    said = bursar("config", "check")
    assert said.code == Exit.ERROR
    assert "model house has no price, and tenant acme has a budget in USD" in said.err
    assert " -> price: {input_usd_per_mtok" in said.err


# price


def test_price_ls_shows_your_models_and_searches_the_book(bursar: Command, tmp_path: Path) -> None:
    (tmp_path / "bursar.yaml").write_text(CLOUD)
    mine = {row["model"]: row["price"] for row in bursar("price", "ls", "--json").json}
    assert mine["mini"]["id"].startswith("book:openai/gpt-4.1-mini@")
    assert mine["mine"]["output_usd_per_mtok"] == "2"
    assert mine["house"] is None
    assert "no price" in bursar("price", "ls").out

    (tmp_path / "bursar.yaml").unlink()  # the book needs no configuration
    found = bursar("price", "ls", "GPT-4.1-mini", "--json").json
    assert "openai/gpt-4.1-mini" in [row["model"] for row in found]
    assert all("gpt-4.1-mini" in row["model"] for row in found)
    assert len(bursar("price", "ls", "gpt", "--limit", "3", "--json").json) == 3
    assert "0 models of the book match" in bursar("price", "ls", "no such model").out


def test_price_check_finds_what_has_no_price_and_what_differs_from_the_book(bursar: Command, tmp_path: Path) -> None:
    (tmp_path / "bursar.yaml").write_text(CLOUD)
    said = bursar("price", "check")
    assert said.code == Exit.ERROR
    assert said.out.startswith("mine: $1.00 in, $2.00 out per million tokens; the book of ")
    assert said.err.startswith("error: model house has no price")
    assert bursar("price", "check", "--json").json["unpriced"] == ["house"]
    (tmp_path / "bursar.yaml").write_text(starter_config())
    assert bursar("price", "check").code == Exit.OK


# db


def test_db_upgrade_says_what_it_does_and_does_it_once(bursar: Command, tmp_path: Path) -> None:
    bursar("init")
    planned = bursar("db", "upgrade", "--dry-run")
    assert "ledger would be upgraded from nothing to 0001" in planned.out
    assert not (tmp_path / "bursar.db").exists()
    assert "ledger upgraded from nothing to 0001" in bursar("db", "upgrade").out
    assert bursar("db", "upgrade").out.endswith("bursar.db: up to date\n")
    assert bursar("db", "upgrade", "--json").json["found"] == dict.fromkeys(
        ("ledger", "runs", "effects", "checkpoints"), "0001"
    )


# doctor


def by_subject(found: list[Check]) -> dict[str, list[Check]]:
    return {
        subject: [check for check in found if check.subject == subject] for subject in {one.subject for one in found}
    }


def test_the_doctor_finds_nothing_wrong_with_what_init_wrote(bursar: Command) -> None:
    bursar("init")
    said = bursar("doctor")
    assert said.code == Exit.OK
    assert "the first run makes it" in " ".join(said.out.split())
    bursar("db", "upgrade")
    assert {check["state"] for check in bursar("doctor", "--json").json if check["subject"] != "key"} <= {"ok", "note"}


def test_the_doctor_goes_on_without_a_configuration(bursar: Command) -> None:
    said = bursar("doctor")
    assert said.code == Exit.ERROR
    assert "-> bursar init" in said.out
    assert "server" in said.out


def test_the_doctor_names_keys_by_their_variables_and_never_shows_one(bursar: Command, tmp_path: Path) -> None:
    (tmp_path / "bursar.yaml").write_text(CLOUD)
    missing = by_subject([*checks(Path("bursar.yaml"), {}, NO_SERVERS)])["key"]
    assert [(check.state, check.next_step) for check in missing] == [("warn", "export OPENAI_API_KEY=...")]
    env = {"OPENAI_API_KEY": "sk-secret", "MISTRAL_API_KEY": "other-secret", "PATH": "/bin"}
    present = by_subject([*checks(Path("bursar.yaml"), env, NO_SERVERS)])["key"]
    assert [(check.state, check.text) for check in present] == [
        ("ok", "OPENAI_API_KEY is set, for mini, mine"),
        ("note", "MISTRAL_API_KEY is set, and no model uses it"),
    ]
    assert "secret" not in repr(present)


def test_the_doctor_says_what_each_model_costs_and_which_has_no_price(bursar: Command, tmp_path: Path) -> None:
    (tmp_path / "bursar.yaml").write_text(CLOUD)
    models = by_subject([*checks(Path("bursar.yaml"), {}, NO_SERVERS)])["model"]
    assert [(check.state, check.text.partition(":")[0].partition(" ")[0]) for check in models] == [
        ("ok", "mini"),
        ("ok", "mine"),
        ("warn", "house"),
        ("ok", "own"),
    ]
    assert models[2].next_step == "bursar price ls house-7b"


def test_the_doctor_finds_a_local_server_and_writes_the_line_that_would_use_it(bursar: Command, tmp_path: Path) -> None:
    bursar("init")
    with server(["llama-3", "\x1b[2Jevil"]) as port:
        [found] = by_subject([*checks(Path("bursar.yaml"), {}, {port: "vLLM"})])["server"]
        assert found.state == "note"
        lines = (found.next_step or "").removeprefix("under models:\n")
        config = starter_config().replace("models:\n", f"models:\n{lines}\n")
        (tmp_path / "bursar.yaml").write_text(config)
        [used] = by_subject([*checks(Path("bursar.yaml"), {}, {port: "vLLM"})])["server"]
        assert (used.state, used.next_step) == ("ok", None)
        assert used.text.startswith(f"127.0.0.1:{port} is an OpenAI-compatible server with llama-3, ")
    with server(["x"], path="/elsewhere") as port:
        [found] = by_subject([*checks(Path("bursar.yaml"), {}, {port: "vLLM"})])["server"]
        assert found.text == f"no local model server on {port}"


def test_the_doctor_finds_a_database_that_cannot_be_used(bursar: Command, tmp_path: Path) -> None:
    bursar("init")
    (tmp_path / "bursar.db").write_text("no database" * 1000)
    [found] = by_subject([*checks(Path("bursar.yaml"), {}, NO_SERVERS)])["database"]
    assert found.state == "fail"
    assert "is not a Bursar ledger" in found.text
    assert bursar("doctor").code == Exit.ERROR
