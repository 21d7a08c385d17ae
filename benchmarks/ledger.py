"""The ledger alone: what reserve and settle cost, by store, by the number of clients, and out of slices.

`python -m benchmarks.ledger` prints the whole table: 1, 16 and 64 clients in up to 4 processes, all on one hot tenant
and spread over 100 tenants, on SQLite and on PostgreSQL, call by call and out of slices of 16 calls.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Barrier
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bursar.budget import Amounts, Call, Ledger, Limits, ModelQuote, Price, Reservation, Scope, Usage
from bursar.budget.slices import Slice
from bursar.budget.stores.prepared import driver_of

__all__ = ["Figures", "Load", "main", "measure", "statements", "stores"]

PROCESSES_MAX = 4
SLICE_CALLS = 16
CALLS = {1: 1000, 16: 60, 64: 20}
"""Calls of each client, by the number of clients."""

_PRICE = Price(
    id="bench",
    source="benchmarks",
    effective=date(2026, 11, 20),
    input_usd_per_mtok=Decimal("0.4"),
    output_usd_per_mtok=Decimal("1.6"),
)
_QUOTE = ModelQuote(model="m", price=_PRICE, input_tokens=1_000, max_output_tokens=500, min_output_tokens=16)
_USAGE = Usage(input_tokens=900, output_tokens=250)
_REPLY = "x" * 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Who calls: so many clients, over so many tenants, each call over four scopes."""

    clients: int = 1
    tenants: int = 1
    slices: bool = False
    dispatch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a pair of reserve and settle takes; CPU of the clients only, not of a database server."""

    per_second: float
    cpu_ms: float
    wall_ms_p50: float
    wall_ms_p99: float


@contextlib.contextmanager
def stores() -> Iterator[dict[str, str]]:
    """The URL of a fresh SQLite file and of a fresh PostgreSQL database, with all tables."""
    from tests.support.postgres import shared_postgres

    with tempfile.TemporaryDirectory() as folder, shared_postgres() as server, server.migrated() as postgresql:
        yield {"SQLite": f"sqlite:///{Path(folder) / 'ledger.db'}", "PostgreSQL": postgresql}


def measure(url: str, load: Load) -> Figures:
    """Run a load on a store and say what a pair took."""
    _declare(url, load)
    processes = min(load.clients, PROCESSES_MAX)
    spawn = multiprocessing.get_context("spawn")
    start, answers = spawn.Barrier(processes), spawn.Queue()
    workers = [_worker(spawn, url, load, number, processes, start, answers) for number in range(processes)]
    found = [answers.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    walls = [wall for _, _, of_one in found for wall in of_one]
    begun, ended = min(one[0][0] for one in found), max(one[0][1] for one in found)
    return Figures(
        per_second=len(walls) / (ended - begun),
        cpu_ms=sum(cpu for _, cpu, _ in found) * 1000 / len(walls),
        wall_ms_p50=statistics.median(walls) * 1000,
        wall_ms_p99=statistics.quantiles(walls, n=100)[98] * 1000,
    )


def statements(*, scopes: int = 4, dispatch: bool = False) -> int:
    """How many statements a pair takes on SQLite, BEGIN and COMMIT included."""
    seen: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        _declare(url, Load(), scopes=scopes)
        ledger = Ledger.open(url)
        with ledger.store.write() as connection:
            driver = driver_of(connection)
        scope = _scope(0, 1)
        _pay(ledger, scope, 1, "first", dispatch=dispatch)
        driver.set_trace_callback(seen.append)  # type: ignore[attr-defined]  # SQLite's own
        _pay(ledger, scope, 1, "counted", dispatch=dispatch)
        driver.set_trace_callback(None)  # type: ignore[attr-defined]
        ledger.close()
    return len(seen)


def main() -> None:
    """Measure every load on both stores and print a table."""
    console = Console()
    table = Table("store", "clients", "tenants", "", "pairs/s", "of plain", "CPU ms", "p50 ms", "p99 ms")
    with stores() as urls, console.status("measuring") as status:
        for store, url in urls.items():
            for clients in CALLS:
                for tenants in (1, 100) if clients > 1 else (1,):
                    plain = 0.0
                    for slices in (False, True):
                        status.update(f"{store}, {clients} clients, {tenants} tenants")
                        found = measure(url, Load(clients=clients, tenants=tenants, slices=slices))
                        plain = plain or found.per_second
                        table.add_row(
                            *(store, str(clients), str(tenants), "slices" if slices else "plain"),
                            *(f"{found.per_second:,.0f}", f"{found.per_second / plain:.1f}", f"{found.cpu_ms:.2f}"),
                            *(f"{found.wall_ms_p50:.2f}", f"{found.wall_ms_p99:.2f}"),
                        )
    console.print(table)


def _declare(url: str, load: Load, *, scopes: int = 4) -> None:
    """Budgets for every tenant and an open run for every client: four scopes a call."""
    ledger = Ledger.open(url)
    for number in range(load.tenants):
        tenant = f"tenant{number}"
        ledger.budgets.set(tenant, per="month", limit={"nanousd": 10**15}, author="bench")
        if scopes == 4:
            ledger.budgets.set(tenant, per="day", limit={"nanousd": 10**15}, author="bench")
            ledger.budgets.set(f"{tenant}/support", per="day", limit={"tokens": 10**15}, author="bench")
    for client in range(load.clients):
        scope = _scope(client, load.tenants)
        ledger.gates.open(scope, Limits.unlimited())
        ledger.gates.hold(scope.run_path, "bench", 600)
        ledger.gates.reopen(scope.run_path, author="bench")
    ledger.close()


def _scope(client: int, tenants: int) -> Scope:
    return Scope(tenant=f"tenant{client % tenants}", agents=("support",), run_id=f"run_{tenants}_{client}")


def _worker(
    spawn: SpawnContext, url: str, load: Load, number: int, processes: int, start: Barrier, answers: object
) -> multiprocessing.process.BaseProcess:
    worker = spawn.Process(target=_work, args=(url, load, number, processes, start, answers))
    worker.start()
    return worker


def _work(url: str, load: Load, number: int, processes: int, start: Barrier, answers: object) -> None:
    """One process: a thread for each of its clients."""
    ledger = Ledger.open(url)
    walls: list[list[float]] = [[] for _ in range(number, load.clients, processes)]
    clients = [
        threading.Thread(target=_call, args=(ledger, load, client, of_one))
        for client, of_one in zip(range(number, load.clients, processes), walls, strict=True)
    ]
    start.wait()
    cpu, begun = time.process_time(), time.monotonic()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    spent = time.process_time() - cpu
    answers.put(((begun, time.monotonic()), spent, [wall for of_one in walls for wall in of_one]))  # type: ignore[attr-defined]
    ledger.close()


def _call(ledger: Ledger, load: Load, client: int, walls: list[float]) -> None:
    scope = _scope(client, load.tenants)
    epoch = ledger.gates.hold(scope.run_path, "bench", 600).epoch
    one: Slice | None = None
    for number in range(CALLS[load.clients]):
        begun = time.perf_counter()
        if load.slices:
            if number % SLICE_CALLS == 0:
                one = _next_slice(ledger, scope, epoch, one)
            _pay_of(one, scope, epoch, f"{epoch}:{number}")
        else:
            _pay(ledger, scope, epoch, f"{epoch}:{number}", dispatch=load.dispatch)
        walls.append(time.perf_counter() - begun)
    if one is not None:
        one.close()


def _pay(ledger: Ledger, scope: Scope, epoch: int, name: str, *, dispatch: bool) -> None:
    made = ledger.reserve(_named(name, scope, epoch), _QUOTE)
    if not isinstance(made, Reservation):
        raise TypeError(made)
    if dispatch:
        ledger.dispatch(made)
    ledger.settle(made, usage=_USAGE, outcome="exact", reply=_REPLY, counted_input_tokens=900)


def _next_slice(ledger: Ledger, scope: Scope, epoch: int, last: Slice | None) -> Slice:
    if last is not None:
        last.close()
    amounts = Amounts(nanousd=_PRICE.worst_case(1_000, 500), tokens=1_500, steps=1)
    whole = Amounts(*(getattr(amounts, name) * SLICE_CALLS for name in ("nanousd", "tokens", "steps")))
    made = ledger.slices.open(scope, epoch, whole, seconds=60, batch=SLICE_CALLS, after=last)
    if not isinstance(made, Slice):
        raise TypeError(made)
    return made


def _pay_of(one: Slice | None, scope: Scope, epoch: int, name: str) -> None:
    made = one.reserve(_named(name, scope, epoch), _QUOTE) if one else None
    if one is None or not isinstance(made, Reservation):
        raise TypeError(made)
    one.settle(made, usage=_USAGE, outcome="exact", reply=_REPLY)


def _named(name: str, scope: Scope, epoch: int) -> Call:
    return Call(id=name, scope=scope, epoch=epoch, node="model", tier="small", model="m", reason="r")


if __name__ == "__main__":
    main()
