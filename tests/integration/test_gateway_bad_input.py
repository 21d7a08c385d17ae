"""Requests that cannot be served: each is told what is wrong and where, and nothing is sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, config_text
from tests.support.provider import TrueProvider

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "Hello."}
HELLO: dict[str, Any] = {"model": "small", "messages": [USER]}

BODIES: list[tuple[Any, str | None]] = [
    ([], None),
    ("text", None),
    ({}, "model"),
    ({"model": "small"}, "messages"),
    ({**HELLO, "messages": []}, "messages"),
    ({**HELLO, "messages": "Hello."}, "messages"),
    ({**HELLO, "messages": [{"role": "user"}]}, "messages[0].content"),
    ({**HELLO, "messages": [{"role": "robot", "content": "x"}]}, "messages[0]"),
    ({**HELLO, "messages": [USER, {"role": "user", "content": 7}]}, "messages[1].content"),
    ({**HELLO, "messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({**HELLO, "temperature": "hot"}, "temperature"),
    ({**HELLO, "temperature": 3}, "temperature"),
    ({**HELLO, "max_tokens": 0}, "max_tokens"),
    ({**HELLO, "max_completion_tokens": -5}, "max_completion_tokens"),
    ({**HELLO, "n": 2}, "n"),
    ({**HELLO, "stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({**HELLO, "stream": "yes"}, "stream"),
    ({**HELLO, "tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({**HELLO, "tool_choice": "any"}, "tool_choice"),
    ({**HELLO, "logprobs": True}, "logprobs"),
    ({**HELLO, "functions": []}, "functions"),
    ({**HELLO, "service_tier": "priority"}, "service_tier"),
    ({**HELLO, "web_search_options": {}}, "web_search_options"),
    ({**HELLO, "max_output_tokens": 5}, "max_output_tokens"),
    ({**HELLO, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[TrueProvider]:
    with TrueProvider() as serving:
        yield serving


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: TrueProvider) -> Iterator[Gateway]:
    """One gateway for all bad requests: none of them may leave it any different."""
    text = config_text(provider.api_base, more="gateway: {body_bytes_max: 200000}\n")
    with Gateway(tmp_path_factory.mktemp("gateway"), text) as serving:
        yield serving


@pytest.mark.parametrize(("body", "param"), BODIES)
def test_a_body_that_cannot_be_served_is_told_by_its_parameter(
    gateway: Gateway, provider: TrueProvider, body: Any, param: str | None
) -> None:
    with gateway.client(gateway.key()) as client:
        refused = client.post(CHAT, json=body)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert refused.json()["error"]["param"] == param, refused.text
    assert provider.bill.requests == 0


def test_an_unknown_parameter_is_refused_in_openais_word(gateway: Gateway) -> None:
    with gateway.client(gateway.key()) as client:
        refused = client.post(CHAT, json={**HELLO, "temprature": 1})
    assert refused.json()["error"]["code"] == "unknown_parameter"
    assert "did you mean temperature?" in refused.json()["error"]["message"]


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"null\x00", b"[" * 100_000])
def test_what_is_no_json_is_refused(gateway: Gateway, raw: bytes) -> None:
    with gateway.client(gateway.key()) as client:
        refused = client.post(CHAT, content=raw)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_json")


def test_json_that_is_nested_too_deeply_is_refused_before_anybody_follows_it_down(gateway: Gateway) -> None:
    deep = (
        b'{"model":"small","messages":[{"role":"user","content":"x"}],"metadata":' + b'{"a":' * 500 + b"1" + b"}" * 501
    )
    with gateway.client(gateway.key()) as client:
        refused = client.post(CHAT, content=deep)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_deep")


def test_json_with_an_object_that_is_too_wide_is_refused_before_anybody_reads_its_members(gateway: Gateway) -> None:
    with gateway.client(gateway.key()) as client:
        refused = client.post(CHAT, json={**HELLO, "logit_bias": {str(token): "x" for token in range(6_000)}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_many_members")


def test_json_of_more_parts_than_anybody_waits_for_is_refused(tmp_path: Path, provider: TrueProvider) -> None:
    body = b'{"model":"small","messages":[' + b'{"role":"user","content":""},' * 110_000
    with Gateway(tmp_path, config_text(provider.api_base)) as gateway, gateway.client(gateway.key()) as client:
        refused = client.post(CHAT, content=body.removesuffix(b",") + b"]}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_many_parts")


def test_a_head_that_does_not_end_is_cut_off_also_without_a_key(gateway: Gateway) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as caller, suppress(ConnectionError):
        caller.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-long: ")
        for _ in range(10_000):
            caller.sendall(b"a" * 10_000)
        pytest.fail("100 MB of a head were taken")
    with gateway.client(gateway.key()) as client:
        assert client.get("/v1/models", headers={"x-long": "a" * 50_000}).status_code == 200


def test_a_body_that_is_too_large_is_refused_by_its_length_and_by_what_comes(gateway: Gateway) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    with gateway.client(gateway.key()) as client:
        told = client.post(CHAT, content=b" " * 300_000)
        untold = client.post(CHAT, content=endless())
    assert [one.status_code for one in (told, untold)] == [413, 413]
    assert told.json()["error"]["code"] == "request_too_large"


def test_embeddings_of_what_is_no_text_are_refused(gateway: Gateway) -> None:
    with gateway.client(gateway.key()) as client:
        for body in ({"model": "vectors", "input": [[1, 2]]}, {"model": "vectors", "input": []}):
            assert client.post("/v1/embeddings", json=body).status_code == 400
        assert client.post("/v1/embeddings", json={"model": "small", "input": "x"}).status_code == 404


def test_text_is_embedded_at_its_price(gateway: Gateway, provider: TrueProvider) -> None:
    with gateway.client(gateway.key()) as client:
        answer = client.post("/v1/embeddings", json={"model": "vectors", "input": ["one", "two words"]})
        as_text = client.post("/v1/embeddings", json={"model": "vectors", "input": "one", "encoding_format": "base64"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [one["index"] for one in body["data"]] == [0, 1]
    assert all(isinstance(number, float) for number in body["data"][0]["embedding"])
    assert isinstance(as_text.json()["data"][0]["embedding"], str)
    assert answer.headers["x-bursar-model"] == "vectors"
    assert float(answer.headers["x-bursar-cost-usd"]) > 0
    provider.reset()
