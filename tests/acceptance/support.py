"""What the acceptance tests share: a runtime in front of a TrueProvider, graphs that call it, and its true bill."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import operator
import random
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from sqlalchemy import select

from bursar.budget.schema import reservation
from bursar.runtime import Runtime, chat_model
from tests.support.bill import Bill
from tests.support.ledger import new_runtime_file
from tests.support.provider import Answer, TrueProvider

__all__ = [
    "INPUT_USD_PER_MTOK",
    "OUTPUT_USD_PER_MTOK",
    "QUESTION",
    "Texts",
    "answers",
    "charged",
    "fan_out",
    "model_of",
    "one_call",
    "opened",
    "reasons",
    "write_config",
]

INPUT_USD_PER_MTOK = "1"
OUTPUT_USD_PER_MTOK = "100"

QUESTION = "Order 1001 was due on Monday and has not come. What do I tell the customer?"


class Texts(TypedDict, total=False):
    """The state of the graphs below."""

    question: str
    texts: Annotated[list[str], operator.add]
    """What the model answered, in no order."""


def model_of(provider: TrueProvider, **changes: Any) -> dict[str, Any]:
    """A section of `models:` that calls the provider, at a price where 100 tokens of output are a cent."""
    price = {"input_usd_per_mtok": INPUT_USD_PER_MTOK, "output_usd_per_mtok": OUTPUT_USD_PER_MTOK}
    section = {"provider": "openai_compatible", "model": "house-7b", "api_base": provider.api_base, "price": price}
    return {**section, "context_window": 32_768, "max_output_tokens": 4_096, **changes}


def write_config(folder: Path, models: Mapping[str, Any] | TrueProvider, **sections: Any) -> Path:
    """A bursar.yaml in a folder: these models, or one of a provider; all of them are tier `small`, one tenant `acme`.

    `sections` are further keys of the file, and replace these.
    """
    known = {"house": model_of(models)} if isinstance(models, TrueProvider) else dict(models)
    file = folder / "bursar.yaml"
    settings: dict[str, Any] = {"models": known, "tiers": {"small": list(known)}, "tenants": {"acme": {}}}
    file.write_text(json.dumps({"database": "sqlite:///bursar.db", **settings, **sections}))
    if "database" not in sections:
        new_runtime_file(folder)
    return file


@asynccontextmanager
async def opened(config: Path, **options: Any) -> AsyncIterator[Runtime]:
    """`Runtime.open` with its own options, which must leave no task, thread or socket behind."""
    tasks, threads = _other_tasks(), set(threading.enumerate())
    async with Runtime.open(config, **options) as runtime:
        yield runtime
    left = _other_tasks() - tasks
    assert not left, left
    for thread in threading.enumerate():
        if thread not in threads and not thread.name.startswith("asyncio_"):  # those live as long as the loop
            thread.join(5)
            assert not thread.is_alive(), thread
    gc.collect()  # an open socket says so when it is collected, and a warning is an error here


def charged(bill: Bill, model: str | None = None) -> int:
    """The true bill in nano-USD, optionally of one model."""
    entries = [entry for entry in bill.entries if model in (None, entry.model)]
    return sum(entry.nanousd(INPUT_USD_PER_MTOK, OUTPUT_USD_PER_MTOK) for entry in entries)


def reasons(runtime: Runtime, run_id: str) -> list[tuple[str | None, str | None]]:
    """The tier of each of a run's calls and why it was that one, in their order."""
    with runtime.ledger.store.read() as connection:
        rows = connection.execute(
            select(reservation.c.tier, reservation.c.reason)
            .where(reservation.c.run_id == run_id, reservation.c.kind == "model")
            .order_by(reservation.c.id)
        )
        return [(row.tier, row.reason) for row in rows]


def answers(*, median_tokens: int = 80, sigma: float = 0.6, seed: int = 1) -> Callable[[dict[str, Any], int], Answer]:
    """A script whose n-th answer always has the same length, log-normal as lengths of real answers are."""

    def script(_: dict[str, Any], calls_before: int) -> Answer:
        spread = random.Random(seed * 1_000_003 + calls_before).lognormvariate(0, sigma)
        return Answer(output_tokens=math.ceil(median_tokens * spread))

    return script


def one_call(tier: str = "small") -> StateGraph[Texts, None, Texts, Texts]:
    """A user's own graph that asks the tier once, without a bound on the answer."""
    return fan_out(1, tier)


def fan_out(calls: int, tier: str = "small", *, node: Any = None) -> StateGraph[Texts, None, Texts, Texts]:
    """A user's own graph that asks the tier so often at once, without a bound on the answers.

    `node` is another node to be run so often.
    """

    async def ask(state: Texts) -> Texts:
        answer = await chat_model(tier).ainvoke(state["question"])
        return {"texts": [str(answer.text)]}

    def every(state: Texts) -> Sequence[Send]:
        return [Send("ask", {"question": f"{number}. {state['question']}"}) for number in range(calls)]

    graph = StateGraph(Texts)
    graph.add_node("ask", node or ask)
    graph.add_conditional_edges(START, every, ["ask"])
    graph.add_edge("ask", END)
    return graph


def _other_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
