"""Slices: a part of what a run may spend, held in the ledger at once, out of which its process admits calls by itself.

Where many processes meet on one tenant's row, or the store may be away for seconds, a process takes a slice first. Its
calls are then admitted in memory, against what is left of the slice, and written to the ledger in batches. A slice is
held in every scope like a call of its size, so no limit is ever exceeded, whatever becomes of the process: a slice
whose process fell silent is charged in full, as unknown, for what was not written.

The price of it: until a batch is written, its replies live in memory only, and somebody who cancels the run or lowers a
limit is heard when the slice ends.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from bursar.budget.accounts import current
from bursar.budget.admission import Admitted, Balance, ModelQuote, SliceQuote, ToolQuote, Wait, admit
from bursar.budget.alerts.calls import overage
from bursar.budget.alerts.thresholds import fire
from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import LedgerError, LedgerUnavailable, ReservationError, UsageError
from bursar.budget.gate import closed
from bursar.budget.journal import NOTHING, amounts_in, claim, columns_of, move
from bursar.budget.limits import SECONDS_MAX
from bursar.budget.pricing.prices import Price
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import (
    Call,
    Outcome,
    Replay,
    Reservation,
    dispatch,
    insert_reservation,
    keep_price,
    next_attempt,
    posting,
    row_of,
)
from bursar.budget.schema import pot, reservation
from bursar.budget.scope import Scope
from bursar.budget.stores.store import Store
from bursar.budget.stores.text import storable
from bursar.budget.usage import Usage
from bursar.budget.windows import to_us

__all__ = ["Slice", "Slices"]

BATCH = 16
"""How many settled calls a slice keeps in memory before it writes them."""

_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settled:
    """A call of a slice that is over and not yet written."""

    made: Reservation
    kind: str
    reserved_us: int
    closed_us: int
    posted: Amounts
    usage: Usage | None
    outcome: Outcome
    reply: str | None
    note: str | None


class Slices:
    """Takes slices out of what runs may spend."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def open(
        self,
        scope: Scope,
        epoch: int,
        amounts: Amounts,
        *,
        seconds: float,
        batch: int = BATCH,
        after: Slice | None = None,
    ) -> Slice | Wait | Refusal:
        """Hold `amounts` in every scope of a run for so many seconds, or say why not.

        Only dimensions that some scope limits need an amount; one that is limited and gets none admits nothing. `batch`
        is how many settled calls are kept in memory before they are written. `after` is a closed slice of the same run,
        which spares reading again what that one knows. Raises UsageError for an empty slice, LedgerUnavailable, and
        NotFoundError for a run that was never opened.
        """
        if not amounts or not 0 < seconds <= SECONDS_MAX or batch < 1:
            raise UsageError(f"a slice needs amounts, seconds and a batch above zero: {amounts}, {seconds}, {batch}")
        now = to_us(self._clock())
        call = Call(id=f"slice:{epoch}:{now}", scope=scope, epoch=epoch, node="slice")
        with self._store.write(durable=True) as connection:
            claim(connection, scope.chains)
            pots = current(connection, scope.paths, now)
            refusal = closed(pots, call, now, final=False)
            if refusal is not None:
                return refusal
            balances = [row.balance for row in pots if row.mode == "hard"]
            quote = SliceQuote(amounts=amounts)
            verdict = admit(balances, quote)
            if not isinstance(verdict, Admitted):
                return verdict
            ids = [row.account_id for row in pots]
            until = now + int(seconds * _SECOND_US)
            attempt = next_attempt(connection, call, now)
            if isinstance(attempt, Replay):
                raise LedgerError(f"slice {call.id} has a reply, which no slice has")
            made = insert_reservation(connection, call, quote, verdict, attempt, ids, now, until)
            dispatch(connection, made, now=now)  # from here on a crash leaves it charged
            known = _known(connection, scope.run_id, after)
            nodes = _nodes_with_budgets(connection, scope)
        limited = [any(balance.limit[at] is not None for balance in balances) for at in range(len(DIMENSIONS))]
        return Slice(self._store, self._clock, made, until, limited, known, nodes, batch)


class Slice:
    """What is left of a slice; safe to use from several threads. Made by `Slices.open`, ended by `close`."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        made: Reservation,
        until_us: int,
        limited: list[bool],
        known: dict[str, tuple[int, str | None]],
        nodes_with_budgets: frozenset[str],
        batch: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._made = made
        self._until_us = until_us
        self._limited = limited
        self._known = known
        self._nodes_with_budgets = nodes_with_budgets
        self._batch = batch
        self._spent = NOTHING
        self._in_flight: dict[int, tuple[Reservation, str, int]] = {}
        self._settled: list[_Settled] = []
        self._prices: dict[str, Price] = {}
        self._numbers = 0
        self._doubtful = False
        self._lock = threading.Lock()
        self._writing = threading.RLock()

    @property
    def id(self) -> int:
        """Of the reservation by which it is held."""
        return self._made.id

    @property
    def run_id(self) -> str:
        """The run that it was taken for."""
        return self._made.call.scope.run_id

    def known(self) -> dict[str, tuple[int, str | None]]:
        """The calls of the run that it knows: the last attempt of each, and its reply where it was settled."""
        with self._lock:
            return dict(self._known)

    @property
    def left(self) -> Amounts:
        """What is neither spent nor in flight."""
        with self._lock:
            return self._made.held - self._spent - self._held()

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was spent out of it and nothing is in flight."""
        with self._lock:
            return not self._spent and not self._in_flight

    def learn(self, call: Call, attempt: int, reply: str | None = None) -> None:
        """Take in what became of a call of its run that the ledger admitted, so that it is replayed here, too."""
        with self._lock:
            self._known[call.id] = (attempt, reply)

    def reserve(self, call: Call, quote: ModelQuote | ToolQuote, *, skip: bool = False) -> Reservation | Replay | None:
        """Admit a call out of the slice, without the store; None where it has to be asked of the ledger.

        That is so where too little is left of the slice or its time is over, where it is another run's call, or where
        the call's node has a budget of its own. `skip` leaves out the number of one attempt, for a call of which the
        ledger was asked and gave no answer: it may have that attempt.
        """
        now = to_us(self._clock())
        with self._lock:
            attempt, reply = self._known.get(call.id, (-1, None))
            if reply is not None:
                return Replay(0, reply)
            mine = call.scope == self._made.call.scope and call.epoch == self._made.call.epoch
            if not mine or now >= self._until_us or call.node in self._nodes_with_budgets:
                return None
            verdict = admit([self._balance()], quote)
            if not isinstance(verdict, Admitted):
                return None
            self._numbers += 1
            made = Reservation(
                id=-self._numbers,
                call=call,
                attempt=attempt + 1 + skip,
                held=verdict.amounts,
                accounts=self._made.accounts,
                price=quote.price if isinstance(quote, ModelQuote) else None,
                max_output_tokens=verdict.max_output_tokens,
                capped=verdict.capped,
            )
            self._known[call.id] = (made.attempt, None)
            self._in_flight[made.id] = (made, "model" if isinstance(quote, ModelQuote) else "tool", now)
            return made

    def settle(
        self,
        made: Reservation,
        *,
        usage: Usage | None,
        outcome: Outcome,
        reply: str | None = None,
        note: str | None = None,
    ) -> Amounts:
        """Take what the call came to out of the slice; returns it. A full batch is written to the ledger.

        Raises ReservationError for a call that is not in flight, and LedgerUnavailable where the batch could not be
        written: the call is settled all the same, and written with the next batch.
        """
        posted = posting(made, usage, outcome)
        with self._lock:
            _, kind, reserved_us = self._take(made)
            self._spent += posted
            self._known[made.call.id] = (made.attempt, reply)
            self._settled.append(
                _Settled(
                    made=made,
                    kind=kind,
                    reserved_us=reserved_us,
                    closed_us=to_us(self._clock()),
                    posted=posted,
                    usage=usage,
                    outcome=outcome,
                    reply=reply,
                    note=note,
                )
            )
            is_full = len(self._settled) >= self._batch
        if is_full:
            self.flush()
        return posted

    def release(self, made: Reservation) -> None:
        """Give back what was held for a call that was surely not billed; raises ReservationError if not in flight."""
        with self._lock:
            self._take(made)

    def flush(self) -> int:
        """Write what is settled to the ledger, all or nothing; returns how many calls that was.

        Calls are admitted and settled meanwhile, however long the store takes. After LedgerUnavailable, do it again:
        each call is written once, also where a commit was cut off.
        """
        with self._writing:
            with self._lock:
                settled = list(self._settled)
            if settled:
                try:
                    with self._store.write() as connection:
                        claim(connection, self._made.call.scope.chains)
                        self._write(connection, settled)
                except LedgerUnavailable as error:
                    self._doubtful |= error.in_doubt
                    raise
                self._doubtful = False
                with self._lock:
                    del self._settled[: len(settled)]
            return len(settled)

    def renew(self, seconds: float) -> bool:
        """Hold it for so many seconds from now on; False where it was given up or closed."""
        until = to_us(self._clock()) + int(seconds * _SECOND_US)
        is_mine = (reservation.c.id == self.id, reservation.c.state == "dispatched")
        with self._writing, self._store.write(durable=True) as connection:
            renewed = connection.execute(update(reservation).where(*is_mine).values(deadline_us=until)).rowcount
        with self._lock:
            self._until_us = until if renewed else 0
        return bool(renewed)

    def close(self) -> None:
        """Write what is settled and give back the rest; nothing more is admitted, also where that fails.

        Raises ReservationError while calls are in flight. After LedgerUnavailable, do it again.
        """
        with self._writing:
            with self._lock:
                if self._in_flight:
                    raise ReservationError(
                        f"{len(self._in_flight)} calls of the slice are in flight; settle them first"
                    )
                self._until_us = 0
            self.flush()
            with self._store.write(durable=True) as connection:
                claim(connection, self._made.call.scope.chains)
                self._give_back(connection, to_us(self._clock()))

    def _balance(self) -> Balance:
        held, spent, size = self._held(), self._spent, self._made.held
        limit: Any = tuple(
            getattr(size, name) if limited else None for name, limited in zip(DIMENSIONS, self._limited, strict=True)
        )
        return Balance("run", self._made.call.scope.run_path, limit, _vector(spent), _vector(held))

    def _held(self) -> Amounts:
        return sum((made.held for made, _, _ in self._in_flight.values()), NOTHING)

    def _take(self, made: Reservation) -> tuple[Reservation, str, int]:
        if made.id not in self._in_flight:
            raise ReservationError(f"call {made.call.id} is not in flight in this slice")
        return self._in_flight.pop(made.id)

    def _write(self, connection: Connection, settled: list[_Settled]) -> None:
        if self._doubtful:
            written = self._written(connection)
            settled = [one for one in settled if (one.made.call.id, one.made.attempt) not in written]
            if not settled:
                return
        settled = self._renumbered(connection, settled)
        for one in settled:
            if one.made.price is not None:
                keep_price(connection, one.made.price, self._prices, one.closed_us)
            call = one.made.call
            overage(connection, call.scope, call.model, held=one.made.held, posted=one.posted, now=one.closed_us)
        connection.execute(insert(reservation), [_row(one, self._made.id) for one in settled])
        self._charge(connection, sum((one.posted for one in settled), NOTHING), settled[-1].closed_us)

    def _renumbered(self, connection: Connection, settled: list[_Settled]) -> list[_Settled]:
        """The calls, none with an attempt that the ledger counted itself while that of the slice was in memory only."""
        its_calls = reservation.c.call.in_({one.made.call.id for one in settled})
        made = select(reservation.c.call, func.max(reservation.c.attempt)).where(
            reservation.c.run_id == self.run_id, its_calls
        )
        last: dict[str, int] = {row.call: row[1] for row in connection.execute(made.group_by(reservation.c.call))}
        renumbered = []
        for one in settled:
            attempt = max(one.made.attempt, last.get(one.made.call.id, -1) + 1)
            last[one.made.call.id] = attempt
            renumbered.append(replace(one, made=replace(one.made, attempt=attempt)))
        with self._lock:  # what is written in doubt is looked for by these numbers
            kept = dict(zip(map(id, settled), renumbered, strict=True))
            self._settled = [kept.get(id(one), one) for one in self._settled]
        return renumbered

    def _written(self, connection: Connection) -> set[tuple[str, int]]:
        made = select(reservation.c.call, reservation.c.attempt).where(reservation.c.slice_id == self.id)
        return {(call, attempt) for call, attempt in connection.execute(made)}

    def _charge(self, connection: Connection, posted: Amounts, now: int) -> None:
        """Move what was spent from held to posted; from what was charged as unknown, where the slice was given up."""
        row = row_of(connection, self._made.id)
        side = "held" if row["state"] == "dispatched" else "posted"
        covered = _lesser(posted, amounts_in(side, row))
        rest = columns_of(side, amounts_in(side, row) - covered)
        connection.execute(update(reservation).where(reservation.c.id == row["id"]).values(**rest))
        due = move(
            connection,
            chain=row["tenant"],
            kind="spend" if side == "held" else "correct",
            at_us=now,
            reservation_id=row["id"],
            accounts=row["accounts"],
            held=NOTHING - covered if side == "held" else NOTHING,
            posted=posted if side == "held" else posted - covered,
        )
        if due:
            fire(connection, due, now, run_id=row["run_id"])

    def _give_back(self, connection: Connection, now: int) -> None:
        row = row_of(connection, self._made.id)
        if row["state"] == "released":
            return
        rest = amounts_in("held" if row["state"] == "dispatched" else "posted", row)
        values = {**columns_of("held", NOTHING), **columns_of("posted", NOTHING)}
        ended = {"state": "released", "outcome": None, "note": "the slice was closed", "closed_us": now, **values}
        connection.execute(update(reservation).where(reservation.c.id == row["id"]).values(**ended))
        move(
            connection,
            chain=row["tenant"],
            kind="release" if row["state"] == "dispatched" else "correct",
            at_us=now,
            reservation_id=row["id"],
            accounts=row["accounts"],
            held=NOTHING - rest if row["state"] == "dispatched" else NOTHING,
            posted=NOTHING if row["state"] == "dispatched" else NOTHING - rest,
            note="the slice was closed",
        )


def _known(connection: Connection, run_id: str, after: Slice | None) -> dict[str, tuple[int, str | None]]:
    """The calls that a run has made: the last attempt of each, and its reply where it was settled."""
    made = select(reservation.c.call, reservation.c.attempt, reservation.c.reply).where(
        reservation.c.run_id == run_id, reservation.c.kind != "slice"
    )
    known: dict[str, tuple[int, str | None]] = {}
    if after is not None and after.run_id == run_id:
        known = after.known()
        made = made.where(reservation.c.id > after.id)
    for call, attempt, reply in connection.execute(made.order_by(reservation.c.attempt)):
        known[call] = (attempt, reply if reply is not None else known.get(call, (0, None))[1])
    return known


def _nodes_with_budgets(connection: Connection, scope: Scope) -> frozenset[str]:
    above = (f"{scope.tenant}/{scope.agents[-1]}", scope.run_paths[-1])
    paths = connection.execute(select(pot.c.path).where(pot.c.parent.in_(above), pot.c.kind == "node")).scalars()
    return frozenset(path.rpartition("/node:")[2] for path in paths)


def _row(one: _Settled, slice_id: int) -> dict[str, Any]:
    made, scope = one.made, one.made.call.scope
    return {
        "slice_id": slice_id,
        "call": made.call.id,
        "attempt": made.attempt,
        "kind": one.kind,
        "state": "settled",
        "outcome": one.outcome,
        "organisation": scope.organisation,
        "tenant": scope.tenant,
        "team": scope.team,
        "user": scope.user,
        "agent": scope.agents[-1],
        "run_id": scope.run_id,
        "epoch": made.call.epoch,
        "node": made.call.node,
        "digest": made.call.digest,
        "tier": made.call.tier,
        "model": made.call.model,
        "reason": made.call.reason,
        "price_id": made.price.id if made.price else None,
        "max_output_tokens": made.max_output_tokens,
        "capped": int(made.capped),
        "accounts": made.accounts,
        **columns_of("held", made.held),
        **columns_of("posted", one.posted),
        "usage": json.dumps(one.usage.to_record()) if one.usage else None,
        "reply": storable(one.reply),
        "note": storable(one.note),
        "reserved_us": one.reserved_us,
        "dispatched_us": one.reserved_us,
        "closed_us": one.closed_us,
        "deadline_us": one.closed_us,
    }


def _vector(amounts: Amounts) -> tuple[int, int, int, int]:
    return (amounts.nanousd, amounts.tokens, amounts.steps, amounts.tool_calls)


def _lesser(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(*map(min, _vector(one), _vector(other)))
