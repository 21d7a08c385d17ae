"""What a run will probably cost, before it starts and while it goes on, from the last runs of its agent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_high
from typing import Literal

from sqlalchemy import Connection, RowMapping, func, select

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import NotFoundError
from bursar.budget.journal import amounts_in
from bursar.budget.money import format_usd
from bursar.budget.schema import account, pot, reservation
from bursar.budget.stores.store import Store
from bursar.budget.whatif.interval import alike, needed, prediction

__all__ = ["PERCENT", "RUNS_MAX", "Estimate", "Estimates", "Range"]

PERCENT = 80
"""How often an interval covers what a run comes to, unless another share is asked for."""

RUNS_MAX = 200
"""How many of an agent's last runs are looked at: enough for a sharp interval, and no history is scanned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a run may come to in one dimension, in the ledger's unit; unknown is None, never 0."""

    expected: int | None
    """The mean of what was seen, rounded up."""

    median: int | None
    """The upper one of the two in the middle."""

    low: int | None
    high: int | None
    """The interval, both ends included; None where fewer runs were seen than it needs."""

    worst: int | None
    worst_is: Literal[
        "limit",  # what the run may use at most
        "highest seen",  # there is no limit
        "unknown",  # neither a limit nor a run
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run will come to, or what is still to come. Each dimension's interval holds by itself, not all at once."""

    tenant: str
    agent: str
    percent: int
    """How often, of a hundred runs, each interval holds what comes."""

    runs: int
    """How many runs it was made from."""

    needed: int
    """How many runs an interval needs."""

    spent: Amounts
    """What the run was charged so far; nothing before it starts."""

    nanousd: Range
    tokens: Range
    steps: Range
    tool_calls: Range

    def words(self) -> str:
        """One sentence on the money, for people."""
        money, more = self.nanousd, " more" if self.spent else ""
        worst = "" if money.worst is None else f", at most {format_usd(money.worst)} ({money.worst_is})"
        if money.expected is None:
            return f"no run seen that says what it will cost{worst}"
        if money.low is None or money.high is None:
            seen = "1 run" if self.runs == 1 else f"{self.runs} runs"
            return (
                f"about {format_usd(money.expected)}{more}{worst}; "
                f"{seen} seen, the {self.percent} % interval needs {self.needed}"
            )
        return (
            f"{format_usd(money.low)} to {format_usd(money.high)}{more} in {self.percent} % of runs, "
            f"{format_usd(money.expected)} on average{worst}; {self.runs} runs seen"
        )


class Estimates:
    """Estimates from history; changes nothing.

    A run counts as finished once its worker has let it go, with nothing in flight. What a stop at a limit or a person
    has cut short counts with what it came to: it is that which the next run under such limits will come to as well.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def before(self, tenant: str, agent: str, *, percent: int = PERCENT, unfinished: Collection[str] = ()) -> Estimate:
        """What a run of this agent will come to, if it is one like its last `RUNS_MAX` finished runs.

        The interval is made of order statistics (`bursar.budget.whatif.interval.prediction`): whatever the
        distribution, it covers the next run in `percent` of 100 cases, as long as that is exchangeable with the last
        ones. `worst` is the limit of the agent's newest run, else the highest seen. `unfinished` are the ids of runs
        that nobody works on and that are not at their end, as they wait for a person. Raises UsageError for a percent
        that cannot be.
        """
        least = needed(percent)
        with self._store.read() as connection:
            runs = _finished(connection, tenant, agent, unfinished)
        limit = {name: runs[0][f"limit_{name}"] if runs else None for name in DIMENSIONS}
        return _estimate(tenant, agent, percent, least, [amounts_in("posted", run) for run in runs], limit, Amounts())

    def to_finish(self, run_id: str, *, percent: int = PERCENT, unfinished: Collection[str] = ()) -> Estimate:
        """What is still to come in a run that has not ended, from runs that went on after as many steps.

        Of the agent's last `RUNS_MAX` finished runs, those that made more steps than this one are asked what they
        still came to from there; where they are many, only those that had spent about as much by then
        (`bursar.budget.whatif.interval.alike`). The promise of the interval is that of `before`, among such runs.
        `worst` is what the run's own limits leave. Raises NotFoundError, and UsageError for a percent that cannot be.
        """
        least = needed(percent)
        with self._store.read() as connection:
            own = connection.execute(_RUNS.where(pot.c.run_id == run_id)).mappings().first()
            if own is None:
                raise NotFoundError(f"the ledger knows no run {run_id}", next_step="bursar runs ls")
            spent, agent = amounts_in("posted", own), own["set_by"]
            finished = _finished(connection, own["tenant"], agent, {*unfinished, run_id})
            further = {run["run_id"]: run for run in finished if run["posted_steps"] > spent.steps}
            until_then = _spent_after(connection, further, spent.steps)
        marks = [until_then[name].nanousd for name in until_then]
        came = [amounts_in("posted", further[name]) - so_far for name, so_far in until_then.items()]
        peers = [came[place] for place in alike(spent.nanousd, marks)]
        left = {name: _left(own[f"window_limit_{name}"], getattr(spent, name)) for name in DIMENSIONS}
        return _estimate(own["tenant"], agent, percent, least, peers, left, spent)


_RUNS = (
    select(
        pot,
        *(account.c[f"limit_{name}"].label(f"window_limit_{name}") for name in DIMENSIONS),
        *(account.c[f"posted_{name}"] for name in DIMENSIONS),
    )
    .join(account, account.c.pot_id == pot.c.id)
    .where(pot.c.epoch.is_not(None))
)
"""Runs with what they came to; each has one account, as its window never ends."""


def _finished(connection: Connection, tenant: str, agent: str, unfinished: Collection[str]) -> Sequence[RowMapping]:
    """The last finished runs of an agent, the newest first."""
    query = (
        _RUNS.where(
            pot.c.tenant == tenant,
            pot.c.set_by == agent,
            pot.c.epoch > 0,
            pot.c.holder.is_(None),
            account.c.held_steps == 0,
            account.c.held_tool_calls == 0,
            pot.c.run_id.not_in(unfinished),
        )
        .order_by(pot.c.id.desc())
        .limit(RUNS_MAX)
    )
    return connection.execute(query).mappings().all()


def _spent_after(connection: Connection, runs: Collection[str], steps: int) -> dict[str, Amounts]:
    """What each of the runs had spent when it had made so many steps; nothing of runs that were rolled up since."""
    columns = [reservation.c[f"posted_{name}"] for name in DIMENSIONS]
    made = func.sum(reservation.c.posted_steps).over(partition_by=reservation.c.run_id, order_by=reservation.c.id)
    path = (
        select(reservation.c.run_id, made.label("made"), *columns)
        .where(reservation.c.run_id.in_(runs), reservation.c.state == "settled")
        .subquery()
    )
    sums = [func.sum(path.c[column.name]).filter(path.c.made <= steps).label(column.name) for column in columns]
    query = select(path.c.run_id, *sums).group_by(path.c.run_id).order_by(path.c.run_id)
    rows = connection.execute(query).mappings()
    return {row["run_id"]: Amounts(*(int(row[column.name] or 0) for column in columns)) for row in rows}


def _estimate(
    tenant: str,
    agent: str,
    percent: int,
    least: int,
    seen: Sequence[Amounts],
    limit: Mapping[str, int | None],
    spent: Amounts,
) -> Estimate:
    ranges = {name: _range([getattr(one, name) for one in seen], percent, limit[name]) for name in DIMENSIONS}
    return Estimate(tenant=tenant, agent=agent, percent=percent, runs=len(seen), needed=least, spent=spent, **ranges)


def _range(values: Sequence[int], percent: int, limit: int | None) -> Range:
    low, high = prediction(values, percent) or (None, None)
    highest = max(values, default=None)
    return Range(
        expected=-(-sum(values) // len(values)) if values else None,
        median=median_high(values) if values else None,
        low=low,
        high=high,
        worst=highest if limit is None else limit,
        worst_is="limit" if limit is not None else "unknown" if highest is None else "highest seen",
    )


def _left(limit: int | None, spent: int) -> int | None:
    return None if limit is None else max(0, limit - spent)
