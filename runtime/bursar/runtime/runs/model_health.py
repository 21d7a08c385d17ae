"""Models that are passed by, in the store: what every process knows, `bursar doctor` shows and clears."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.engine import RowMapping

from bursar.budget.stores.store import Store
from bursar.budget.windows import from_us, to_us
from bursar.runtime.models.health import Cooling
from bursar.runtime.runs.schema import model_health

__all__ = ["HealthRecords"]


class HealthRecords:
    """The models of one store that are passed by; each method is one transaction, and raises LedgerUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ls(self) -> list[Cooling]:
        """All of them, by name; also such as wait for a call that tries them."""
        with self._store.read() as connection:
            return _all(connection)

    def exchange(self, opened: Sequence[Cooling], closed: Sequence[Cooling]) -> list[Cooling]:
        """Write what a process found, and return what all of them did. What another process found later stands."""
        if not opened and not closed:
            return self.ls()
        with self._store.write() as connection:
            for one in [*opened, *closed]:
                older = model_health.c.since_us <= to_us(one.since)
                connection.execute(delete(model_health).where(model_health.c.model == one.model, older))
            known = {one.model for one in _all(connection)}
            for one in opened:
                if one.model not in known:
                    connection.execute(insert(model_health).values(_row(one)))
            return _all(connection)

    def clear(self, model: str | None = None) -> list[Cooling]:
        """Forget one model, or all; returns what was forgotten. Every process hears of it within seconds."""
        with self._store.write() as connection:
            cleared = [one for one in _all(connection) if model in (None, one.model)]
            chosen = model_health.c.model.in_([one.model for one in cleared])
            connection.execute(delete(model_health).where(chosen))
            return cleared


def _all(connection: Connection) -> list[Cooling]:
    rows = connection.execute(select(model_health).order_by(model_health.c.model)).mappings()
    return [_cooling(row) for row in rows]


def _cooling(row: RowMapping) -> Cooling:
    since, until = from_us(row["since_us"]), from_us(row["until_us"])
    return Cooling(
        model=row["model"], cause=row["cause"], detail=row["detail"], since=since, until=until, times=row["times"]
    )


def _row(one: Cooling) -> dict[str, object]:
    since, until = to_us(one.since), to_us(one.until)
    return {
        "model": one.model,
        "cause": one.cause,
        "detail": one.detail,
        "since_us": since,
        "until_us": until,
        "times": one.times,
    }
