"""Rolls up all that is past in a store, in small batches, and says so after each: a child for tests to kill."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from bursar.budget import Store
from bursar.budget.audit import retention
from bursar.budget.testing import Clock

KEY = b"a secret of at least thirty-two bytes"


def main(url: str) -> None:
    """Roll up as of the year 2040."""
    clock = Clock(datetime(2040, 1, 1, tzinfo=UTC))
    retention.BATCH = 5
    retention.compact(
        Store(url), before=clock.now, clock=clock, key=KEY, author="ada", progress=lambda done: print(done.entries)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
