"""The provider's server: one process or many may use it, and it ends as quickly as a test does."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.client import QUESTION, STREAM, ask, client_of
from tests.support.processes import Child
from tests.support.provider import Behaviour, TrueProvider


@pytest.fixture
def served() -> Iterator[tuple[Child, httpx.Client]]:
    with (
        Child("-m", "tests.support.provider", "--counting", "fixed", "--latency-s", "0.01") as child,
        httpx.Client(base_url=child.line(), trust_env=False) as client,
    ):
        yield child, client


def test_a_provider_of_its_own_process_is_scripted_and_read_over_http(served: tuple[Child, httpx.Client]) -> None:
    _, client = served
    script = {
        "script": [{"tool_calls": [["find", {"a": 1}]]}, {"text": "done"}],
        "faults": [None, {"kind": "html"}, None],
    }
    assert client.post("/_script", json=script).is_success
    replies = [client.post("/v1/chat/completions", json=QUESTION) for _ in range(3)]
    assert replies[0].json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "find"
    assert replies[1].text.startswith("<html>")
    assert replies[2].json()["choices"][0]["message"]["content"] == "done"
    bill = client.get("/_bill").json()
    assert {name: bill[name] for name in ("calls", "input_tokens", "output_tokens", "requests", "in_flight_max")} == {
        "calls": 3,
        "input_tokens": 300,
        "output_tokens": 150,
        "requests": 3,
        "in_flight_max": 1,
    }
    assert bill["entries"][0]["model"] == "house-7b"
    assert client.post("/_reset").is_success
    assert client.get("/_bill").json()["calls"] == 0


@pytest.mark.parametrize("script", [{"latency": 1}, {"faults": [{"kind": "typo"}]}, {"script": [{"txt": ""}]}, [1]])
async def test_a_script_with_a_mistake_is_refused(provider_client: httpx.AsyncClient, script: object) -> None:
    assert (await provider_client.post("/_script", json=script)).status_code == 400


def test_a_provider_of_its_own_process_ends_quietly_at_sigterm(served: tuple[Child, httpx.Client]) -> None:
    child, client = served
    client.post("/_script", json={"faults": [{"kind": "billed_timeout"}]})
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=QUESTION, timeout=0.1)
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0
    assert child.stderr == ""


async def test_stopping_is_quick_and_quiet_with_calls_in_flight(caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    async with client_of("http://set-below") as client:
        with caplog.at_level(logging.WARNING), TrueProvider(Behaviour(latency_s=60)) as provider:
            client.base_url = httpx.URL(provider.url)
            calls = [asyncio.create_task(ask(client, body)) for body in (QUESTION, STREAM)]
            await asyncio.to_thread(provider.bill.wait_until, lambda bill: bill.calls == 2)
            started = time.monotonic()
        assert time.monotonic() - started < 5
        assert all(isinstance(end, httpx.HTTPError) for end in await asyncio.gather(*calls, return_exceptions=True))
    assert "true-provider" not in {thread.name for thread in set(threading.enumerate()) - before}
    assert caplog.records == []
