"""No test leaves this machine, and none can hide that it tried."""

from __future__ import annotations

import socket

import httpx
import pytest

from tests.conftest import NetworkAttempt


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_a_connection_beyond_loopback_is_refused_and_remembered(no_network: list[str], method: str) -> None:
    with socket.socket() as sock, pytest.raises(NetworkAttempt, match=r"198\.51\.100\.7"):
        getattr(sock, method)(("198.51.100.7", 80))
    assert no_network == ["198.51.100.7"]
    no_network.clear()


async def test_a_name_beyond_loopback_is_not_even_looked_up(no_network: list[str]) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(NetworkAttempt, match=r"provider\.invalid"):
            await client.get("https://provider.invalid/v1/models")
    assert no_network == ["provider.invalid"]
    no_network.clear()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_stays_open(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection((host, server.getsockname()[1])):
        pass
