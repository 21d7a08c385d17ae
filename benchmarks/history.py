"""A ledger with any number of entries, made fast and whole; and what a call costs in it beside an empty one.

`python -m benchmarks.history --entries 10000000` prints the ratios.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bursar.budget import Amounts, Call, Ledger, Limits, ModelQuote, Price, Reservation, Scope, Usage
from bursar.budget.audit.verify import verify
from bursar.budget.journal import NOTHING, body_of, columns_of, hash_of
from bursar.budget.schema import account, chain, entry, reservation
from bursar.budget.stores.prepared import driver_of
from bursar.budget.stores.store import Store
from bursar.budget.windows import to_us

__all__ = ["fill", "main"]

CALLS_PER_RUN = 50
RUNS_PER_DAY = 250
ROUNDS = 9
CALLS = 40

PRICE = Price(
    id="bench",
    source="benchmarks",
    effective=date(2026, 1, 1),
    input_usd_per_mtok=Decimal("0.4"),
    output_usd_per_mtok=Decimal("1.6"),
)
USAGE = Usage(input_tokens=900, output_tokens=250)
HELD = Amounts(nanousd=PRICE.worst_case(1_000, 500), tokens=1_500, steps=1)
POSTED = Amounts(nanousd=PRICE.cost(USAGE), tokens=USAGE.total_tokens, steps=1)


class Clock:
    """A clock that is turned."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def main() -> None:
    """Make the ledgers, measure, verify and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where there is room for it; about 700 bytes an entry")
    parser.add_argument("--verify", action="store_true", help="verify the filled ledger too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        _compare(Path(folder), given.entries, also_verify=given.verify)


def fill(store: Store, entries: int) -> None:
    """Write the calls of a tenant, two entries each, as the ledger would have; runs are opened by the ledger itself.

    The store is one of SQLite with all tables and nothing in them.
    """
    clock = Clock(datetime(2026, 1, 1, tzinfo=UTC))
    ledger = Ledger(store, clock=clock)
    _set_budgets(ledger)
    runs = -(-entries // (2 * CALLS_PER_RUN))
    for first in range(0, runs, RUNS_PER_DAY):
        names = [f"run_{number}" for number in range(first, min(first + RUNS_PER_DAY, runs))]
        _a_day(ledger, clock, names)
        clock.now += timedelta(days=1)


def _set_budgets(ledger: Ledger) -> None:
    ledger.budgets.set("acme", per="month", limit={"nanousd": 10**17}, author="bench")
    ledger.budgets.set("acme/support", per="hour", limit={"tokens": 10**15}, author="bench")


def _scope(run: str) -> Scope:
    return Scope(tenant="acme", agents=("support",), run_id=run)


def _a_day(ledger: Ledger, clock: Clock, runs: list[str]) -> None:
    """Open the runs, and let each make one call as every program does, which opens the windows; then write the rest."""
    for run in runs:
        ledger.gates.open(_scope(run), Limits.unlimited())
    made = [_reserve(ledger, run, 0, "first") for run in runs]
    for one in made:
        _settle(ledger, one)
    with ledger.store.write() as connection:
        driver = driver_of(connection)
        number, hashed = driver.execute("SELECT number, hash FROM chain WHERE name = 'acme'", {}).fetchall()[0]
        (first_id,) = driver.execute("SELECT max(id) + 1 FROM reservation", {}).fetchall()[0]
        rows = _Rows(number, hashed, first_id, to_us(clock.now))
        for one in made:
            rows.add(one, CALLS_PER_RUN - 1)
        _insert(driver, reservation.name, RESERVATION, rows.reservations)
        _insert(driver, entry.name, ENTRY, rows.entries)
        connection.execute(chain.update().where(chain.c.name == "acme").values(number=rows.number, hash=rows.hash))
        _post(connection, made, CALLS_PER_RUN - 1)


class _Rows:
    """Rows of calls, and the chain as far as they take it; of a run, all are alike but for their numbers."""

    def __init__(self, number: int, hashed: str, first_id: int, now: int) -> None:
        self.number, self.hash, self._now = number, hashed, now
        self._ids = itertools.count(first_id)
        self.entries: list[tuple[Any, ...]] = []
        self.reservations: list[tuple[Any, ...]] = []

    def add(self, first: Reservation, calls: int) -> None:
        """More settled calls of the run that made this one, with their entries."""
        times = dict.fromkeys(("reserved_us", "dispatched_us", "closed_us", "deadline_us"), self._now)
        its_own = {"run_id": first.call.scope.run_id, "accounts": first.accounts, **times}
        rest = tuple((_A_CALL | its_own)[name] for name in RESERVATION[2:])
        kinds = [
            self._kind("reserve", first.accounts, HELD, NOTHING),
            self._kind("settle", first.accounts, NOTHING - HELD, POSTED),
        ]
        for number in range(1, calls + 1):
            key = next(self._ids)
            self.reservations.append((key, f"{first.call.id}:{number}", *rest))
            for before, after, values in kinds:
                self.number, self.hash = self.number + 1, hash_of(self.hash, f"{before}{key}{after}")
                self.entries.append((self.number, key, self.hash, *values))

    def _kind(self, kind: str, accounts: str, held: Amounts, posted: Amounts) -> tuple[str, str, tuple[Any, ...]]:
        """What the hash of such an entry covers, before and after the reservation's id; and its columns."""
        row = _NOTHING_SAID | columns_of("held", held) | columns_of("posted", posted)
        row |= {"chain": "acme", "at_us": self._now, "kind": kind, "accounts": accounts, "reservation_id": "ID"}
        before, after = body_of(row).split('"ID"')
        return before, after, tuple(row[name] for name in ENTRY[3:])


RESERVATION = ("id", "call", *(column.name for column in reservation.c if column.name not in ("id", "call")))
ENTRY = (
    *("number", "reservation_id", "hash"),
    *(column.name for column in entry.c if column.name not in ("number", "reservation_id", "hash")),
)
_NOTHING_SAID: dict[str, Any] = dict.fromkeys(entry.c.keys())
_A_CALL: dict[str, Any] = dict.fromkeys(column.name for column in reservation.c) | {
    "attempt": 0,
    "kind": "model",
    "state": "settled",
    "outcome": "exact",
    "tenant": "acme",
    "agent": "support",
    "epoch": 0,
    "node": "model",
    "tier": "small",
    "model": "m",
    "price_id": PRICE.id,
    "max_output_tokens": 500,
    "capped": 0,
    "replays": 0,
    "usage": json.dumps(USAGE.to_record()),
    "reply": "x" * 40,
    **columns_of("held", HELD),
    **columns_of("posted", POSTED),
}


def _insert(driver: Any, table: str, names: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
    columns, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" for _ in names)
    driver.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)


def _post(connection: Any, made: list[Reservation], calls: int) -> None:
    for one in made:
        more = {name: account.c[name] + amount * calls for name, amount in columns_of("posted", POSTED).items()}
        ids = json.loads(one.accounts)
        connection.execute(account.update().where(account.c.id.in_(ids)).values(more))


def _reserve(ledger: Ledger, run: str, epoch: int, call: str) -> Reservation:
    quote = ModelQuote(model="m", price=PRICE, input_tokens=1_000, max_output_tokens=500, min_output_tokens=16)
    made = ledger.reserve(Call(id=call, scope=_scope(run), epoch=epoch, node="model", tier="small", model="m"), quote)
    if not isinstance(made, Reservation):
        raise TypeError(made)
    return made


def _settle(ledger: Ledger, made: Reservation) -> None:
    ledger.dispatch(made)
    ledger.settle(made, usage=USAGE, outcome="exact", reply="x" * 40)


# --- Measuring --------------------------------------------------------------------------------------------------------


class Measured:
    """What is done in a ledger, again and again, after its past."""

    def __init__(self, url: str, past: int) -> None:
        self.clock = Clock(datetime(2040, 1, 1, tzinfo=UTC))
        self.ledger = Ledger.open(url, clock=self.clock)
        fill(self.ledger.store, past)
        self.ledger.gates.open(_scope("bench"), Limits.unlimited())
        self.epoch = self.ledger.gates.hold(_scope("bench").run_path, "bench", 10**9).epoch
        self._calls = 0

    def pay(self) -> None:
        """Reserve, dispatch and settle one call."""
        self._calls += 1
        _settle(self.ledger, _reserve(self.ledger, "bench", self.epoch, f"call {self._calls}"))

    def pay_in_a_new_window(self) -> None:
        """The same in the first moment of an hour."""
        self.clock.now += timedelta(hours=1)
        self.pay()

    def ls(self) -> None:
        """List the budgets."""
        self.ledger.budgets.ls()

    def statements(self, operation: Callable[[], None]) -> int:
        """How many statements an operation runs on the writing connection, transactions' own included."""
        seen: list[str] = []
        with self.ledger.store.write() as connection:
            driver: Any = driver_of(connection)
        driver.set_trace_callback(seen.append)
        operation()
        driver.set_trace_callback(None)
        return len(seen)


OPERATIONS = {
    "reserve, dispatch, settle": Measured.pay,
    "the same in a new window": Measured.pay_in_a_new_window,
    "budget ls": Measured.ls,
}


def _compare(folder: Path, entries: int, *, also_verify: bool) -> None:
    console = Console()
    begun = time.perf_counter()
    empty, full = (Measured(f"sqlite:///{folder / name}.db", past) for name, past in (("empty", 0), ("full", entries)))
    size = (folder / "full.db").stat().st_size / 2**20
    console.print(f"{entries:,} entries made in {time.perf_counter() - begun:.0f} s, {size:,.0f} MiB")
    for one in (empty, full):
        one.pay_in_a_new_window()
    table = Table("SQLite", "writes", "", "CPU ms, empty", f"{entries:,} entries", "ratio")
    for name, operation in OPERATIONS.items():
        counts = [one.statements(partial(operation, one)) for one in (empty, full)]
        of_empty, of_full = _in_turns(partial(operation, empty), partial(operation, full))
        table.add_row(name, *map(str, counts), f"{of_empty:.3f}", f"{of_full:.3f}", f"{of_full / of_empty:.2f}")
    console.print(table)
    if also_verify:
        _verify(console, full.ledger.store)
    empty.ledger.close()
    full.ledger.close()


def _in_turns(*operations: Callable[[], None]) -> list[float]:
    """CPU ms of each, the median of several rounds in which all take their turn."""
    seen: list[list[float]] = [[] for _ in operations]
    for _ in range(ROUNDS):
        for figures, operation in zip(seen, operations, strict=True):
            begun = time.process_time()
            for _ in range(CALLS):
                operation()
            figures.append((time.process_time() - begun) * 1000 / CALLS)
    return [statistics.median(figures) for figures in seen]


def _verify(console: Console, store: Store) -> None:
    before_mib = _peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    audit = verify(store)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    console.print(
        f"verify: {audit.entries:,} entries, {len(audit.findings)} findings, {wall:.0f} s, "
        f"{cpu / audit.entries * 1e6:.1f} CPU us an entry, at most {_peak_mib():,.0f} MiB (before: {before_mib:,.0f})",
        soft_wrap=True,
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
