"""What a replay has to know besides the calls: grants, what was rolled up, what really was stopped."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, func, not_, select

from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import UsageError
from bursar.budget.journal import NOTHING, amounts_in
from bursar.budget.schema import account, grant, pot, rollup
from bursar.budget.whatif.trace import scope_paths
from bursar.budget.windows import from_us

__all__ = ["Given", "RolledUp", "given", "really_stopped", "rolled_up"]

_DAY_US = 86_400_000_000


class Given(NamedTuple):
    """A change of a window's limit, as a grant was made or taken back."""

    at_us: int
    path: str
    per: str
    amount: Amounts
    carried: bool
    """Whether it is what the window before left, or owed."""


def given(connection: Connection, since_us: int) -> list[Given]:
    """Every grant to a window, other than a run's, that had not ended by then, and what was taken back of it."""
    query = (
        select(grant, pot.c.path, pot.c.per)
        .join(account, account.c.id == grant.c.account_id)
        .join(pot, pot.c.id == account.c.pot_id)
        .where(pot.c.kind != "run", account.c.ends_us > since_us)
        .order_by(grant.c.id)
    )
    found = []
    for row in connection.execute(query).mappings():
        carried = row["author"] == "policy"
        found.append(Given(row["granted_us"], row["path"], row["per"], amounts_in("amount", row), carried))
        if row["ended_us"] is not None:
            taken = NOTHING - amounts_in("taken", row)
            found.append(Given(row["ended_us"], row["path"], row["per"], taken, carried))
    return found


class RolledUp(NamedTuple):
    """What was spent in a day (UTC) by calls that are no longer there one by one."""

    day_us: int
    paths: tuple[str, ...]
    """The scopes that paid for it; of a chain of agents only the last one is known."""

    spent: Amounts


def rolled_up(connection: Connection, since_us: int) -> list[RolledUp]:
    """The sums of calls that were rolled up, by day; raises UsageError where some of them were made since then."""
    last = connection.execute(select(func.max(rollup.c.day_us))).scalar()
    if last is not None and last + _DAY_US > since_us:
        kept = from_us(last + _DAY_US).date().isoformat()
        raise UsageError(f"calls before {kept} were rolled up and cannot be replayed", next_step=f"--since {kept}")
    names = [rollup.c[name] for name in ("day_us", "tenant", "agent", "node", "organisation", "team", "user")]
    sums = [func.sum(rollup.c[f"posted_{name}"]) for name in DIMENSIONS]
    rows = connection.execute(select(*names, *sums).group_by(*names).order_by(rollup.c.day_us))
    return [RolledUp(row[0], scope_paths(row[1], (row[2],), *row[3:7]), Amounts(*map(int, row[7:]))) for row in rows]


def really_stopped(connection: Connection, since_us: int, until_us: int) -> dict[str, int]:
    """How many of the runs opened in that time a limit other than their own has stopped, by its path."""
    its_own = func.substr(pot.c.stopped_by, 1, func.length(pot.c.path)) == pot.c.path
    query = (
        select(pot.c.stopped_by, func.count())
        .where(pot.c.epoch.is_not(None), pot.c.stopped_by.is_not(None), not_(its_own))
        .where(pot.c.set_us >= since_us, pot.c.set_us < until_us)
        .group_by(pot.c.stopped_by)
        .order_by(pot.c.stopped_by)
    )
    return {path: runs for path, runs in connection.execute(query)}  # noqa: C416 - a Row is no pair to mypy
