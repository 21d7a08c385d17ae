"""Bursar: a runtime and its ledger in this process, by `Runtime.open` and `chat_model`."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import START, StateGraph

from benchmarks.peers.cases import INPUT_USD_PER_MTOK, OUTPUT_USD_PER_MTOK, QUESTION, Case, Stream
from bursar.budget import Limits
from bursar.budget.errors import PriceMissingError
from bursar.runtime import Runtime, chat_model
from bursar.runtime.runs.run import Run
from bursar.runtime.stop import LimitReached

__all__ = ["Bursar", "bursar"]


class Asked(TypedDict):
    """The state of the graphs: what a node does with its model."""

    calls: int
    at_once: int
    max_tokens: int | None
    read_tokens: int


_Graph = StateGraph[Asked, None, Asked, Asked]


@asynccontextmanager
async def bursar(api_base: str) -> AsyncIterator[Bursar]:
    """A runtime that ends with the context."""
    async with _opened(api_base, Decimal(1000)) as ample:
        yield Bursar(api_base, ample)


class Bursar:
    """Runtimes with a ledger in SQLite: a new one for each case, and an ample one for what no limit stops."""

    name = "Bursar"

    def __init__(self, api_base: str, ample: Runtime) -> None:
        self._api_base = api_base
        self._ample = ample

    async def spend(self, case: Case) -> None:
        """See `Side`: a run with so many calls, or so many runs of a tenant with a call each."""
        limit = Decimal(case.limit_nanousd) / 10**9
        runs, calls = (1, case.calls) if case.whose == "run" else (case.calls, 1)
        limits = Limits.unlimited()
        if case.whose == "run":
            limits = Limits(steps=case.steps, cost_usd=limit if case.steps is None else None, seconds=None)
        asked = _asked(calls=calls, at_once=1 if case.in_turn else calls, max_tokens=case.max_tokens)
        try:
            tenant_usd = limit if case.whose == "tenant" else None
            async with _opened(self._api_base, tenant_usd, priced=case.priced) as runtime:
                await asyncio.gather(*(_run(runtime, _ASKING, asked, limits) for _ in range(runs)))
        except PriceMissingError:
            return  # how it refuses a model without a price: before the first run

    async def abort(self, stream: Stream) -> int:
        """See `Side`; the books are what the run was charged."""
        asked = _asked(calls=stream.calls, max_tokens=stream.max_tokens, read_tokens=stream.read_tokens)
        run = await _run(self._ample, _LEAVING, asked, Limits.unlimited())
        assert run.steps == stream.calls, run
        return run.spent.nanousd

    async def call(self, calls: int, at_once: int) -> None:
        """See `Side`: all calls in one run."""
        asked = _asked(calls=calls, at_once=at_once, max_tokens=100)
        run = await _run(self._ample, _ASKING, asked, Limits.unlimited())
        assert run.steps == calls, run

    def cpu_s(self) -> float:
        """See `Side`."""
        return time.process_time()


@asynccontextmanager
async def _opened(api_base: str, tenant_usd: Decimal | None, *, priced: bool = True) -> AsyncIterator[Runtime]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "bursar.yaml"
        config.write_text(json.dumps(_config(api_base, tenant_usd, priced=priced)))
        async with Runtime.open(config) as runtime:
            yield runtime


async def _run(runtime: Runtime, graph: _Graph, asked: Asked, limits: Limits) -> Run:
    run = await runtime.run(graph, asked, tenant="acme", limits=limits, on_limit="stop")
    assert run.status in ("succeeded", "stopped"), run
    return await runtime.get(run.id)


async def _ask(asked: Asked) -> dict[str, int]:
    model = chat_model("small", max_output_tokens=asked["max_tokens"])
    for begin in range(0, asked["calls"], asked["at_once"]):
        calls = (model.ainvoke(f"{number}. {QUESTION}") for number in range(begin, begin + asked["at_once"]))
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            # A stop is swallowed, as a careless program would: the ledger keeps it all the same.
            if isinstance(ended, BaseException) and not isinstance(ended, LimitReached):
                raise ended
    return {}


async def _leave(asked: Asked) -> dict[str, int]:
    model = chat_model("small", max_output_tokens=asked["max_tokens"])
    for number in range(asked["calls"]):
        read = 0
        stream = model.astream(f"{number}. {QUESTION}")
        async with aclosing(stream) as chunks:  # type: ignore[type-var]  # LangChain types its generator as less
            async for chunk in chunks:
                read += bool(chunk.content)
                if read == asked["read_tokens"]:
                    break
    return {}


def _graph(node: Any) -> _Graph:
    graph = StateGraph(Asked)
    graph.add_node("ask", node)
    graph.add_edge(START, "ask")
    return graph


_ASKING, _LEAVING = _graph(_ask), _graph(_leave)


def _asked(*, calls: int, max_tokens: int | None, at_once: int | None = None, read_tokens: int = 0) -> Asked:
    return {"calls": calls, "at_once": at_once or calls, "max_tokens": max_tokens, "read_tokens": read_tokens}


def _config(api_base: str, tenant_usd: Decimal | None, *, priced: bool) -> dict[str, Any]:
    house: dict[str, Any] = {"provider": "openai_compatible", "model": "house-7b", "api_base": api_base}
    house |= {"context_window": 32_768, "max_output_tokens": 16_384}
    if priced:
        house["price"] = {
            "input_usd_per_mtok": str(INPUT_USD_PER_MTOK),
            "output_usd_per_mtok": str(OUTPUT_USD_PER_MTOK),
        }
    return {
        "database": "sqlite:///bursar.db",
        "models": {"house": house},
        "tiers": {"small": ["house"]},
        "tenants": {"acme": {"budgets": [] if tenant_usd is None else [{"usd": str(tenant_usd), "per": "total"}]}},
    }
