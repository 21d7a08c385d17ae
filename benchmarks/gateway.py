"""`make bench-gateway`: what a gateway adds to a request, Bursar's and LiteLLM's in front of the same upstream."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]  # it ships no types, and three calls need no stubs of their own
from rich.console import Console
from rich.table import Table

from benchmarks.peers.litellm_side import COMMAND, proxy
from benchmarks.peers.upstream import Upstream

START_S_MAX = 60.0
WARM_UP = 30
BODY = {"messages": [{"role": "user", "content": "Where is order 1001?"}], "max_tokens": 100}


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where requests are sent, and the processes behind it."""

    name: str
    url: str
    headers: Mapping[str, str]
    model: str
    process: psutil.Process | None
    """None for the upstream, whose CPU is nobody's overhead."""

    def cpu_s(self) -> float:
        """CPU seconds of its processes so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self._tree())

    def memory_mib(self) -> float:
        """What its processes hold, in MiB; what they share is counted once for each."""
        return float(sum(one.memory_info().rss for one in self._tree())) / 2**20

    def _tree(self) -> list[psutil.Process]:
        return [] if self.process is None else [self.process, *self.process.children(recursive=True)]


@asynccontextmanager
async def bursar(api_base: str, *, workers: int = 1) -> AsyncIterator[Door]:
    """`bursar serve` with a budget, on a free port; it ends with the context."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bursar.yaml").write_text(json.dumps(_config(api_base)))
        key = _bursar(folder, "key", "create", "--tenant", "acme", "--json")
        command = [*_COMMAND, "serve", "--port", str(port), "--workers", str(workers)]
        log = Path(folder) / "log"
        with log.open("wb") as output, subprocess.Popen(command, cwd=folder, stdout=output, stderr=output) as process:  # noqa: ASYNC220 - before anything is measured
            try:
                url = f"http://127.0.0.1:{port}"
                await _ready(url, process, log)
                yield Door(
                    name=f"Bursar, {workers} workers" if workers > 1 else "Bursar",
                    url=url,
                    headers={"authorization": f"Bearer {json.loads(key)['key']}"},
                    model="house",
                    process=psutil.Process(process.pid),
                )
            finally:
                process.terminate()


_COMMAND = [sys.executable, "-m", "bursar.runtime.cli"]


def _bursar(folder: str, *arguments: str) -> str:
    done = subprocess.run([*_COMMAND, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"bursar {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def _config(api_base: str) -> dict[str, Any]:
    price = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "100"}
    house = {"provider": "openai_compatible", "model": "house-7b", "api_base": api_base, "price": price}
    return {
        "database": "sqlite:///bursar.db",
        "models": {"house": {**house, "context_window": 32768, "max_output_tokens": 4096}},
        "tiers": {"small": ["house"]},
        "tenants": {"acme": {"budgets": [{"usd": "1000", "per": "month"}]}},
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def _ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S_MAX
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)
    said = await asyncio.to_thread(log.read_text)
    raise RuntimeError(f"the gateway did not start:\n{said[-2_000:]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one door, in one repetition."""

    cpu_ms: float
    """CPU of its processes for one request, 16 at once."""

    rps: float
    """Requests a second, 16 at once."""

    p50_ms: float
    """Of a request alone."""

    first_token_ms: float
    """p50 of a stream's first token, alone."""

    memory_mib: float


async def measure(door: Door, requests: int) -> Figures:
    """One repetition."""
    limits = httpx.Limits(max_connections=16)
    async with httpx.AsyncClient(
        base_url=door.url, headers=dict(door.headers), limits=limits, trust_env=False, timeout=60
    ) as client:
        for _ in range(WARM_UP):
            await _ask(client, door)
        alone = [await _timed(_ask(client, door)) for _ in range(requests // 2)]
        first = [await _first_token(client, door) for _ in range(requests // 4)]
        begun, cpu = time.monotonic(), door.cpu_s()
        await asyncio.gather(*(_several(client, door, requests // 16) for _ in range(16)))
        took = time.monotonic() - begun
        await asyncio.sleep(0.5)  # what is written after the answer belongs to it, too
        made = requests // 16 * 16
        return Figures(
            cpu_ms=(door.cpu_s() - cpu) * 1000 / made,
            rps=made / took,
            p50_ms=statistics.median(alone),
            first_token_ms=statistics.median(first),
            memory_mib=door.memory_mib(),
        )


async def _several(client: httpx.AsyncClient, door: Door, times: int) -> None:
    for _ in range(times):
        await _ask(client, door)


async def _ask(client: httpx.AsyncClient, door: Door) -> None:
    answer = await client.post("/v1/chat/completions", json={"model": door.model, **BODY})
    answer.raise_for_status()
    assert answer.json()["usage"]["completion_tokens"] > 0


async def _timed(call: Any) -> float:
    begun = time.perf_counter()
    await call
    return (time.perf_counter() - begun) * 1000


async def _first_token(client: httpx.AsyncClient, door: Door) -> float:
    begun, took = time.perf_counter(), 0.0
    body = {"model": door.model, "stream": True, **BODY}
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not took and '"content":"' in line.replace(": ", ":") and '"content":""' not in line.replace(": ", ":"):
                took = (time.perf_counter() - begun) * 1000
    return took


async def open_streams(door: Door, streams: int) -> tuple[int, float]:
    """How many of so many slow streams were answered whole, and the memory while all were open."""
    limits = httpx.Limits(max_connections=streams)
    opened, whole = asyncio.Semaphore(0), 0
    async with httpx.AsyncClient(
        base_url=door.url, headers=dict(door.headers), limits=limits, trust_env=False, timeout=120
    ) as client:

        async def one() -> bool:
            body = {"model": door.model, "stream": True, **BODY}
            ended, told = False, False
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for line in answer.aiter_lines():
                    if not told and line.startswith("data:"):
                        told = True
                        opened.release()
                    ended = ended or line == "data: [DONE]"
            return ended

        tasks = [asyncio.create_task(one()) for _ in range(streams)]
        for _ in range(streams):
            await opened.acquire()
        memory = door.memory_mib()
        whole = sum(await asyncio.gather(*tasks))
    return whole, memory


async def _compare(console: Console, repetitions: int, requests: int, streams: int) -> None:
    async with AsyncExitStack() as stack:
        upstream = stack.enter_context(Upstream())
        direct = Door(name="upstream alone", url=upstream.url, headers={}, model="house-7b", process=None)
        doors = [direct, await stack.enter_async_context(bursar(upstream.api_base))]
        if COMMAND.exists():
            console.print("starting LiteLLM's proxy ...")
            peer = await stack.enter_async_context(proxy(upstream.api_base, fail_closed=False))
            headers = {"authorization": "Bearer sk-bench", "x-bench-budget": "1000"}
            doors.append(Door(name="LiteLLM", url=peer.url, headers=headers, model="house", process=peer.process))
        seen: dict[str, list[Figures]] = {door.name: [] for door in doors}
        for number in range(repetitions):
            console.print(f"repetition {number + 1} of {repetitions} ...")
            for door in doors[number % len(doors) :] + doors[: number % len(doors)]:
                upstream.reset()
                seen[door.name].append(await measure(door, requests))
        _print(console, seen)
        upstream.reset(latency_s=0.2, chunk_s=0.1, output_tokens=100)
        whole, memory = await open_streams(doors[1], streams)
        console.print(
            f"{whole} of {streams} streams at once were answered whole; {memory:.0f} MiB while they were open"
        )


async def _workers(console: Console, requests: int) -> None:
    """How requests a second and memory change with the number of workers."""
    table = Table("workers", "requests/s", "CPU ms a request", "memory MiB", title="Bursar, 64 requests at once")
    with Upstream() as upstream:
        for workers in (1, 2, 4):
            async with bursar(upstream.api_base, workers=workers) as door:
                upstream.reset()
                figures = await measure(door, requests)
                table.add_row(str(workers), f"{figures.rps:.0f}", f"{figures.cpu_ms:.2f}", f"{figures.memory_mib:.0f}")
    console.print(table)


def _print(console: Console, seen: Mapping[str, list[Figures]]) -> None:
    table = Table("", *seen, title=f"A request through a gateway; median of {len(next(iter(seen.values())))}")
    rows = {
        "CPU ms of its processes a request, 16 at once": "cpu_ms",
        "requests a second, 16 at once": "rps",
        "p50 ms of a request alone": "p50_ms",
        "p50 ms of a stream's first token": "first_token_ms",
        "memory MiB": "memory_mib",
    }
    for title, name in rows.items():
        table.add_row(title, *(_cell([getattr(one, name) for one in figures]) for figures in seen.values()))
    console.print(table)


def _cell(figures: list[float]) -> str:
    low, median, high = (f"{figure:.3g}" for figure in (min(figures), statistics.median(figures), max(figures)))
    return median if low == high else f"{median} ({low}-{high})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="once, with fewer requests: whether it works, not how well"
    )
    parser.add_argument("--workers", action="store_true", help="instead: one, two and four workers of Bursar")
    given = parser.parse_args()
    console = Console(width=140)
    if given.workers:
        asyncio.run(_workers(console, 160 if given.quick else 1600))
        return
    asyncio.run(_compare(console, 1 if given.quick else 3, 160 if given.quick else 800, 50 if given.quick else 500))


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    main()
