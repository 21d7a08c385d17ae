"""`make bench-peers`: what a limit is worth, and what it costs, with Bursar and with LiteLLM's proxy."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from benchmarks.peers.bursar_side import bursar
from benchmarks.peers.cases import STREAM, Case, Side, cases
from benchmarks.peers.client import Bare
from benchmarks.peers.ledger_alone import ledger_cpu_ms
from benchmarks.peers.litellm_side import COMMAND, proxy
from benchmarks.peers.upstream import Upstream

ABOVE_BARE = "CPU ms of a call, above the bare client's"
OF_BARE = "CPU of a call, times the bare client's"
ABORTED = f"{STREAM.calls} streams left after {STREAM.read_tokens} of {STREAM.max_tokens} tokens: books / bill"

CAPTION = """\
Spent and admitted are the upstream's own bill, never what a side says of itself; median (lowest-highest) of {times}.
A tenant's limit is a key's max_budget in LiteLLM; a run's is its agent's max_budget_per_session or max_iterations.
Bursar runs inside the caller here (gateway beside gateway: make bench-gateway). LiteLLM's proxy also parses HTTP, which
costs CPU that an embedded ledger does not have, and buys what a library cannot: any language, no change of code, one
place for all keys. It ran with one worker and without a database. See docs/benchmarks.md."""

_SIDES = ("LiteLLM", "LiteLLM, fail_closed", "Bursar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was measured, repetition by repetition."""

    rows: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    """By row of the table and side."""

    bare: list[float] = field(default_factory=list)
    """CPU ms of the bare client's call."""

    ledger: list[float] = field(default_factory=list)
    """CPU ms of a call's reserve, dispatch and settle."""


class Measurement:
    """Figures of all sides on one upstream."""

    def __init__(self, upstream: Upstream, sides: Sequence[Side]) -> None:
        self._upstream = upstream
        self._sides = sides
        self._bare = Bare(upstream.api_base)
        self.seen = Seen()

    async def repetition(self, number: int, which: Sequence[Case], calls: int) -> None:
        """Measure everything once; each repetition begins with another side."""
        begin = number % len(self._sides)
        order = [*self._sides[begin:], *self._sides[:begin]]
        for case in which:
            for side in order:
                self.seen.rows[f"{case.name}: {case.figure}"][side.name].append(await self._spent(side, case))
        for side in order:
            self.seen.rows[ABORTED][side.name].append(await self._aborted(side))
        await self._cpu(order, calls)
        self.seen.ledger.append(ledger_cpu_ms(calls))

    async def _spent(self, side: Side, case: Case) -> float:
        self._upstream.reset(latency_s=0.5)
        await side.spend(case)
        calls, nanousd = await self._upstream.bill()
        return calls if case.figure == "calls admitted" else nanousd / case.limit_nanousd

    async def _aborted(self, side: Side) -> float:
        self._upstream.reset(latency_s=0.1, chunk_s=0.01, output_tokens=STREAM.max_tokens)
        booked = await side.abort(STREAM)
        return booked / (await self._upstream.bill())[1]

    async def _cpu(self, order: Sequence[Side], calls: int) -> None:
        self._upstream.reset()
        bare = await _cpu_ms(self._bare, calls)
        self.seen.bare.append(bare)
        for side in order:
            used = await _cpu_ms(side, calls)
            self.seen.rows[ABOVE_BARE][side.name].append(used - bare)
            self.seen.rows[OF_BARE][side.name].append(used / bare)


async def _cpu_ms(side: Side | Bare, calls: int) -> float:
    """CPU ms a call, of all its processes."""
    await side.call(20, 10)
    begun = side.cpu_s()
    await side.call(calls, 10)
    return (side.cpu_s() - begun) * 1_000 / calls


async def measure(*, repetitions: int, many: int, calls: int) -> Seen:
    """Start everything, and measure it so often."""
    console = Console(stderr=True)
    async with AsyncExitStack() as stack:
        upstream = stack.enter_context(Upstream())
        sides: list[Side] = []
        for fail_closed in (False, True):
            console.print("starting LiteLLM's proxy ...")
            sides.append(await stack.enter_async_context(proxy(upstream.api_base, fail_closed=fail_closed)))
        sides.append(await stack.enter_async_context(bursar(upstream.api_base)))
        measurement = Measurement(upstream, sides)
        for number in range(repetitions):
            console.print(f"repetition {number + 1} of {repetitions} ...")
            await measurement.repetition(number, cases(many=many), calls)
    return measurement.seen


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="once, with fewer calls: whether it works, not how well")
    quick = parser.parse_args().quick
    if not COMMAND.exists():
        sys.exit("LiteLLM's environment is missing -> make bench-peers")
    repetitions = 1 if quick else 3
    seen = asyncio.run(measure(repetitions=repetitions, many=100 if quick else 500, calls=50 if quick else 200))
    _print(seen, repetitions)


def _print(seen: Seen, repetitions: int) -> None:
    console = Console(width=140)
    table = Table("", *_SIDES, title="A limit with LiteLLM's proxy and with Bursar")
    for row, figures in seen.rows.items():
        table.add_row(row, *(_cell(figures[side]) for side in _SIDES))
    console.print(table)
    console.print(
        f"CPU ms a call: the bare client {_cell(seen.bare)}, bursar.budget alone {_cell(seen.ledger)} "
        "(reserve, dispatch and settle over two scopes).",
        highlight=False,
    )
    console.print(CAPTION.format(times=repetitions), highlight=False)


def _cell(figures: Sequence[float]) -> str:
    low, median, high = (f"{figure:.4g}" for figure in (min(figures), statistics.median(figures), max(figures)))
    return median if low == high else f"{median} ({low}-{high})"


main()
