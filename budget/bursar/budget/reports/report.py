"""Answers from the ledger: what a run cost and why, and what was spent by whom on what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select

from bursar.budget.amounts import Amounts
from bursar.budget.reports import bill, charges, spend, stops
from bursar.budget.reports.bill import Attempt, Draw, RunBill
from bursar.budget.reports.charges import DaySum
from bursar.budget.reports.spend import GROUPS, Group, Selection, SpendLine
from bursar.budget.reports.stops import Stop
from bursar.budget.schema import reservation
from bursar.budget.stores.store import Store
from bursar.budget.usage import Usage
from bursar.budget.whatif import outlook
from bursar.budget.whatif.outlook import Outlook

if TYPE_CHECKING:
    from bursar.budget.budgets import BudgetLine

__all__ = [
    "GROUPS",
    "Attempt",
    "DaySum",
    "Draw",
    "Group",
    "Outlook",
    "Reports",
    "RunBill",
    "Selection",
    "SpendLine",
    "Stop",
]

EVERYTHING = Selection()


class Reports:
    """Reads the ledger; changes nothing. What is iterated over is read from one state of the store, row by row."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def bill(self, run_id: str) -> RunBill:
        """What a run was charged and why; raises NotFoundError."""
        with self._store.read() as connection:
            return bill.bill_of(connection, run_id)

    def attempts(self, call: str) -> list[tuple[Attempt, list[Draw]]]:
        """The attempt with this number, or all attempts at the call with this id, each with the budgets it drew on.

        Raises NotFoundError.
        """
        with self._store.read() as connection:
            return [(one, bill.draws_of(connection, one.id)) for one in bill.attempts_at(connection, call)]

    def stops(self, path: str) -> list[Stop]:
        """The last refusals that stopped runs at or below a path, the newest first."""
        with self._store.read() as connection:
            return stops.stops_of(connection, path)

    def stop(self, id: str) -> Stop:
        """A refusal that stopped a run, by its id, such as `acme#17`; raises NotFoundError."""
        with self._store.read() as connection:
            return stops.stop_at(connection, id)

    def spent(self, run_path: str) -> Amounts:
        """What a run was charged so far."""
        with self._store.read() as connection:
            return bill.run_of(connection, run_path)

    def usage(self, run_id: str) -> Usage:
        """The tokens of a run's settled calls, as providers reported them; calls of unknown outcome have none."""
        said = (reservation.c.usage.is_not(None), reservation.c.outcome != "unknown")
        query = select(reservation.c.usage).where(reservation.c.run_id == run_id, *said)
        with self._store.read() as connection:
            return bill.total_usage(connection.execute(query).scalars())

    def spend(self, *by: Group, selection: Selection = EVERYTHING) -> Iterator[SpendLine]:
        """What was posted for each combination of groups, the dearest first; day by day where one is the day.

        Without a group, all in one line, or none where nothing was posted.
        """
        with self._store.read() as connection:
            yield from spend.lines_of(connection, by, selection)

    def charges(self, selection: Selection = EVERYTHING) -> Iterator[Attempt | DaySum]:
        """Every attempt that was charged, in order, after what retention has left of older ones."""
        with self._store.read() as connection:
            yield from charges.charges_of(connection, selection)

    def forecast(self, budgets: Sequence[BudgetLine], now: datetime) -> list[Outlook]:
        """When each limit of these budgets runs out at the present pace (see `bursar.budget.whatif.forecast`)."""
        with self._store.read() as connection:
            return outlook.outlooks_of(connection, budgets, now)
