"""Whatever fails how often, retries and fallbacks never take a run past its limit, and each is paid for by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from bursar.budget import Limits
from bursar.budget.money import usd
from bursar.budget.windows import utc_now
from bursar.runtime import Runtime
from bursar.runtime.ask import Ask
from bursar.runtime.context import current_run
from bursar.runtime.stop import LimitReached, ModelCallFailed
from tests.acceptance.support import QUESTION, Texts, fan_out, model_of, opened, write_config
from tests.support.provider import Answer, Behaviour, Fault, FaultKind, TrueProvider

PRICES = {"cheap": ("1", "3"), "dear": ("2.5", "77"), "mid": ("0.7", "20")}
"""USD per million tokens of input and output."""

BETWEEN = timedelta(hours=1)
"""After which every model is asked again that one example made ill."""

SILENT: frozenset[FaultKind] = frozenset({"billed_timeout", "stalled"})
FAULTS = st.sampled_from([None, *(kind for kind in get_args(FaultKind) if kind not in SILENT)])


async def ask(state: Texts) -> Texts:
    """Ask until something says no, as an agent in a loop does."""
    run = current_run()
    for number in range(4):
        messages = [{"role": "user", "content": f"{number}. {QUESTION}"}]
        asked = Ask(tier="small", node="ask", messages=messages, max_output_tokens=60)
        heard: list[Any] = []
        try:
            await run.calls.make(run, asked, run.call_id(str(number)), heard.append if number % 2 else None)
        except (ModelCallFailed, LimitReached):
            continue
    return {}


def test_no_failure_takes_a_run_past_its_limit(tmp_path: Path, true_provider: TrueProvider) -> None:
    """Attempts = reservations = requests, each at the price of the model that was asked."""
    now = utc_now()

    def clock() -> datetime:
        return now

    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    async def one(runtime: Runtime, faults: Sequence[FaultKind | None], limit_nanousd: int) -> None:
        nonlocal now
        now += BETWEEN
        asked: Counter[str] = Counter()

        def fault(body: dict[str, Any], _: int) -> Fault | None:
            place = asked.total()
            asked[body["model"]] += 1
            kind = faults[place % len(faults)]
            return None if kind is None else Fault(kind)

        true_provider.reset(Behaviour(script=[Answer(output_tokens=40)], faults=fault))
        run = await runtime.run(
            fan_out(2, node=ask),
            {"question": QUESTION},
            tenant="acme",
            limits=Limits(cost_usd=usd(limit_nanousd)),
            on_limit="stop",
        )
        bill = runtime.ledger.reports.bill(run.id)
        billed = sum(entry.nanousd(*PRICES[entry.model]) for entry in true_provider.bill.entries)
        assert billed <= bill.posted.nanousd <= limit_nanousd
        assert bill.held.nanousd == 0
        assert Counter(attempt.model for attempt in bill.attempts) == asked
        for attempt in bill.attempts:
            assert attempt.price is not None
            assert (str(attempt.price.input_usd_per_mtok), str(attempt.price.output_usd_per_mtok)) == PRICES[
                attempt.model or ""
            ]

    models = {
        name: model_of(
            true_provider,
            model=name,
            retries=2,
            price={"input_usd_per_mtok": read, "output_usd_per_mtok": written},
        )
        for name, (read, written) in PRICES.items()
    }
    config = write_config(tmp_path, models)
    with asyncio.Runner() as runner:
        entered = opened(config, clock=clock, sleep=at_once)
        runtime = runner.run(entered.__aenter__())

        @settings(max_examples=25, deadline=None)
        @given(st.lists(FAULTS, min_size=1, max_size=9), st.integers(100_000, 30_000_000))
        def check(faults: list[FaultKind | None], limit_nanousd: int) -> None:
            runner.run(one(runtime, faults, limit_nanousd))

        try:
            check()
        finally:
            runner.run(entered.__aexit__(None, None, None))
