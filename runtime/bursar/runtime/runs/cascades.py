"""The tallies of cascades in the store: one row for each node that has one, one statement for each call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

from sqlalchemy import case, select
from sqlalchemy.dialects import postgresql, sqlite

from bursar.budget.schema import reservation
from bursar.budget.stores.store import Store
from bursar.runtime.routing.tally import RECENT_MAX, Tally
from bursar.runtime.runs.schema import cascade

__all__ = ["Cascades", "Which"]

_COUNTS = tuple(one.name for one in fields(Tally))


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """A cascade of a node."""

    tenant: str
    agent: str
    node: str
    first: str
    then: str
    verifier: str


class Cascades:
    """The tallies of one store. Blocking."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def standing(self, which: Which, run_id: str, calls: Collection[str]) -> tuple[Tally, frozenset[str]]:
        """The tally, and which of these calls of the run were answered before."""
        settled = select(reservation.c.call).where(
            reservation.c.run_id == run_id, reservation.c.call.in_(calls), reservation.c.reply.is_not(None)
        )
        columns = [cascade.c[name] for name in _COUNTS]
        query = select(*columns).where(*(cascade.c[name] == value for name, value in _key(which).items()))
        with self._store.read() as connection:
            found = connection.execute(query).mappings().first()
            answered = frozenset(connection.scalars(settled))
        return Tally(**found) if found is not None else Tally(), answered

    def count(self, which: Which, more: Tally) -> None:
        """Add what one call came to; where many were tried, earlier ones count half as much as recent ones."""
        added = {name: getattr(more, name) for name in _COUNTS}
        with self._store.write() as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            made = dialect.insert(cascade).values(**_key(which), **added)
            sums = {name: cascade.c[name] + made.excluded[name] for name in _COUNTS}
            for name in ("recent_tried", "recent_accepted"):
                kept = case((cascade.c.recent_tried >= RECENT_MAX, cascade.c[name] // 2), else_=cascade.c[name])
                sums[name] = kept + made.excluded[name]
            connection.execute(made.on_conflict_do_update(index_elements=list(_key(which)), set_=sums))

    def ls(self, tenant: str | None = None) -> Mapping[Which, Tally]:
        """Every tally, or those of a tenant, by tenant, agent and node."""
        query = select(cascade).order_by(*cascade.primary_key.columns)
        if tenant is not None:
            query = query.where(cascade.c.tenant == tenant)
        with self._store.read() as connection:
            rows = connection.execute(query).mappings().all()
        names = tuple(one.name for one in fields(Which))
        return {Which(**{n: row[n] for n in names}): Tally(**{n: row[n] for n in _COUNTS}) for row in rows}


def _key(which: Which) -> dict[str, str]:
    return {one.name: getattr(which, one.name) for one in fields(which)}
