"""Eight processes of fifty tasks on one nearly empty budget, killed at random: nobody overspends and nothing is lost.

For four seconds; `BURSAR_SCHEDULES=nightly` makes it thirty.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import RowMapping, select

from bursar.budget import Amounts, Ledger, Limits, Store
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.audit.verify import verify
from bursar.budget.journal import amounts_in
from bursar.budget.schema import entry, reservation
from bursar.budget.testing import audit
from tests.support.ledger_hammer import PROCESSES, RUNS, scope_of
from tests.support.processes import Child

SECONDS = 30 if os.environ.get("BURSAR_SCHEDULES") == "nightly" else 4
SEED = 20


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the provider knows of calls, by run and call."""

    sent: frozenset[tuple[str, str]]
    billed: dict[tuple[str, str], int]
    """In tokens."""


def truth_in(folder: Path) -> Truth:
    lines = [line.split() for file in folder.iterdir() for line in file.read_text().splitlines()]
    return Truth(
        sent=frozenset((run, call) for word, run, call, *_ in lines if word == "sent"),
        billed={(run, call): int(rest[0]) for word, run, call, *rest in lines if word == "billed"},
    )


def hammer(url: str, folder: Path) -> int:
    """Let all loose for the time, killing one of them again and again; how many were killed."""
    rng, killed = random.Random(SEED), 0
    with Child("-m", "tests.support.ledger_hammer", url, folder, str(SECONDS)) as child:
        pids = [int(child.line().split()[1]) for _ in range(PROCESSES)]
        end = time.monotonic() + SECONDS - 1
        while time.monotonic() < end:
            time.sleep(rng.uniform(0.1, 0.6))  # so that each kill finds them at another moment
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids.pop(rng.randrange(PROCESSES)), signal.SIGKILL)
            pids.append(int(child.line().split()[1]))
            killed += 1
        assert child.wait(SECONDS + 60) == 0, child.stderr
    return killed


def overshoots(store: Store) -> int:
    """How often, in the order of the journal, more was posted and held than a limit was."""
    used: dict[int, Amounts] = defaultdict(Amounts)
    limits: dict[int, dict[str, int | None]] = {}
    found = 0
    for row in entries_of(store, "acme"):
        for key in json.loads(row["accounts"] or "[]"):
            new = {name: row[f"limit_{name}"] for name in DIMENSIONS}
            if row["kind"] in ("open", "limit"):
                limits[key] = new
            elif row["kind"] == "grant":
                limits[key] = {name: None if of is None else of + (new[name] or 0) for name, of in limits[key].items()}
            used[key] += amounts_in("held", row) + amounts_in("posted", row)
            found += any(of is not None and getattr(used[key], name) > of for name, of in limits[key].items())
    return found


def entries_of(store: Store, chain: str) -> Iterator[RowMapping]:
    with store.read() as connection:
        yield from connection.execute(select(entry).where(entry.c.chain == chain).order_by(entry.c.number)).mappings()


def mismatches(store: Store, truth: Truth) -> list[str]:
    """Where the ledger and the provider differ by more than what nobody can know."""
    with store.read() as connection:
        rows = connection.execute(select(reservation)).mappings().all()
    kept = {(row["run_id"], row["call"]): row for row in rows}
    wrong = [f"{key} was billed and is not known" for key in truth.sent - kept.keys()]
    for key, row in kept.items():
        outcome, billed = row["outcome"], truth.billed.get(key)
        fits = {
            "exact": row["posted_tokens"] == billed,
            "unknown": row["posted_tokens"] == row["held_tokens"] >= (billed or 0),
            None: row["state"] == "released" and row["posted_tokens"] == 0 and key not in truth.sent,
        }
        if not fits[outcome]:
            wrong.append(f"{key}: {row['state']} {outcome} {row['posted_tokens']}, billed {billed}")
    return wrong


def test_under_a_hail_of_calls_and_kills_no_limit_is_exceeded_and_every_bill_is_known(
    store_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "provider"
    folder.mkdir()
    with closing(Ledger.open(store_url)) as ledger:
        ledger.budgets.set("acme", limit={"tokens": 1_000}, author="dana")
        for number in range(RUNS):
            limits = Limits(tokens=2_000, cost_usd=None, steps=None, tool_calls=None, seconds=None)
            ledger.gates.open(scope_of(number), limits)
        killed = hammer(store_url, folder)
        truth = truth_in(folder)
        unknown = Ledger(ledger.store, clock=lambda: datetime.now(UTC) + timedelta(hours=1)).reap()
        assert overshoots(ledger.store) == 0
        assert mismatches(ledger.store, truth) == []
        assert all(line.held == Amounts() for line in ledger.budgets.ls(runs=True)), "a hold was leaked"
        assert not verify(ledger.store).findings
        audit(ledger.store)
    print(f"{killed} kills, {len(truth.sent)} calls sent, {len(truth.billed)} billed, {unknown} left to the reaper")
    assert killed > SECONDS / 2
    assert len(truth.sent) > SECONDS
