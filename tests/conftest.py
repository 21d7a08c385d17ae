"""Fixtures for every test: the provider that keeps the true bill, and a guard that keeps the tests off the network."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

    from tests.support.postgres import Postgres
    from tests.support.provider import TrueProvider


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores: many tests wait for processes and deadlines."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Spare every collection of garbage the modules and the tests, which stay: they are nearly all that there is."""
    gc.collect()
    gc.freeze()


class NetworkAttempt(RuntimeError):
    """A test tried to leave this machine."""


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Refuse connections and name look-ups beyond loopback, and fail a test that tried, even if it hid the error.

    Yields the hosts that were tried.
    """
    attempts: list[str] = []

    def check(host: str | bytes | None) -> None:
        name = host.decode() if isinstance(host, bytes) else host or ""
        if not _is_local(name):
            attempts.append(name)
            raise NetworkAttempt(f"no test may reach {name}: give it a TrueProvider instead")

    def guarded(name: str) -> None:
        original = getattr(socket.socket, name)

        def connect(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX:
                check(address[0])
            return original(self, address)

        monkeypatch.setattr(socket.socket, name, connect)

    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        check(host)
        return look_up(host, *arguments, **options)

    guarded("connect")
    guarded("connect_ex")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield attempts
    assert not attempts, f"this test tried to reach {attempts}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL, the same one for every worker of this run."""
    from tests.support.postgres import shared_postgres

    with shared_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a store with all of the ledger's tables and nothing in them, on each kind of store in turn."""
    if request.param == "postgresql":
        with request.getfixturevalue("postgres").migrated() as url:
            yield url
        return
    from tests.support.ledger import new_store

    with closing(new_store(tmp_path)) as store:
        yield store.url


@pytest.fixture(scope="session")
def _true_provider_server() -> Iterator[TrueProvider]:
    from tests.support.provider import TrueProvider

    with TrueProvider() as provider:
        yield provider


@pytest.fixture
def true_provider(_true_provider_server: TrueProvider) -> TrueProvider:
    """A running provider with an empty bill; set `true_provider.behaviour` to what the test needs."""
    _true_provider_server.reset()
    return _true_provider_server


@pytest.fixture
async def provider_client(true_provider: TrueProvider) -> AsyncIterator[httpx.AsyncClient]:
    """A bare HTTP client of that provider."""
    from tests.support.client import client_of

    async with client_of(true_provider.url) as client:
        yield client
