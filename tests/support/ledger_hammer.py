"""Processes full of tasks that spend from one nearly empty budget as fast as they can, and keep what was billed.

`python -m tests.support.ledger_hammer URL FOLDER SECONDS` starts the processes and says `start PID` for each; one that
is killed is started again. Each appends to a file of its own in FOLDER, which survives its death: `sent RUN CALL` when
the provider gets a request, and `billed RUN CALL TOKENS` when it answers.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from bursar.budget import Amounts, Ledger, Reservation, Scope
from bursar.budget.errors import LedgerUnavailable, ReservationError
from bursar.budget.testing import a_call, a_quote, tokens
from bursar.budget.windows import to_us, utc_now

PROCESSES, TASKS, RUNS = 8, 50, 100
REFILL = Amounts(tokens=1_000)
"""What the tenant is granted again and again, so that its budget stays nearly empty."""

REFILL_S = 0.1
PATIENCE_US = 2_000_000
CALL_S = 0.04
"""How long the provider takes at most."""

STAY_AWAY_S = 0.2
"""How long, at most, a task that got nothing waits before it asks again."""


def scope_of(number: int) -> Scope:
    """One of the runs."""
    return Scope(tenant="acme", agents=("support",), run_id=f"run_{number}")


@dataclass
class Worker:
    """One process."""

    ledger: Ledger
    file: int
    until: float
    parent: int
    names: str = field(default_factory=lambda: f"{os.getpid()}:{time.time_ns()}")
    """What tells its calls from those of all others, whatever number the system gives to later processes."""

    def goes_on(self) -> bool:
        return time.time() < self.until and os.getppid() == self.parent

    def task(self, number: int) -> None:
        rng = random.Random(f"{self.names} {number}")
        count = 0
        while self.goes_on():
            count += 1
            self.call(rng, f"{self.names}:{number}:{count}")

    def call(self, rng: random.Random, id: str) -> None:
        try:
            made = self.ledger.reserve(
                a_call(id, scope=scope_of(rng.randrange(RUNS))),
                a_quote(rng.randrange(1, 60), rng.randrange(16, 60)),
                deadline_us=to_us(utc_now()) + PATIENCE_US,
            )
            if isinstance(made, Reservation):
                self.spend(rng, made)
            else:
                time.sleep(rng.random() * STAY_AWAY_S)
        except LedgerUnavailable:
            return  # nothing is sent that is not reserved

    def spend(self, rng: random.Random, made: Reservation) -> None:
        if rng.random() < 0.2:
            self.ledger.release(made, note="never sent")
            return
        try:
            self.ledger.dispatch(made)
        except ReservationError:
            return  # it came too late
        where = f"{made.call.scope.run_id} {made.call.id}"
        self.say(f"sent {where}")
        time.sleep(rng.random() * CALL_S)
        used = rng.randrange(1, made.held.tokens + 1)
        self.say(f"billed {where} {used}")
        if rng.random() < 0.3:
            self.shrink(made, used)
        self.settle(made, used)

    def settle(self, made: Reservation, used: int) -> None:
        while self.goes_on():
            try:
                self.ledger.settle(made, usage=tokens(used), outcome="exact", reply="hello")
                return
            except LedgerUnavailable:
                continue

    def shrink(self, made: Reservation, used: int) -> None:
        """Hold no more than was billed; what is settled then says nothing of it, as after a cut."""
        with contextlib.suppress(LedgerUnavailable):
            self.ledger.shrink(made, Amounts(made.held.nanousd, used, made.held.steps))

    def refill(self) -> None:
        while self.goes_on():
            try:
                self.ledger.budgets.grant("acme", REFILL, author="dana", note="a little more")
                self.ledger.reap()
            except LedgerUnavailable:
                continue
            time.sleep(REFILL_S)

    def say(self, line: str) -> None:
        os.write(self.file, f"{line}\n".encode())  # in one write, which a kill cannot cut in two


def work(url: str, folder: Path, until: float, parent: int) -> None:
    """Be one of the processes until the time is over."""
    file = os.open(folder / f"{os.getpid()}.{time.time_ns()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(1, f"start {os.getpid()}\n".encode())
    worker = Worker(opened(url), file, until, parent)
    threads = [threading.Thread(target=worker.task, args=(number,)) for number in range(TASKS)]
    threads.append(threading.Thread(target=worker.refill))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def opened(url: str) -> Ledger:
    """The ledger, as soon as the server has let go of connections of processes that were killed."""
    while True:
        try:
            return Ledger.open(url)
        except LedgerUnavailable:
            time.sleep(STAY_AWAY_S)


def main(url: str, folder: str, seconds: str) -> None:
    until, parent = time.time() + float(seconds), os.getpid()
    for _ in range(PROCESSES):
        if os.fork() == 0:
            return work(url, Path(folder), until, parent)
    alive = PROCESSES
    while alive:
        _, status = os.wait()
        if not os.WIFSIGNALED(status):
            alive -= 1
        elif os.fork() == 0:
            return work(url, Path(folder), until, parent)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
