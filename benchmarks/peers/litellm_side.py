"""LiteLLM's proxy: from its own environment, without a database, asked by the openai SDK."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil  # type: ignore[import-untyped]  # it ships no types, and two calls need no stubs of their own

from benchmarks.peers.cases import INPUT_USD_PER_MTOK, OUTPUT_USD_PER_MTOK, QUESTION_TOKENS, Case, Stream, nanousd
from benchmarks.peers.client import MESSAGES, called, left, spent

__all__ = ["COMMAND", "Proxy", "proxy"]

COMMAND = Path(__file__).parents[2] / ".venv-peers" / "bin" / "litellm"
START_S_MAX = 120.0
SETTLED_AFTER_S = 3.0
"""The proxy books after it has answered; its counters did not move any more after that, even in 30 s."""

_AGENTS = {"five-cents": {"max_budget_per_session": 0.05}, "ten-calls": {"max_iterations": 10}}

_MTOK = 1_000_000
_NANO = 1_000_000_000


@asynccontextmanager
async def proxy(api_base: str, *, fail_closed: bool) -> AsyncIterator[Proxy]:
    """Start a proxy; it ends with the context. `fail_closed` turns on its strict mode."""
    port = _free_port()
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": str(Path(__file__).parent)}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        (Path(folder) / "config.yaml").write_text(json.dumps(_config(api_base, fail_closed=fail_closed)))
        with (
            log.open("wb") as output,
            subprocess.Popen(  # noqa: ASYNC220 - before anything is measured
                [COMMAND, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ) as process,
        ):
            try:
                url = f"http://127.0.0.1:{port}"
                await _answers(url, process, log)
                yield Proxy("LiteLLM, fail_closed" if fail_closed else "LiteLLM", url, psutil.Process(process.pid))
            finally:
                process.kill()


class Proxy:
    """A proxy with one worker, that `proxy` started."""

    def __init__(self, name: str, url: str, process: psutil.Process) -> None:
        self.name = name
        self.url = url
        self.process = process

    async def spend(self, case: Case) -> None:
        """See `Side`."""
        if case.whose == "run":
            agent = "ten-calls" if case.steps else "five-cents"
            headers = {"x-bench-agent": agent, "x-litellm-trace-id": secrets.token_hex()}
        else:
            headers = {"x-bench-budget": f"{case.limit_nanousd / _NANO:.9f}"}
        async with self._client(headers) as client:
            await spent(client, case)

    async def abort(self, stream: Stream) -> int:
        """See `Side`; the books are the counter of the key, which a refusal quotes."""
        key = _new_key()
        async with self._client({"x-bench-budget": "1"}, key) as client:
            for _ in range(stream.calls):
                await left(client, stream)
        await asyncio.sleep(SETTLED_AFTER_S)
        return await self._counter(key)

    async def call(self, calls: int, at_once: int) -> None:
        """See `Side`."""
        async with self._client({"x-bench-budget": "1000"}) as client:
            await called(client, calls, at_once)
        await asyncio.sleep(1)

    def cpu_s(self) -> float:
        """See `Side`."""
        tree = [self.process, *self.process.children(recursive=True)]
        return time.process_time() + sum(sum(one.cpu_times()[:2]) for one in tree)

    async def _counter(self, key: str) -> int:
        """Nano-USD that the key's counter stands at, less what the question about it would have held."""
        async with self._client({"x-bench-budget": "0.000000001"}, key) as client:
            try:
                await client.chat.completions.create(model="house", messages=MESSAGES, max_tokens=1)
            except openai.UnprocessableEntityError as refused:
                (counter,) = re.findall(r"Current cost: ([0-9.e-]+)", str(refused))
                return round(float(counter) * _NANO) - nanousd(QUESTION_TOKENS, 1)
        return 0

    def _client(self, headers: Mapping[str, str], key: str | None = None) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=key or _new_key(), base_url=f"{self.url}/v1", default_headers=headers, max_retries=0
        )


async def _answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the proxy answers; raises RuntimeError with the end of its log."""
    deadline = time.monotonic() + START_S_MAX
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                await client.get("/health/liveliness")
            except httpx.TransportError:
                await asyncio.sleep(0.5)
            else:
                return
    said = await asyncio.to_thread(log.read_text)
    raise RuntimeError(f"LiteLLM's proxy did not start:\n{said[-2_000:]}")


def _config(api_base: str, *, fail_closed: bool) -> dict[str, Any]:
    upstream = {"api_base": api_base, "api_key": "none"}
    price = {
        "input_cost_per_token": INPUT_USD_PER_MTOK / _MTOK,
        "output_cost_per_token": OUTPUT_USD_PER_MTOK / _MTOK,
    }
    return {
        "model_list": [
            {"model_name": "house", "litellm_params": {"model": "openai/house-7b", **upstream, **price}},
            {"model_name": "unpriced", "litellm_params": {"model": "openai/house-8b", **upstream}},
        ],
        "agent_list": [
            # Without a card an agent is left out, and so are its limits.
            {"agent_name": name, "agent_card_params": {"name": name}, "litellm_params": limit}
            for name, limit in _AGENTS.items()
        ],
        "general_settings": {
            "master_key": f"sk-{secrets.token_hex()}",
            "custom_auth": "litellm_auth.authorized",
            "custom_auth_run_common_checks": True,
            "fail_closed_budget_enforcement": fail_closed,
        },
        "litellm_settings": {"telemetry": False},
    }


def _new_key() -> str:
    return f"sk-{secrets.token_hex()}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
