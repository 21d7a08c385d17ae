"""What the tests share: a configuration with a vLLM in it, a node that asks it, and what was charged."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage

from bursar.budget import Ledger
from bursar.budget.reports.bill import Attempt
from bursar.runtime import Runtime
from bursar.runtime.runs.run import Run
from tests.acceptance.support import Texts, charged, fan_out
from tests.support.provider import TrueProvider
from tests.vllm.server import Served, VLLMServer

__all__ = ["attempts", "charge", "model_of", "paid", "run_node"]

PRICE = {"input_usd_per_mtok": "1", "cache_read_usd_per_mtok": "0.1", "output_usd_per_mtok": "100"}

METRICS_TIMEOUT_S = 10

Node = Callable[[], Awaitable[BaseMessage | None]]


def model_of(server: VLLMServer, **changes: Any) -> dict[str, Any]:
    """A section of `models:` for the server, at a price where each kind of token costs something else."""
    section = {"provider": "vllm", "model": "tiny", "api_base": server.api_base, "price": PRICE}
    return {**section, "context_window": 1024, "max_output_tokens": 256, **changes}


def charge(served: Served) -> int:
    """What the server's work comes to at that price, in nano-USD."""
    return 1_000 * served.computed + 100 * served.cached + 100_000 * served.written


@contextmanager
def paid(server: VLLMServer, cloud: TrueProvider | None = None) -> Iterator[list[Run]]:
    """The runs that are put into the list were charged, together, for just what the providers did meanwhile."""
    runs: list[Run] = []
    before = server.served()
    yield runs
    elsewhere = charged(cloud.bill) if cloud is not None else 0
    posted = sum(run.spent.nanousd for run in runs)
    assert posted > elsewhere
    deadline = time.monotonic() + METRICS_TIMEOUT_S
    while (bill := elsewhere + charge(server.served() - before)) < posted and time.monotonic() < deadline:
        time.sleep(0.05)  # its metrics come a little after its answers
    assert posted == bill


async def run_node(runtime: Runtime, node: Node, *, tenant: str = "acme") -> tuple[Run, BaseMessage | None]:
    """Run a graph of one node, which returns a model's answer; the run and that answer."""
    answers: list[BaseMessage | None] = []

    async def ask(_: Texts) -> Texts:
        answers.append(await node())
        return {}

    run = await runtime.run(fan_out(1, node=ask), {"question": ""}, tenant=tenant)
    return run, answers[0] if answers else None


def attempts(folder: Path, run: Run) -> Sequence[Attempt]:
    """What the ledger of a folder says of a run's calls, in order."""
    with closing(Ledger.open(f"sqlite:///{folder / 'bursar.db'}")) as ledger:
        return ledger.reports.bill(run.id).attempts
