"""The ledger alone: CPU and wall time of reserve, dispatch and settle, and the statements that they take."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

from bursar.budget import Call, Ledger, Limits, ModelQuote, Price, Reservation, Scope, Usage
from bursar.budget.prepared import driver_of

CALLS = 500

_PRICE = Price(
    id="bench",
    source="benchmarks",
    effective=date(2026, 11, 20),
    input_usd_per_mtok=Decimal("0.4"),
    output_usd_per_mtok=Decimal("1.6"),
)


def measure(scopes: int) -> dict[str, float]:
    """Per call over 2 or 4 scopes: CPU ms, wall ms (median and 99th percentile), and statements."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}")
        try:
            return _measured(ledger, _opened(ledger, scopes))
        finally:
            ledger.close()


def _opened(ledger: Ledger, scopes: int) -> tuple[Scope, int]:
    ledger.budgets.set("acme", per="month", limit={"nanousd": 10**15}, author="bench")
    if scopes == 4:
        ledger.budgets.set("acme", per="day", limit={"nanousd": 10**15}, author="bench")
        ledger.budgets.set("acme/support", per="day", limit={"tokens": 10**15}, author="bench")
    scope = Scope(tenant="acme", agents=("support",), run_id="run_1")
    ledger.gates.open(scope, Limits.unlimited())
    return scope, ledger.gates.hold(scope.run_path, "bench", 600).epoch


def _measured(ledger: Ledger, opened: tuple[Scope, int]) -> dict[str, float]:
    scope, epoch = opened

    def pay(number: int) -> None:
        call = Call(id=f"run_1:{number}", scope=scope, epoch=epoch, node="model", tier="small", model="m", reason="r")
        made = ledger.reserve(
            call, ModelQuote(model="m", price=_PRICE, input_tokens=1_000, max_output_tokens=500, min_output_tokens=16)
        )
        if not isinstance(made, Reservation):
            raise TypeError(made)
        ledger.dispatch(made)
        usage = Usage(input_tokens=900, output_tokens=250)
        ledger.settle(made, usage=usage, outcome="exact", reply="x" * 1_000, counted_input_tokens=900)

    for number in range(50):
        pay(-number - 1)
    statements = _counted(ledger, lambda: pay(CALLS))
    walls = []
    begun = time.process_time()
    for number in range(CALLS):
        at = time.perf_counter()
        pay(number)
        walls.append((time.perf_counter() - at) * 1000)
    cpu = (time.process_time() - begun) * 1000 / CALLS
    return {
        "cpu_ms": cpu,
        "wall_ms_median": statistics.median(walls),
        "wall_ms_p99": statistics.quantiles(walls, n=100)[98],
        "statements": statements,
    }


def _counted(ledger: Ledger, operation: Callable[[], None]) -> int:
    """How many statements an operation takes, transactions' own included."""
    seen: list[str] = []
    with ledger.store.write() as connection:
        driver = driver_of(connection)
    driver.set_trace_callback(seen.append)
    operation()
    driver.set_trace_callback(None)
    return len(seen)
