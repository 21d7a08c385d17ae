"""CPU time of several variants in one process, taken in turns so that whatever disturbs one disturbs all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping

__all__ = ["cpu_ms"]


async def cpu_ms(
    variants: Mapping[str, Callable[[], Awaitable[None]]],
    *,
    per: int = 1,
    before: Callable[[], None] = lambda: None,
    rounds: int = 9,
    warm_up: int = 2,
) -> dict[str, float]:
    """Median CPU ms (user and system, all threads of this process) of each variant, divided by `per`.

    `before` is called before each and not measured.
    """
    seen: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warm_up + rounds):
        for name, variant in variants.items():
            before()
            begun = time.process_time()
            await variant()
            if turn >= warm_up:
                seen[name].append((time.process_time() - begun) * 1000 / per)
    return {name: statistics.median(figures) for name, figures in seen.items()}
