"""A limit worth ten calls, met by 200 at once, is used and never exceeded: the provider's own bill says so.

No call names `max_tokens`, so that a single worst case is worth several times the whole limit.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from bursar.budget import Ledger, Limits
from bursar.budget.amounts import Amounts
from bursar.runtime import Runtime, chat_model
from bursar.runtime.runs.run import Run
from tests.acceptance.support import (
    QUESTION,
    Texts,
    answers,
    charged,
    fan_out,
    model_of,
    one_call,
    opened,
    write_config,
)
from tests.support.bill import Bill
from tests.support.processes import WarmChild
from tests.support.provider import Behaviour, TrueProvider

CALLS = 200
PROCESSES = 4

pytestmark = pytest.mark.timeout(90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit worth ten calls, in one dimension."""

    name: str
    budget: Mapping[str, Any]
    """As bursar.yaml has it."""

    at_most: int
    """In the dimension's own unit."""

    billed: Callable[[Bill, str | None], int]
    """What a model was billed for, in the same unit."""

    @property
    def of_a_run(self) -> Limits:
        usd, tokens, steps = (self.budget.get(name) for name in ("usd", "tokens", "steps"))
        return Limits(cost_usd=usd, tokens=tokens, steps=steps)


def _tokens(bill: Bill, model: str | None) -> int:
    return sum(one.input_tokens + one.output_tokens for one in bill.entries if model in (None, one.model))


def _steps(bill: Bill, model: str | None) -> int:
    return sum(model in (None, one.model) for one in bill.entries)


USD = Limit(name="usd", budget={"usd": "0.10"}, at_most=100_000_000, billed=charged)
TOKENS = Limit(name="tokens", budget={"tokens": 1_200}, at_most=1_200, billed=_tokens)
STEPS = Limit(name="steps", budget={"steps": 10}, at_most=10, billed=_steps)
LIMITS = [USD, TOKENS, STEPS]


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
async def test_a_tenants_limit_is_used_by_200_parallel_runs_and_never_exceeded(
    true_provider: TrueProvider, tmp_path: Path, limit: Limit
) -> None:
    true_provider.behaviour = Behaviour(script=answers(seed=1), latency_s=0.5)
    config = write_config(tmp_path, true_provider, tenants={"acme": {"budgets": [limit.budget]}})
    async with opened(config) as runtime:
        runs = await _in_parallel(runtime)
        _assert_used_and_never_exceeded(limit, true_provider.bill, runtime.ledger, path="acme")
    _assert_all_ended(runs)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
async def test_an_agents_limit_is_used_by_200_parallel_runs_and_never_exceeded(
    true_provider: TrueProvider, tmp_path: Path, limit: Limit
) -> None:
    true_provider.behaviour = Behaviour(script=answers(seed=2), latency_s=0.05, latency_sigma=0.5)
    agents = {"asker": {"budgets": [limit.budget]}}
    config = write_config(tmp_path, true_provider, tenants={"acme": {"agents": agents}})
    async with opened(config) as runtime:
        runs = await _in_parallel(runtime)
        _assert_used_and_never_exceeded(limit, true_provider.bill, runtime.ledger, path="acme/asker")
    _assert_all_ended(runs)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
async def test_a_runs_limit_is_used_by_a_fan_out_of_200_calls_and_never_exceeded(
    true_provider: TrueProvider, tmp_path: Path, limit: Limit
) -> None:
    true_provider.behaviour = Behaviour(script=answers(seed=3), latency_s=0.05, latency_sigma=0.5)
    async with opened(write_config(tmp_path, true_provider)) as runtime:
        given = {"question": QUESTION}
        run = await runtime.run(fan_out(CALLS), given, tenant="acme", name="asker", limits=limit.of_a_run)
        _assert_used_and_never_exceeded(limit, true_provider.bill, runtime.ledger, path=f"acme/asker/{run.id}")
    assert run.status == "stopped"


async def test_images_that_cost_less_than_is_held_for_them_teach_nothing_of_what_text_costs(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    """Each is counted as the largest; what it falls short of that must not come off the bound of a long text."""

    async def look(state: Texts) -> Texts:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        return {"texts": [str((await chat_model().ainvoke([HumanMessage([image])])).text)]}

    async with opened(write_config(tmp_path, true_provider)) as runtime:
        before = runtime.ledger.margins.bound("house", 100_000)
        run = await runtime.run(fan_out(5, node=look), {"question": QUESTION}, tenant="acme")
        assert (run.status, true_provider.bill.requests) == ("succeeded", 5)
        assert runtime.ledger.margins.bound("house", 100_000) == before


def test_limits_of_every_kind_are_used_by_four_processes_and_never_exceeded(
    true_provider: TrueProvider, tmp_path: Path
) -> None:
    """Four processes on one file, each with 50 parallel runs of three tenants with a limit of one kind each."""
    true_provider.behaviour = Behaviour(script=answers(seed=4), latency_s=0.5)
    names = [limit.name for limit in LIMITS]
    config = write_config(
        tmp_path,
        {name: model_of(true_provider, model=name) for name in names},
        tiers={name: [name] for name in names},
        tenants={limit.name: {"budgets": [limit.budget]} for limit in LIMITS},
    )
    runs = CALLS // PROCESSES
    with ExitStack() as alive:
        spender = ("tests.acceptance.spender", str(config), str(runs), *names)
        children = [alive.enter_context(WarmChild(*spender)) for _ in range(PROCESSES)]
        for child in children:
            child.wait_for("ready", timeout_s=60)
        (tmp_path / "go").touch()
        ended = [json.loads(child.wait_for("{", timeout_s=60)) for child in children]
        assert [child.wait() for child in children] == [0] * PROCESSES
    with closing(Ledger.open(f"sqlite:///{tmp_path}/bursar.db")) as ledger:
        for limit in LIMITS:
            _assert_used_and_never_exceeded(limit, true_provider.bill, ledger, path=limit.name, model=limit.name)
    assert sum(sum(statuses.values()) for statuses in ended) == CALLS * len(LIMITS)
    assert sum(statuses.get("succeeded", 0) for statuses in ended) == true_provider.bill.calls
    assert set().union(*ended) == {"succeeded", "stopped"}


async def _in_parallel(runtime: Runtime) -> Sequence[Run]:
    graph = one_call()
    made = (runtime.run(graph, {"question": QUESTION}, tenant="acme", name="asker") for _ in range(CALLS))
    return await asyncio.gather(*made)


def _assert_used_and_never_exceeded(
    limit: Limit, bill: Bill, ledger: Ledger, *, path: str, model: str | None = None
) -> None:
    """The bill is within the limit and near it, and the ledger has exactly what is on the bill."""
    used = limit.billed(bill, model)
    assert 0.9 * limit.at_most <= used <= limit.at_most
    assert bill.requests == bill.calls
    line = ledger.budgets.ls(path, runs=True)[0]
    assert line.posted == Amounts(charged(bill, model), _tokens(bill, model), _steps(bill, model))
    assert not line.held


def _assert_all_ended(runs: Sequence[Run]) -> None:
    """Each run has its answer, or was stopped with the reason; none failed."""
    assert {run.status for run in runs} == {"succeeded", "stopped"}
    for run in runs:
        assert run.steps == (run.status == "succeeded")
        assert run.stop_reason.startswith("refused: ") == (run.status == "stopped")
