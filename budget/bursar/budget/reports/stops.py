"""Refusals that stopped a run, as the journal keeps them; one that stopped none changed nothing, and is not kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, select

from bursar.budget.accounts import within
from bursar.budget.errors import NotFoundError
from bursar.budget.refusal import Refusal
from bursar.budget.reports.bill import DIGITS_MAX
from bursar.budget.schema import entry
from bursar.budget.windows import from_us

__all__ = ["Stop"]

STOPS_MAX = 20
"""So many are listed of one path, the newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A run that was stopped, by which limit and when."""

    id: str
    """`acme#17`: the number of the entry in its chain."""

    at: datetime
    run_path: str
    """The run, or the agent used as a tool in it, that was stopped."""

    words: str
    """The refusal, as it was said then."""

    refusal: Refusal
    """All of it."""


def stops_of(connection: Connection, path: str) -> list[Stop]:
    """The last stops of runs at or below a path, the newest first."""
    return _stops(connection, and_(entry.c.path.is_not(None), within(path, entry.c.path)))


def stop_at(connection: Connection, id: str) -> Stop:
    """The stop with this id; raises NotFoundError."""
    chain, _, number = id.rpartition("#")
    known = number.isascii() and number.isdigit() and len(number) <= DIGITS_MAX
    found = _stops(connection, and_(entry.c.chain == chain, entry.c.number == int(number))) if known else []
    if not found:
        raise NotFoundError(
            f"the journal has no refusal {id}", next_step=f"bursar budget why {id.partition('#')[0] or 'PATH'}"
        )
    return found[0]


def _stops(connection: Connection, which: ColumnElement[bool]) -> list[Stop]:
    query = (
        select(entry.c.chain, entry.c.number, entry.c.at_us, entry.c.path, entry.c.note, entry.c.detail)
        .where(entry.c.kind == "stop", which)
        .order_by(entry.c.at_us.desc(), entry.c.number.desc())
        .limit(STOPS_MAX)
    )
    return [_stop(*row) for row in connection.execute(query)]


def _stop(chain: str, number: int, at_us: int, path: str, note: str, detail: str) -> Stop:
    refusal = Refusal.from_record(json.loads(detail))
    return Stop(id=f"{chain}#{number}", at=from_us(at_us), run_path=path, words=note, refusal=refusal)
