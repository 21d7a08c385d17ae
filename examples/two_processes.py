"""One budget used up by two processes at once: however they race, together they never spend more than there is.

python examples/two_processes.py
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bursar.agents import Agent
from bursar.budget import Amounts
from bursar.budget.money import format_usd
from bursar.runtime import Runtime
from bursar.runtime.config import load_config
from bursar.runtime.opening import open_ledger
from bursar.runtime.runs.run import Run

CONFIG = Path(__file__).with_name("bursar.yaml")
TENANT = "shared"
RUNS_EACH = 20

racer = Agent(name="racer", instructions="Be brief.", tier="research", max_output_tokens=60, on_limit="stop")


async def race() -> list[Run]:
    """Start more runs at once than the budget can pay for."""
    async with Runtime.open(CONFIG) as runtime:
        runs = (runtime.run(racer, "Is tea healthy?", tenant=TENANT) for _ in range(RUNS_EACH))
        return await asyncio.gather(*runs)


def use_up(process: int) -> str:
    """Race, and say in a line what came of it."""
    runs = asyncio.run(race())
    answered = [run for run in runs if run.output]
    spent = format_usd(sum(run.spent.nanousd for run in runs))
    return f"{process:7}  {len(answered):8}  {len(runs) - len(answered):7}  {spent:>10}"


def main() -> None:
    ledger, _ = open_ledger(load_config(CONFIG))
    ledger.budgets.grant(TENANT, Amounts(nanousd=1_000_000), author="two_processes.py", note="for both together")

    context = get_context("spawn")
    both_are_there = context.Barrier(2, timeout=60).wait
    with ProcessPoolExecutor(2, context, initializer=both_are_there) as pool:
        print("process  answered  refused       spent", *pool.map(use_up, (1, 2)), sep="\n")

    (budget,) = ledger.budgets.ls(TENANT)
    print(f"together {format_usd(budget.posted.nanousd)} of {format_usd(budget.limit['nanousd'] or 0)}")
    ledger.close()


if __name__ == "__main__":
    main()
