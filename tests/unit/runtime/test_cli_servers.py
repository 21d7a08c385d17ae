"""`bursar doctor` finds model servers on this machine, and shows and clears which models calls pass by."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bursar.budget.windows import utc_now
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.checks import checks
from bursar.runtime.cli.exits import Exit
from bursar.runtime.cli.servers import SERVERS, TIMEOUT_S, find_servers
from bursar.runtime.config import parse_config
from bursar.runtime.models.health import Health
from bursar.runtime.models.provider import QuotaExhausted
from bursar.runtime.runs.model_health import HealthRecords
from tests.unit.runtime.cli_project import Command, command

KINDS: Mapping[str, dict[str, Any]] = {
    "vLLM": {
        "/v1/models": {"data": [{"id": "acme/Tiny-1B", "owned_by": "vllm", "max_model_len": 4096}]},
        "/version": {"version": "0.32.0"},
    },
    "Ollama": {
        "/v1/models": {"data": [{"id": "llama3.2:1b", "owned_by": "library"}]},
        "/api/version": {"version": "0.13.1"},
    },
    "LM Studio": {"/v1/models": {"data": [{"id": "qwen-3", "owned_by": "organization_owner"}]}},
    "llama-server": {"/v1/models": {"data": [{"id": "gemma.gguf", "owned_by": "llamacpp"}]}},
}


@contextmanager
def serving(pages: Mapping[str, Any], *, silent: bool = False) -> Iterator[int]:
    """A server on a free port that answers these paths with JSON, or never answers; yields its port."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if silent:
                over.wait(30)
                return
            body = json.dumps(pages.get(self.path)).encode()
            self.send_response(200 if self.path in pages else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening.server_port
        finally:
            over.set()
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_says_itself_what_it_is_wherever_it_listens(kind: str) -> None:
    with serving(KINDS[kind]) as port:
        [found] = find_servers({port: "something else"})
    told = [one["version"] for path, one in KINDS[kind].items() if path != "/v1/models"]
    assert (found.kind, found.version) == (kind, told[0] if told else None)
    assert list(found.models) == [one["id"] for one in KINDS[kind]["/v1/models"]["data"]]


def test_the_line_for_a_vllm_server_has_its_context_window() -> None:
    with serving(KINDS["vLLM"]) as port:
        [found] = find_servers({port: "vLLM"})
    line = found.section("acme/Tiny-1B")
    assert line == (
        f'tiny-1b: {{provider: vllm, model: "acme/Tiny-1B", api_base: "http://127.0.0.1:{port}/v1", price: free, '
        "context_window: 4096}"
    )
    text = f"database: sqlite:///b.db\nmodels:\n  {line}\ntiers: {{small: [tiny-1b]}}\ntenants: {{acme: {{}}}}\n"
    config = parse_config(text, file=Path("bursar.yaml"))
    assert config.models["tiny-1b"].context_window == 4096


def test_all_ports_are_asked_at_once_and_one_that_is_silent_holds_nobody_up() -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(serving({}, silent=True)) for _ in range(4)]
        ports = dict.fromkeys([*silent, stack.enter_context(serving(KINDS["Ollama"]))], "vLLM")
        before = time.monotonic()
        found = find_servers(ports)
        took_s = time.monotonic() - before
    assert [one.kind for one in found] == ["Ollama"]
    assert took_s < 5 * TIMEOUT_S


@pytest.mark.parametrize("answer", [[], {"data": "x"}, {"data": [{"id": 7}, 3]}, "text", {"object": "list"}])
def test_what_is_no_list_of_models_is_no_error(answer: Any) -> None:
    with serving({"/v1/models": answer, "/version": []}) as port:
        assert [list(one.models) for one in find_servers({port: "vLLM"})] in ([], [[]])


def test_where_nothing_listens_nothing_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert find_servers({port: "vLLM"}) == []


def test_the_ports_are_those_on_which_the_servers_listen_by_default() -> None:
    assert SERVERS == {8000: "vLLM", 11434: "Ollama", 1234: "LM Studio", 8080: "llama-server"}


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    said = command(capsys)
    said("init")
    return said


@pytest.fixture
def ill(bursar: Command) -> None:
    """A process found that the provider of `demo` has no money left."""
    health = Health(utc_now)
    health.failed("demo", QuotaExhausted("no credit left"), utc_now())
    with open_books(Path("bursar.yaml")) as books:
        health.share(HealthRecords(books.ledger.store).exchange)


def shown() -> list[str]:
    return [one.text for one in checks(Path("bursar.yaml"), {}, {}) if one.subject == "health"]


@pytest.mark.usefixtures("ill")
def test_the_doctor_shows_why_a_model_is_passed_by_and_until_when_and_clears_it(bursar: Command) -> None:
    [text] = shown()
    assert text.startswith("demo is passed by until 20")
    assert text.endswith(" UTC (quota): no credit left")
    assert "bursar doctor --clear demo" in bursar("doctor").out
    assert bursar("doctor", "--clear", "demo", "--dry-run").out == "demo would be asked again\n"
    assert shown() == [text]
    assert bursar("doctor", "--clear", "demo").out.startswith("demo: asked again")
    assert shown() == []
    assert bursar("doctor", "--clear", "all").out == "no model was passed by\n"


@pytest.mark.usefixtures("ill")
def test_what_was_cleared_is_told_as_json(bursar: Command) -> None:
    said = bursar("doctor", "--clear", "all", "--json").json
    [cleared] = said["cleared"]
    assert (said["dry_run"], cleared["model"], cleared["cause"]) == (False, "demo", "quota")


def test_a_model_that_is_none_is_named_with_those_that_are(bursar: Command) -> None:
    said = bursar("doctor", "--clear", "demmo")
    assert said.code == Exit.ERROR or said.code == Exit.USAGE
    assert "use one of demo" in said.err


@pytest.mark.usefixtures("ill")
def test_a_model_that_is_no_longer_configured_can_be_cleared_as_the_doctor_says(bursar: Command) -> None:
    text = Path("bursar.yaml").read_text()
    Path("bursar.yaml").write_text(text.replace("demo:", "other:").replace("[demo]", "[other]"))
    assert bursar("doctor", "--clear", "demo").out.startswith("demo: asked again")
    assert shown() == []
