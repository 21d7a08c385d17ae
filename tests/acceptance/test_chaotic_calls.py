"""Thousands of calls with faults, aborts and cancels, 64 in flight: the ledger is the provider's bill, call by call.

A thousand in any test run; `BURSAR_SCHEDULES=nightly` makes ten thousand with each of several seeds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bursar.budget import Amounts, Limits, Scope
from bursar.budget.audit.verify import verify
from bursar.budget.errors import BursarError
from bursar.budget.reports.bill import Attempt
from bursar.budget.testing import audit, excesses
from bursar.runtime import Runtime
from bursar.runtime.ask import Ask
from bursar.runtime.models import health
from tests.acceptance.support import opened, write_config
from tests.support.chaos import TENANTS, TIERS, Chaos, Told, check, models_at
from tests.support.provider import TrueProvider

NIGHTLY = os.environ.get("BURSAR_SCHEDULES") == "nightly"
CALLS = 10_000 if NIGHTLY else 1_000


@pytest.mark.parametrize("seed", range(1, 4) if NIGHTLY else [1])
async def test_of_any_chaotic_calls_the_ledger_is_the_bill_to_the_nano_usd_or_marked_unknown_and_not_below(
    seed: int, true_provider: TrueProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt is a reservation and a request; nothing stays held, no limit is exceeded, and the journal holds."""
    monkeypatch.setattr(health, "FAILURES_MAX", CALLS)  # a model is asked again, however often it fails
    chaos = Chaos(seed=seed)
    true_provider.behaviour = chaos.behaviour()
    config = write_config(tmp_path, models_at(true_provider.api_base), tiers=TIERS, tenants=TENANTS)
    async with opened(config, sleep=_shortly) as runtime:
        runs = {tenant: runtime.standing(_scope(runtime, tenant), tiers=None) for tenant in TENANTS}

        async def make(told: Told, listen: Callable[[Mapping[str, Any]], None] | None) -> object:
            run = runs[told.tenant]
            ask = Ask(tier=told.tier, node="model", messages=told.messages, max_output_tokens=told.max_output_tokens)
            return await run.calls.make(run, ask, f"call {told.number}", listen)

        with suppress(BursarError):  # imports what a call needs, before the time of others runs
            await make(chaos.told(CALLS), None)
        begun = time.monotonic()
        ends = await chaos.run(CALLS, make)
        took_s = time.monotonic() - begun
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 0)
        await runtime.ledger_thread.do(runtime.ledger.reap)  # behind whatever was broken off
        outcomes = check(chaos, CALLS + 1, _attempts(runtime), true_provider.bill)
        assert {line.held for line in runtime.ledger.budgets.ls()} == {Amounts()}
        assert not excesses(runtime.ledger.store)
        audit(runtime.ledger.store)
        assert not verify(runtime.ledger.store).findings
    print(f"seed {seed}: {CALLS / took_s:.0f} calls/s; {dict(ends)}; {dict(outcomes)}")
    assert outcomes["exact"] > CALLS / 2
    assert min(outcomes["unknown"], outcomes["released"], ends["cancelled"], ends["LimitReached"]) > CALLS / 100


def _scope(runtime: Runtime, tenant: str) -> Scope:
    scope = Scope(tenant=tenant, agents=("support",), run_id=f"run_of_{tenant}")
    runtime.ledger.gates.open(scope, Limits.unlimited())
    return scope


def _attempts(runtime: Runtime) -> dict[str, list[Attempt]]:
    """The attempts at each call, in order."""
    found: dict[str, list[Attempt]] = defaultdict(list)
    for tenant in TENANTS:
        for attempt in runtime.ledger.reports.bill(f"run_of_{tenant}").attempts:
            found[attempt.call].append(attempt)
    return {call: sorted(attempts, key=lambda one: one.attempt) for call, attempts in found.items()}


async def _shortly(_: float) -> None:
    await asyncio.sleep(0.001)
