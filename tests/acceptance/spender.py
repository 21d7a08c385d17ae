"""A process that spends: it opens a runtime, and once it is told to, makes many runs of every tenant at once.

    python -m tests.acceptance.spender CONFIG RUNS TENANT...

A tenant's runs ask the tier of its own name. It prints `ready`, waits for a file `go` beside the configuration, and
prints how many runs ended in which way, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

from tests.acceptance.support import QUESTION, one_call, opened

__all__ = ["main"]


async def main(config: Path, runs: int, tenants: list[str]) -> None:
    """Make so many runs of each tenant."""
    graphs = {tenant: one_call(tenant) for tenant in tenants}
    async with opened(config) as runtime:
        print("ready", flush=True)
        await asyncio.to_thread(_wait_for, config.parent / "go")
        made = [
            runtime.run(graphs[tenant], {"question": QUESTION}, tenant=tenant, name="asker")
            for _ in range(runs)
            for tenant in tenants
        ]
        ended = await asyncio.gather(*made)
    print(json.dumps(Counter(run.status for run in ended)), flush=True)


def _wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
