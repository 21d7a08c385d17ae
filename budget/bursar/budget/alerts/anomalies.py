"""Runs that behave unlike others: the same call again and again, steps that grow dearer, money that burns.

Each is told once for a run. What is looked at is bounded: the newest calls of the runs that were active since the last
look, and one day of what their agents spend.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, select

from bursar.budget.alerts.endpoints import AlertKind
from bursar.budget.alerts.outbox import Alert, amount_json
from bursar.budget.money import format_usd
from bursar.budget.schema import pot, reservation

__all__ = ["Anomalies", "Step", "burn", "growth", "repetition"]

REPEATS_MIN = 5
"""How often one call must be made, each after the one before had ended, to be a loop."""

BLOCKS, STEPS_MIN = 4, 20
"""Growth is seen over four blocks of steps, by the median of each, from twenty steps on."""

GROWTH_MIN = 3
"""How many times as much the last block must cost as the first; each at least a quarter more than the one before."""

SPAN_US = 5 * 60_000_000
"""The stretch of time in which spending is summed up to see how fast it is."""

DAY_US = 86_400_000_000
BASELINE_US = 3_600_000_000
"""How long what agents usually spend is taken to be the same."""

BUSY_MIN = 12
"""In how many spans of the last day an agent must have spent something for anything to be unusual."""

BURN_MIN = 5
"""How many times as much as its agent usually does a run must spend in a span."""

RUNS_MAX = 500
"""How many runs one look takes in; the next goes on from there."""

STEPS_MAX = 200
"""How many calls of a run are looked at, the newest."""

OVERLAP_US = 10_000_000
"""What was reserved shortly before a look may be committed after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of a run that was sent."""

    call: str
    digest: str | None
    node: str
    model: str | None
    reserved_us: int
    closed_us: int | None
    """None while it is in flight."""

    nanousd: int


def repetition(steps: Sequence[Step]) -> tuple[Step, int] | None:
    """The call that was repeated most, and how often, where that is a loop.

    `steps` are in the order in which they were reserved. Calls side by side, such as several samples of one prompt,
    count once: a loop is what is done again after its result was seen. So do the attempts of one call.
    """
    counts: Counter[str] = Counter()
    last: dict[str, Step] = {}
    free_us: dict[str, int | None] = {}  # when all calls of a digest had ended; None while one is in flight
    seen: set[str] = set()
    for step in steps:
        if step.digest is None or step.call in seen:
            continue
        seen.add(step.call)
        free = free_us.get(step.digest, step.reserved_us)
        if free is not None and step.reserved_us >= free:
            counts[step.digest] += 1
            last[step.digest] = step
        free_us[step.digest] = None if free is None or step.closed_us is None else max(free, step.closed_us)
    if not counts:
        return None
    digest, count = counts.most_common(1)[0]
    return (last[digest], count) if count >= REPEATS_MIN else None


def growth(steps: Sequence[Step]) -> tuple[Step, int, int] | None:
    """The last step of a node whose steps grow dearer and dearer, with the median cost of its first and last quarter.

    By node and model: neither a larger tier nor another node's longer prompt is growth. Medians, so that one large
    answer is none either.
    """
    series: dict[tuple[str, str | None], list[Step]] = defaultdict(list)
    for step in steps:
        if step.nanousd:
            series[step.node, step.model].append(step)
    for found in series.values():
        if len(found) < STEPS_MIN:
            continue
        size = len(found) // BLOCKS
        costs = [step.nanousd for step in found[-BLOCKS * size :]]
        blocks = [sorted(costs[at : at + size])[size // 2] for at in range(0, len(costs), size)]
        rises = all(4 * after >= 5 * before for before, after in pairwise(blocks))
        if rises and blocks[-1] >= GROWTH_MIN * blocks[0]:
            return found[-1], blocks[0], blocks[-1]
    return None


def burn(spent: int, usual: Sequence[int]) -> int | None:
    """What is usual, where a run spent far more than that; both are nano-USD in a span.

    `usual` are the sums of the spans of the last day in which the run's agent spent something.
    """
    if len(usual) < BUSY_MIN:
        return None
    middle = int(median(usual))
    return middle if spent >= BURN_MIN * middle > 0 else None


class Anomalies:
    """Looks at what runs did since its last look."""

    def __init__(self) -> None:
        self._since_us: int | None = None
        self._usual: Mapping[tuple[str, str], Sequence[int]] = {}
        self._usual_us: int | None = None

    def look(self, connection: Connection, now: int) -> list[Alert]:
        """What is unusual about the runs that were active since the last look, or in the last span at first."""
        active = _active(connection, now - SPAN_US if self._since_us is None else self._since_us)
        self._since_us = active[-1]["last_us"] if len(active) == RUNS_MAX else now - OVERLAP_US
        found = [one for row in active for one in _unusual_steps(connection, row["tenant"], row["run_id"])]
        if active:
            found += self._burning(connection, {row["run_id"] for row in active}, now)
        return found

    def _burning(self, connection: Connection, runs: set[str], now: int) -> Iterator[Alert]:
        usual = self._usual_spans(connection, now)
        for row in _spent(connection, now - SPAN_US):
            tenant, agent, run_id, spent = row["tenant"], row["agent"], row["run_id"], int(row["nanousd"])
            middle = burn(spent, usual.get((tenant, agent), ()))
            if middle is None or run_id not in runs:
                continue
            message = (
                f"run {run_id} spent {format_usd(spent)} in 5 minutes; {agent} usually spends {format_usd(middle)}"
            )
            data = {"agent": agent, "spent": amount_json("nanousd", spent), "usual": amount_json("nanousd", middle)}
            yield _alert(connection, "run.burn_rate", tenant, run_id, message, {**data, "minutes": 5})

    def _usual_spans(self, connection: Connection, now: int) -> Mapping[tuple[str, str], Sequence[int]]:
        if self._usual_us is None or now - self._usual_us >= BASELINE_US:
            self._usual, self._usual_us = _usual(connection, now), now
        return self._usual


def _unusual_steps(connection: Connection, tenant: str, run_id: str) -> Iterator[Alert]:
    steps = _steps(connection, run_id)
    if (looping := repetition(steps)) is not None:
        step, count = looping
        message = f"run {run_id} made the same call of {step.model or step.node} {count} times"
        yield _alert(connection, "run.loop", tenant, run_id, message, {**_named(step), "repeats": count})
    if (growing := growth(steps)) is not None:
        step, first, last = growing
        message = f"the steps of run {run_id} grow dearer: {format_usd(first)} at first, {format_usd(last)} now"
        data = {**_named(step), "first": amount_json("nanousd", first), "last": amount_json("nanousd", last)}
        yield _alert(connection, "run.cost_growth", tenant, run_id, message, data)


def _active(connection: Connection, since: int) -> Sequence[RowMapping]:
    last = func.max(reservation.c.reserved_us).label("last_us")
    runs = select(reservation.c.tenant, reservation.c.run_id, last).where(reservation.c.reserved_us > since)
    by_run = runs.group_by(reservation.c.tenant, reservation.c.run_id).order_by(last).limit(RUNS_MAX)
    return connection.execute(by_run).mappings().all()


def _steps(connection: Connection, run_id: str) -> list[Step]:
    """The newest calls of a run, in the order in which they were reserved."""
    columns = ("call", "digest", "node", "model", "reserved_us", "closed_us", "posted_nanousd")
    sent = and_(reservation.c.state.in_(["dispatched", "settled"]), reservation.c.kind != "slice")
    query = select(*(reservation.c[name] for name in columns)).where(reservation.c.run_id == run_id, sent)
    rows = connection.execute(query.order_by(reservation.c.id.desc()).limit(STEPS_MAX)).mappings().all()
    return [Step(**{name: row[name] for name in columns[:-1]}, nanousd=row["posted_nanousd"]) for row in rows[::-1]]


def _spent(connection: Connection, since: int) -> Sequence[RowMapping]:
    who = (reservation.c.tenant, reservation.c.agent, reservation.c.run_id)
    nanousd = func.sum(reservation.c.posted_nanousd).label("nanousd")
    query = select(*who, nanousd).where(reservation.c.reserved_us > since).group_by(*who)
    return connection.execute(query).mappings().all()


def _usual(connection: Connection, now: int) -> dict[tuple[str, str], list[int]]:
    """What each agent spent in each span of the day before the last span, where it spent anything."""
    span = reservation.c.reserved_us // SPAN_US
    nanousd = func.sum(reservation.c.posted_nanousd).label("nanousd")
    query = (
        select(reservation.c.tenant, reservation.c.agent, nanousd)
        .where(reservation.c.reserved_us > now - DAY_US, reservation.c.reserved_us <= now - SPAN_US)
        .group_by(reservation.c.tenant, reservation.c.agent, span)
        .having(nanousd > 0)
    )
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in connection.execute(query).mappings():
        found[row["tenant"], row["agent"]].append(int(row["nanousd"]))
    return found


def _named(step: Step) -> dict[str, Any]:
    return {"node": step.node, "model": step.model}


def _alert(
    connection: Connection, kind: AlertKind, tenant: str, run_id: str, message: str, data: Mapping[str, Any]
) -> Alert:
    path = connection.scalar(select(pot.c.path).where(pot.c.run_id == run_id, pot.c.epoch.is_not(None)).limit(1))
    return Alert(
        key=f"{kind}:{tenant}:{run_id}",
        kind=kind,
        tenant=tenant,
        path=path or tenant,
        run_id=run_id,
        message=message,
        data={**data, "next": f"bursar budget why {run_id}; bursar runs cancel {run_id}"},
    )
