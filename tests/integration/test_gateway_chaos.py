"""Chaotic calls by keys of the gateway, whose clients hang up: the ledger is the provider's bill here, too.

`BURSAR_SCHEDULES=nightly` makes more of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from bursar.budget import Amounts
from bursar.budget.audit.verify import verify
from bursar.budget.reports.bill import Attempt
from bursar.budget.testing import excesses
from bursar.runtime.models import health
from tests.support.chaos import AT_ONCE, TENANTS, TIERS, Chaos, Told, check, models_at
from tests.support.gateway import Gateway
from tests.support.provider import TrueProvider

CALLS = 5_000 if os.environ.get("BURSAR_SCHEDULES") == "nightly" else 200
TIMEOUT_S = 30


async def test_of_any_chaotic_calls_by_the_gateway_the_ledger_is_the_bill_or_marked_unknown_and_not_below(
    true_provider: TrueProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts are reservations and requests; nothing stays held, whoever hangs up."""
    monkeypatch.setattr(health, "FAILURES_MAX", CALLS)  # a model is asked again, however often it fails
    chaos = Chaos(seed=11)
    true_provider.behaviour = chaos.behaviour()
    sections = {"models": models_at(true_provider.api_base), "tiers": TIERS, "tenants": TENANTS}
    with Gateway(tmp_path, json.dumps({"database": "sqlite:///bursar.db", **sections})) as gateway:
        made = {tenant: gateway.made_key(tenant) for tenant in TENANTS}
        keys = {tenant: text for tenant, (_, text) in made.items()}
        limits = httpx.Limits(max_connections=2 * AT_ONCE)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=TIMEOUT_S, limits=limits, trust_env=False) as client:
            begun = time.monotonic()
            ends = await chaos.run(CALLS, lambda told, listen: asked(client, keys[told.tenant], told, listen))
            took_s = time.monotonic() - begun
        await asyncio.to_thread(true_provider.bill.wait_until, lambda bill: bill.in_flight == 0)
        ledger = gateway.runtime.ledger
        await asyncio.to_thread(until, lambda: {line.held for line in ledger.budgets.ls()} == {Amounts()})
        runs = [key.terms.scope(key.id, None).run_id for key, _ in made.values()]
        attempts = [one for run_id in runs for one in ledger.reports.bill(run_id).attempts]
        outcomes = check(chaos, CALLS, by_name(attempts), true_provider.bill)
        assert not excesses(ledger.store)
        assert not verify(ledger.store).findings
    print(f"{CALLS / took_s:.0f} calls/s; {dict(ends)}; {dict(outcomes)}")
    assert outcomes["exact"] > CALLS / 2
    assert min(outcomes["unknown"], outcomes["released"], ends["cancelled"], ends["HTTPStatusError"]) > 0


async def asked(
    client: httpx.AsyncClient, key: str, told: Told, listen: Callable[[Mapping[str, Any]], None] | None
) -> None:
    """Ask the gateway; raises HTTPStatusError where it refuses."""
    body: dict[str, Any] = {"model": told.tier, "messages": told.messages, "max_tokens": told.max_output_tokens}
    headers = {"authorization": f"Bearer {key}", "idempotency-key": f"call {told.number}"}
    if listen is None:
        (await client.post("/v1/chat/completions", json=body, headers=headers)).raise_for_status()
        return
    stream = client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}, headers=headers)
    async with stream as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line.removeprefix("data: ")).get("choices", ()):
                    listen(choice["delta"])


def by_name(attempts: list[Attempt]) -> dict[str, list[Attempt]]:
    """The attempts at each call, in order, by the key that its client showed."""
    names = {hashlib.sha256(f"call {number}".encode()).hexdigest()[:24]: f"call {number}" for number in range(CALLS)}
    found: dict[str, list[Attempt]] = defaultdict(list)
    for one in sorted(attempts, key=lambda one: one.attempt):
        found[names[one.call.rpartition(":idem_")[2]]].append(one)
    return found


def until(done: Callable[[], bool]) -> None:
    """Return once it is so; what was broken off is written in the gateway's own time."""
    for _ in range(200):
        if done():
            return
        time.sleep(0.05)
    raise TimeoutError("something is still held")
