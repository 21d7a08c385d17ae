"""Fixtures of the tests against a real vLLM, which `make test-vllm` sets up."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.vllm.server import MODELS, VLLMServer


def pytest_configure() -> None:
    """Let SIGTERM end the tests as Ctrl-C does: with the servers that they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """A running vLLM, the same for every test that leaves it alive."""
    yield from started(tmp_path_factory)


@pytest.fixture
def doomed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """A running vLLM that the test may kill."""
    yield from started(tmp_path_factory)


def started(folders: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """A server for as long as the fixture lives."""
    assert MODELS.is_dir(), "there is no tiny model to serve: make test-vllm"
    with VLLMServer(folders.mktemp("vllm") / "server.log") as server:
        yield server
