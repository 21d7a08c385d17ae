"""Processes that spend from one ledger, and say on stdout what a provider would have billed; a kill loses none of it.

`python -m tests.support.ledger_worker URL CALLS GO RUN...` is one process for each run; once the file GO exists, each
makes its calls. One that is killed is started again. Lines: `start RUN PID`, `billed RUN CALL ATTEMPT TOKENS`,
`refused RUN CAUSE PATH`, `done RUN`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bursar.budget import Ledger, Limits, Refusal, Replay, Reservation, Scope, Wait
from bursar.budget.errors import ConflictError
from bursar.budget.testing import a_call, a_quote, tokens

LEASE_S = 0.2


def main(url: str, calls: str, go: str, *runs: str) -> None:
    parent, working = os.getpid(), {}
    for run in runs:
        if (pid := os.fork()) == 0:
            return spend(url, run, int(calls), Path(go), parent)
        working[pid] = run
    while working:
        pid, status = os.wait()
        run = working.pop(pid)
        if os.WIFSIGNALED(status):
            if (pid := os.fork()) == 0:
                return spend(url, run, int(calls), Path(go), parent)
            working[pid] = run
    return None


def say(*words: object) -> None:
    """One line in one write, which a kill cannot cut in two."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def spend(url: str, run: str, calls: int, go: Path, parent: int) -> None:
    say("start", run, os.getpid())
    while not go.exists() and os.getppid() == parent:
        time.sleep(0.001)
    ledger = Ledger.open(url)
    scope = Scope(tenant="acme", agents=("support",), run_id=run)
    ledger.gates.open(scope, Limits.unlimited())
    epoch = take(ledger, scope)
    for number in range(calls):
        if os.getppid() != parent:
            return
        ledger.gates.renew(holder(), LEASE_S)
        made = reserve(ledger, scope, epoch, f"call_{number}")
        if isinstance(made, Refusal):
            say("refused", run, made.cause, made.path)
        if isinstance(made, Reservation):
            send(ledger, made, 50 - number % 3 * 10)
    say("done", run)


def holder() -> str:
    return f"worker {os.getpid()}"


def take(ledger: Ledger, scope: Scope) -> int:
    """Take the run as soon as its last holder is no longer believed alive."""
    while True:
        try:
            return ledger.gates.hold(scope.run_path, holder(), LEASE_S).epoch
        except ConflictError:
            time.sleep(0.01)


def reserve(ledger: Ledger, scope: Scope, epoch: int, id: str) -> Reservation | Replay | Refusal:
    call, quote = a_call(id, scope=scope, epoch=epoch), a_quote(min_output_tokens=50)
    while isinstance(made := ledger.reserve(call, quote), Wait):
        time.sleep(0.001)
    return made


def send(ledger: Ledger, made: Reservation, output_tokens: int) -> None:
    ledger.dispatch(made)
    say("billed", made.call.scope.run_id, made.call.id, made.attempt, 50 + output_tokens)
    ledger.settle(made, usage=tokens(50, output_tokens), outcome="exact", reply="hello")


if __name__ == "__main__":
    main(*sys.argv[1:])
