"""The ledger without a runtime: what `bursar.budget` costs a program that calls its provider by itself."""

from __future__ import annotations

import tempfile
import time
from datetime import date
from decimal import Decimal
from pathlib import Path

from benchmarks.peers.cases import INPUT_USD_PER_MTOK, OUTPUT_USD_PER_MTOK, QUESTION_TOKENS
from bursar.budget import Call, Ledger, Limits, ModelQuote, Price, Reservation, Scope, Usage

__all__ = ["ledger_cpu_ms"]

_PRICE = Price(
    id="house",
    source="benchmarks",
    effective=date(2026, 11, 20),
    input_usd_per_mtok=Decimal(INPUT_USD_PER_MTOK),
    output_usd_per_mtok=Decimal(OUTPUT_USD_PER_MTOK),
)
_QUOTE = ModelQuote(model="house", price=_PRICE, input_tokens=QUESTION_TOKENS, max_output_tokens=100)
_USAGE = Usage(input_tokens=QUESTION_TOKENS, output_tokens=100)


def ledger_cpu_ms(calls: int) -> float:
    """CPU ms of a call's reserve, dispatch and settle, in the scopes of a tenant and of a run, on SQLite."""
    scope = Scope(tenant="acme", agents=("support",), run_id="run_1")
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}")
        ledger.budgets.set("acme", limit={"nanousd": 10**15}, author="bench")
        ledger.gates.open(scope, Limits.unlimited())
        epoch = ledger.gates.hold(scope.run_path, "bench", 600).epoch
        _pay(ledger, Call(id="first", scope=scope, epoch=epoch, node="loop"))
        begun = time.process_time()
        for number in range(calls):
            _pay(ledger, Call(id=f"{number}", scope=scope, epoch=epoch, node="loop"))
        used = time.process_time() - begun
        ledger.close()
    return used * 1_000 / calls


def _pay(ledger: Ledger, call: Call) -> None:
    made = ledger.reserve(call, _QUOTE)
    assert isinstance(made, Reservation), made
    ledger.dispatch(made)
    ledger.settle(made, usage=_USAGE, outcome="exact", reply="It is on its way.")
