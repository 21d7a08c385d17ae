"""The contexts of calls: of a run that is executed here, and of a gateway's key, which nobody executes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from bursar.budget.gate import Hold
from bursar.budget.limits import COUNT_MAX
from bursar.budget.scope import Scope
from bursar.runtime.config import Config
from bursar.runtime.context import RunContext
from bursar.runtime.events import Event
from bursar.runtime.fork import Forked
from bursar.runtime.lease import Lease, terms_of
from bursar.runtime.ledger_thread import LedgerThread
from bursar.runtime.paid_call import PaidCalls
from bursar.runtime.run_ledger import RunLedger
from bursar.runtime.runs.records import Record
from bursar.runtime.side_loop import SideLoop
from bursar.runtime.tenants import scope_of, tiers_of

__all__ = ["Contexts", "Listener"]

Listener = Callable[[Event], None]

STANDING_WAIT_S = 2.0
"""The longest that a call outside of any execution waits for the ledger: its caller can come again."""


class Contexts:
    """Makes the contexts of one process."""

    def __init__(
        self,
        config: Config,
        ledger: LedgerThread,
        calls: PaidCalls,
        side_loop: SideLoop,
        clock: Callable[[], datetime],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._calls = calls
        self._side_loop = side_loop
        self._clock = clock

    def standing(self, scope: Scope, *, tiers: tuple[str, ...] | None) -> RunContext:
        """The context of calls that no execution makes, such as those by a gateway's key.

        Nobody holds their run, whose gate must be open, and a limit refuses them one by one; where the tenant says
        `downgrade`, lower tiers are asked before that.
        """
        tenant = self._config.tenants.get(scope.tenant)
        return RunContext(
            scope=scope,
            epoch=0,
            thread_id=scope.run_id,
            on_limit="downgrade" if tenant is not None and tenant.on_limit == "downgrade" else "stop",
            max_output_tokens=COUNT_MAX,
            tiers=tiers,
            deadline=None,
            seconds=None,
            now=self._clock,
            calls=self._calls,
            ledger=RunLedger(self._ledger, wait_s=min(self._config.ledger.wait_s, STANDING_WAIT_S), tell=_nobody),
            side_loop=self._side_loop,
            sticky=False,
        )

    def of_run(self, row: Record, hold: Hold, listener: Listener | None) -> RunContext:
        """The context of an execution under a hold."""
        scope = scope_of(row, self._config)
        return RunContext(
            scope=scope,
            epoch=hold.epoch,
            thread_id=row["id"],
            on_limit=row["on_limit"],
            max_output_tokens=row["max_output_tokens"],
            tiers=tiers_of(self._config, row["tenant"]),
            deadline=min(filter(None, (hold.deadline, hold.until)), default=None),
            seconds=hold.seconds,
            until=hold.until,
            now=self._clock,
            calls=self._calls,
            ledger=self._run_ledger(scope, hold, listener),
            side_loop=self._side_loop,
            emit=listener,
            on_delta=_teller(row["id"], listener) if listener else None,
            tier=row["tier"],
            lineage=Forked.read(row["fork"]),
        )

    def _run_ledger(self, scope: Scope, hold: Hold, listener: Listener | None) -> RunLedger:
        settings = self._config.ledger
        lease = None
        if settings.when_unreachable == "lease":
            lease = Lease(self._ledger.ledger.slices, scope, hold.epoch, terms_of(settings), clock=self._clock)

        def tell(kind: Literal["away", "back"], words: str) -> None:
            if listener is not None:
                listener(Event(kind=kind, run_id=scope.run_id, agent=scope.agents[-1], text=words))

        return RunLedger(self._ledger, wait_s=settings.wait_s, tell=tell, lease=lease)


def _nobody(kind: Literal["away", "back"], words: str) -> None:
    """Whoever calls hears of it by the error."""


def _teller(run_id: str, listener: Listener) -> Callable[[Mapping[str, Any]], None]:
    def tell(delta: Mapping[str, Any]) -> None:
        if delta.get("content"):
            listener(Event(kind="token", run_id=run_id, text=str(delta["content"])))

    return tell
