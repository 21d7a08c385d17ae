"""`bursar key` and `bursar serve`: keys are made, shown once, listed and revoked; the server ends as it is told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bursar.runtime.cli.exits import Exit
from bursar.runtime.service.key_text import is_key
from tests.unit.runtime.cli_project import Command, command, make_project

BURSAR = Path(sys.executable).with_name("bursar")
CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 30}


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in a project's folder."""
    monkeypatch.chdir(make_project(tmp_path))
    return command(capsys)


@contextmanager
def serving(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`bursar serve --json` on a free port, with the URL that it prints."""
    process = subprocess.Popen(
        [BURSAR, "serve", "--port", "0", "--json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        said = "".join(iter(process.stdout.readline, "}\n"))
        yield json.loads(said + "}")["url"], process
    finally:
        process.kill()
        process.communicate()


def ask(url: str, key: str, headers: Mapping[str, str] = {}) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", **headers}
    return httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=headers, timeout=30, trust_env=False)


def test_a_key_is_printed_alone_and_only_once(bursar: Command, tmp_path: Path) -> None:
    made = bursar("key", "create", "--tenant", "acme", "--limits", "usd=5,steps=100", "--rpm", "60", "--name", "ci")
    text = made.out.strip()
    assert is_key(text)
    assert "shown this once" in made.err
    [listed] = bursar("key", "ls", "--json").json
    assert listed["begins"] == text[:8]
    assert (listed["limits"], listed["requests_per_minute"]) == ({"usd": "5", "steps": 100, "tokens": None}, 60)
    assert (listed["tenant"], listed["name"], listed["spent_usd"]) == ("acme", "ci", "0.000000000")
    assert text not in bursar("key", "ls").out
    assert os.stat(tmp_path / "bursar.keysecret").st_mode & 0o777 == 0o600


def test_a_key_is_tried_without_being_made(bursar: Command, tmp_path: Path) -> None:
    said = bursar("key", "create", "--tenant", "acme", "--limits", "usd=5", "--dry-run")
    assert said.out == "would make a key for acme, $5; nothing was changed\n"
    assert bursar("key", "ls").out.startswith("no keys\n")
    assert not (tmp_path / "bursar.keysecret").exists()


def test_the_call_that_an_answer_names_is_explained_by_its_name(bursar: Command) -> None:
    key = bursar("key", "create", "--tenant", "acme").out.strip()
    with serving() as (url, _):
        named = [ask(url, key, headers) for headers in ({}, {"idempotency-key": "1"}, {"x-bursar-run": "session"})]
    for answer in named:
        [attempt] = bursar("budget", "why", answer.headers["x-bursar-call"], "--json").json
        assert attempt["call"] == answer.headers["x-bursar-call"]
        assert attempt["posted"]["cost_usd"] == answer.headers["x-bursar-cost-usd"]


def test_a_revoked_key_is_listed_only_where_all_are(bursar: Command) -> None:
    key = bursar("key", "create", "--tenant", "acme", "--json").json
    assert bursar("key", "revoke", key["id"], "--dry-run").out.endswith("nothing was changed\n")
    revoked = bursar("key", "revoke", key["id"], "--by", "dana")
    assert revoked.out == f"{key['id']} of acme is revoked: its calls are refused from now on\n"
    assert bursar("key", "ls", "--json").json == []
    [listed] = bursar("key", "ls", "--all", "--json").json
    assert listed["revoked_by"] == "dana"
    assert bursar("key", "revoke", key["id"]).code == Exit.ERROR
    assert bursar("key", "revoke", "key_none").code == Exit.ERROR


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tenant", "acm"), "tenant 'acm' is not in the configuration"),
        (("--tenant", "acme", "--tiers", "smal"), "did you mean small?"),
        (("--tenant", "acme", "--models", "agent:x"), "there is no such model"),
        (("--tenant", "acme", "--limits", "usd"), "expected some of usd, steps, tokens"),
        (("--tenant", "acme", "--limits", "usd=-1"), "cost_usd"),
        (("--tenant", "acme", "--limits", "steps=1.5"), "expected a whole number"),
        (("--tenant", "acme", "--rpm", "0"), "would let nothing through"),
        (("--tenant", "acme", "--expires", "never"), "'never' is no time"),
        (("--tenant", "acme", "--expires", "2020-01-01"), "could not be used any more"),
        (("--tenant", "acme", "--agent", "a/b"), "needs a name without '/'"),
    ],
)
def test_a_key_that_cannot_be_is_refused_in_a_line(bursar: Command, options: tuple[str, ...], says: str) -> None:
    refused = bursar("key", "create", *options)
    assert refused.code in (Exit.ERROR, Exit.USAGE)
    assert says in refused.err


def test_the_server_answers_and_ends_well_when_it_is_told_to(bursar: Command) -> None:
    key = bursar("key", "create", "--tenant", "acme").out.strip()
    with serving() as (url, process):
        answer = ask(url, key)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-bursar-model"] == "demo"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert not err


def test_the_server_says_what_it_serves_and_how_to_ask_it(bursar: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    bursar("key", "create", "--tenant", "acme", "--name", "ci")
    monkeypatch.setattr("bursar.runtime.service.serving.run_server", lambda *_, **__: None)
    said = bursar("serve", "--port", "0").out
    assert said.startswith("serving http://127.0.0.1:")
    assert "tiers small, loop" in said
    assert "acme ci" in said
    assert "-> curl http://127.0.0.1:" in said


def test_several_workers_answer_at_one_port_by_one_ledger(bursar: Command) -> None:
    key = bursar("key", "create", "--tenant", "acme", "--limits", "steps=3").out.strip()
    with serving("--workers", "2") as (url, process):
        assert sorted(ask(url, key).status_code for _ in range(5)) == [200, 200, 200, 402, 402]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_port_that_is_taken_is_told_in_a_line(bursar: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = bursar("serve", "--port", str(taken.getsockname()[1]))
    assert refused.code in (Exit.ERROR, Exit.USAGE)
    assert "cannot listen at 127.0.0.1:" in refused.err


def test_every_gateway_of_a_postgresql_store_needs_the_secret_by_name(bursar: Command, tmp_path: Path) -> None:
    file = tmp_path / "bursar.yaml"
    file.write_text(file.read_text() + "gateway: {key_secret_env: BURSAR_KEY_SECRET}\n")
    refused = bursar("key", "create", "--tenant", "acme")
    assert "BURSAR_KEY_SECRET holds no secret of at least 32 characters" in refused.err
    assert json.loads(bursar("key", "ls", "--json").out) == []
