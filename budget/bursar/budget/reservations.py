"""Reservations: one row for each attempt at a call, and the only ways its state may change.

reserved -> dispatched -> settled       exact, estimated or unknown
reserved -> released                    never sent
dispatched -> released                  sent, and surely not billed
settled (unknown), released -> settled  the truth came late; it is booked, never lost
settled (unknown) -> released           the proof that it was not billed came late
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import orjson
from sqlalchemy import (
    Connection,
    RowMapping,
    and_,
    bindparam,
    exists,
    insert,
    literal_column,
    null,
    or_,
    select,
    update,
)

from bursar.budget.admission import Admitted, ModelQuote, MoneyLeft, SliceQuote, ToolQuote
from bursar.budget.alerts.calls import overage
from bursar.budget.alerts.thresholds import fire
from bursar.budget.amounts import DIMENSIONS, Amounts
from bursar.budget.errors import CallInFlight, ReservationError, UsageError
from bursar.budget.journal import NOBODYS, NOTHING, amounts_in, claim, hash_of, journal, move
from bursar.budget.pricing.prices import Price
from bursar.budget.schema import FOREVER_US, pot, price, reservation
from bursar.budget.scope import Scope
from bursar.budget.stores.prepared import Positional, Prepared, Record
from bursar.budget.stores.text import storable
from bursar.budget.usage import Usage

__all__ = ["Call", "Outcome", "Replay", "Reservation"]

Outcome = Literal[
    "exact",  # the provider said what it used
    "estimated",  # the answer came without usage; our own count
    "unknown",  # nobody knows; charged at the most that it can have come to
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The identity of a call: what makes it the same call after a crash, a resume or a retry."""

    id: str
    """`thread:task:digest:ordinal`; in one run, the same id never leads to a second payment of a settled call."""

    scope: Scope
    epoch: int
    """The hold on the run under which the caller works (see `Gates.hold`)."""

    node: str
    tier: str | None = None
    model: str | None = None
    reason: str | None = None
    """Why this tier and this model."""

    digest: str | None = None
    """Of the request: a call that is made again and again in a run has the same each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a call may come to, held in every scope until it is settled or released."""

    id: int
    call: Call
    attempt: int
    held: Amounts
    accounts: str
    """Ids of the accounts, as a JSON list."""

    price: Price | None
    max_output_tokens: int
    capped: bool
    """Whether the bound was lowered to fit what is left."""

    money_left: MoneyLeft | None = None
    """Of the hard budget in money of which the least share is left with this call held; None for a slice's call."""

    def holding(self, held: Amounts) -> Reservation:
        """The same reservation, of which this is still held."""
        return self if held == self.held else replace(self, held=held)


@dataclass(frozen=True, slots=True)
class Replay:
    """The reply of a call that was settled before."""

    reservation_id: int
    reply: str


_OPEN = ("reserved", "dispatched")
# Written out, not bound: SQLite uses the index of open rows only where the statement itself says that they are open.
_IS_OPEN = reservation.c.state.in_([literal_column(f"'{state}'") for state in _OPEN])
_ITS_RUN = and_(pot.c.run_id == reservation.c.run_id, pot.c.epoch.is_not(None))
_INSERTED = (
    *("call", "attempt", "kind", "state", "organisation", "tenant", "team", "user", "agent", "run_id", "epoch", "node"),
    *("digest", "tier", "model", "reason", "price_id", "max_output_tokens", "capped", "accounts"),
    *(f"held_{name}" for name in DIMENSIONS),
    *("reserved_us", "deadline_us"),
)


_KINDS = {ModelQuote: "model", ToolQuote: "tool", SliceQuote: "slice"}


class _Attempt(NamedTuple):
    """What is to be known of an earlier attempt."""

    id: int
    attempt: int
    state: str
    reply: str | None
    epoch: int


_ATTEMPTS = Positional(
    select(*(reservation.c[name] for name in _Attempt._fields))
    .where(
        reservation.c.run_id == bindparam("of_run"),
        reservation.c.call == bindparam("of_call"),
        reservation.c.tenant == bindparam("of_tenant"),  # a reply is given to nobody else, whatever run they name
    )
    .order_by(reservation.c.attempt),
    ("of_run", "of_call", "of_tenant"),
)
_INSERT = Positional(
    insert(reservation).values({name: bindparam(name) for name in _INSERTED}).returning(reservation.c.id), _INSERTED
)
_REPLAYED = Prepared(
    update(reservation)
    .where(reservation.c.id == bindparam("of"))
    .values(replays=reservation.c.replays + literal_column("1"))
)
_DISPATCH = Prepared(
    update(reservation)
    .where(
        reservation.c.id == bindparam("of"),
        reservation.c.state == "reserved",
        reservation.c.deadline_us >= bindparam("now"),
        exists().where(_ITS_RUN, pot.c.epoch == reservation.c.epoch),
    )
    .values(state="dispatched", dispatched_us=bindparam("now"))
)
_SETTLED = ("outcome", *(f"posted_{name}" for name in DIMENSIONS), "usage", "note", "closed_us", "reply")
_TO_SETTLED = (
    update(reservation)
    .where(reservation.c.id == bindparam("of"))
    .values(state=literal_column("'settled'"), **{name: bindparam(f"new_{name}") for name in _SETTLED})
)
_SETTLE_LATE = Positional(_TO_SETTLED, (*(f"new_{name}" for name in _SETTLED), "of"))
# A hold may have been made smaller since the caller was given it, which is found here and not by another statement.
_AS_HELD = (
    reservation.c.held_nanousd == bindparam("as_nanousd"),
    reservation.c.held_tokens == bindparam("as_tokens"),
)
_SETTLE = Positional(
    _TO_SETTLED.where(_IS_OPEN, *_AS_HELD), (*(f"new_{name}" for name in _SETTLED), "of", "as_nanousd", "as_tokens")
)
_RELEASE = Prepared(
    update(reservation)
    .where(reservation.c.id == bindparam("of"), _IS_OPEN, *_AS_HELD)
    .values(state="released", note=bindparam("new_note"), closed_us=bindparam("now"))
)
_RELEASE_LATE = Prepared(
    update(reservation)
    .where(
        reservation.c.id == bindparam("of"),
        reservation.c.state == "settled",
        reservation.c.outcome == "unknown",
        reservation.c.reply.is_(None),
    )
    .values(
        state="released",
        outcome=null(),
        note=bindparam("new_note"),
        closed_us=bindparam("now"),
        **{f"posted_{name}": 0 for name in DIMENSIONS},
    )
)
_SILENT = (
    select(reservation)
    .join(pot, _ITS_RUN)
    .where(
        _IS_OPEN,
        or_(
            reservation.c.deadline_us < bindparam("now"),
            reservation.c.epoch < pot.c.epoch,  # taken over
            pot.c.lease_until_us < bindparam("now"),  # fell silent
            and_(pot.c.epoch > 0, pot.c.holder.is_(None)),  # let go
        ),
    )
)
_LEFT_OPEN = (
    select(reservation)
    .join(pot, _ITS_RUN)
    .where(reservation.c.run_id == bindparam("of_run"), _IS_OPEN, reservation.c.epoch < pot.c.epoch)
)


def next_attempt(connection: Connection, call: Call, now: int, *, exclusive: bool = False) -> Replay | int:
    """The stored reply of a call that was settled, else the number of its next attempt.

    An attempt that an earlier holder of the run left open is given up here, before anything is sent again. Where
    another is under way, an `exclusive` one raises CallInFlight.
    """
    attempt, in_flight = 0, False
    asked = (call.scope.run_id, call.id, call.scope.tenant)
    for row in map(_Attempt._make, _ATTEMPTS(connection, asked).fetchall()):
        if row.state == "settled" and row.reply is not None:
            _REPLAYED(connection, {"of": row.id})
            return Replay(row.id, row.reply)
        if row.state in _OPEN and row.epoch < call.epoch:
            give_up(connection, {"id": row.id}, now)
        elif row.state in _OPEN:
            in_flight = True
        attempt = row.attempt + 1
    if in_flight and exclusive:
        raise CallInFlight(f"call {call.id} is under way already", next_step="ask again once it is answered")
    return attempt


def insert_reservation(
    connection: Connection,
    call: Call,
    quote: ModelQuote | ToolQuote | SliceQuote,
    verdict: Admitted,
    attempt: int,
    accounts: Sequence[int | None],
    now: int,
    deadline_us: int | None,
    left: MoneyLeft | None = None,
) -> Reservation:
    """Write the row and hold its amounts in every account."""
    row_price = quote.price if isinstance(quote, ModelQuote) else None
    scope = call.scope
    of_accounts = orjson.dumps(accounts).decode()
    held = verdict.amounts
    values = (
        *(call.id, attempt, _KINDS[type(quote)], "reserved"),
        *(scope.organisation, scope.tenant, scope.team, scope.user, scope.agents[-1], scope.run_id, call.epoch),
        *(call.node, call.digest, call.tier, call.model, call.reason, row_price.id if row_price else None),
        *(verdict.max_output_tokens, int(verdict.capped), of_accounts),
        *(held.nanousd, held.tokens, held.steps, held.tool_calls),
        *(now, FOREVER_US if deadline_us is None else deadline_us),
    )
    made = Reservation(
        id=_INSERT(connection, values).fetchall()[0][0],
        call=call,
        attempt=attempt,
        held=held,
        accounts=of_accounts,
        price=row_price,
        max_output_tokens=verdict.max_output_tokens,
        capped=verdict.capped,
        money_left=left,
    )
    _move(connection, made, "reserve", now, held=held)
    return made


def dispatch(connection: Connection, made: Reservation, *, now: int) -> bool:
    """Mark that bytes are about to leave; False where the reservation is no longer held."""
    return bool(_DISPATCH(connection, {"of": made.id, "now": now}).rowcount)


def settle(
    connection: Connection,
    made: Reservation,
    *,
    usage: Usage | None,
    outcome: Outcome,
    reply: str | None,
    note: str | None,
    now: int,
) -> Amounts:
    """Post what the call came to, give back the rest; returns what was posted."""
    posted = posting(made, usage, outcome)
    reply, note = storable(reply), storable(note)
    said = orjson.dumps(usage.to_record()).decode() if usage else None
    values = (outcome, posted.nanousd, posted.tokens, posted.steps, posted.tool_calls, said, note, now, reply, made.id)
    over = _exceeds(posted, made.held)
    if _SETTLE(connection, (*values, made.held.nanousd, made.held.tokens)).rowcount:
        kind = "overage" if over else "settle"
        _move(connection, made, kind, now, held=NOTHING - made.held, posted=posted, note=note)
    else:
        row = row_of(connection, made.id)
        if (held := amounts_in("held", row)) != made.held:
            again = made.holding(held)
            return settle(connection, again, usage=usage, outcome=outcome, reply=reply, note=note, now=now)
        if _settled_anew(row, posted, outcome):
            _SETTLE_LATE(connection, values)
            late = posted - amounts_in("posted", row)
            _move(connection, made, "overage" if over else "correct", now, posted=late, note="the truth came late")
    if over:
        overage(connection, made.call.scope, made.call.model, held=made.held, posted=posted, now=now)
    return posted


def release(connection: Connection, made: Reservation, *, note: str, now: int) -> None:
    """Give back all that was held, or all that was charged because nobody knew."""
    note = storable(note)
    values = {"of": made.id, "new_note": note, "now": now}
    as_held = {"as_nanousd": made.held.nanousd, "as_tokens": made.held.tokens}
    if _RELEASE(connection, {**values, **as_held}).rowcount:
        _move(connection, made, "release", now, held=NOTHING - made.held, note=note)
        return
    row = row_of(connection, made.id)
    if (held := amounts_in("held", row)) != made.held:
        release(connection, made.holding(held), note=note, now=now)
    elif _RELEASE_LATE(connection, values).rowcount:
        _move(connection, made, "correct", now, posted=NOTHING - amounts_in("posted", row), note=note)


def silent(connection: Connection, now: int, run_id: str | None) -> Sequence[RowMapping]:
    """Open reservations whose holder fell silent, or that earlier holders of one run left open."""
    if run_id is not None:
        return connection.execute(_LEFT_OPEN, {"of_run": run_id}).mappings().all()
    return connection.execute(_SILENT, {"now": now}).mappings().all()


def never_sent(connection: Connection, call: Call, deadline_us: int | None) -> Sequence[RowMapping]:
    """Attempts at a call with this deadline that were reserved and not dispatched."""
    of_call = (reservation.c.run_id == call.scope.run_id, reservation.c.call == call.id)
    until = reservation.c.deadline_us == (FOREVER_US if deadline_us is None else deadline_us)
    found = select(reservation).where(*of_call, until, reservation.c.state == "reserved")
    return connection.execute(found).mappings().all()


def chains_of(row: Record) -> tuple[str, ...]:
    """Whose ledgers a reservation's row changes."""
    return (row["tenant"],) if row["organisation"] is None else (f"org:{row['organisation']}", row["tenant"])


def give_up(connection: Connection, row: Record, now: int) -> None:
    """Close what nobody will close: never sent is released, sent is charged in full as unknown."""
    row = row_of(connection, row["id"], lock=True)  # `dispatch` waits for no chain: it may have been sent just now
    if row["state"] not in _OPEN:
        return
    held = amounts_in("held", row)
    note = "its holder fell silent"
    sent = row["state"] == "dispatched"
    as_held = (held.nanousd, held.tokens)
    if sent:
        posted = (*as_held, held.steps, held.tool_calls)
        _SETTLE(connection, ("unknown", *posted, None, note, now, None, row["id"], *as_held))
    else:
        values = dict(zip(("as_nanousd", "as_tokens"), as_held, strict=True))
        _RELEASE(connection, {"of": row["id"], "new_note": note, "now": now, **values})
    due = move(
        connection,
        chain=row["tenant"],
        kind="expire",
        at_us=now,
        reservation_id=row["id"],
        accounts=row["accounts"],
        held=NOTHING - held,
        posted=held if sent else NOTHING,
        note=note,
    )
    if due:
        fire(connection, due, now, run_id=row["run_id"])


def _settled_anew(row: RowMapping, posted: Amounts, outcome: Outcome) -> bool:
    """Whether what is said now of a call that is over takes the place of what was said before.

    Raises ReservationError where both are certain and differ.
    """
    if row["state"] != "settled":
        return True
    before = amounts_in("posted", row)
    if row["outcome"] == "unknown":
        return outcome != "unknown" or _exceeds(before, posted)  # of two bounds the lower one says more
    if before != posted:
        raise ReservationError(
            f"reservation {row['id']} was settled with {before} and cannot be settled again with {posted}"
        )
    return False


def _move(
    connection: Connection,
    made: Reservation,
    kind: str,
    now: int,
    *,
    held: Amounts = NOTHING,
    posted: Amounts = NOTHING,
    note: str | None = None,
) -> None:
    due = move(
        connection,
        chain=made.call.scope.tenant,
        kind=kind,
        at_us=now,
        reservation_id=made.id,
        accounts=made.accounts,
        held=held,
        posted=posted,
        note=note,
    )
    if due:
        fire(connection, due, now, run_id=made.call.scope.run_id)


def row_of(connection: Connection, reservation_id: int, *, lock: bool = False) -> RowMapping:
    """A reservation as the store has it; raises ReservationError where there is none."""
    query = select(reservation).where(reservation.c.id == reservation_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise ReservationError(f"there is no reservation {reservation_id}; reserve before the call")
    return row


def posting(made: Reservation, usage: Usage | None, outcome: Outcome) -> Amounts:
    """What a call comes to: by its usage, or all that was held where nobody knows.

    The usage of an unknown call is a bound, and what was held is another: the lower one counts.
    """
    held = made.held
    if usage is None:
        return held
    nanousd, tokens = made.price.cost(usage) if made.price else 0, usage.total_tokens
    if outcome == "unknown":
        nanousd, tokens = min(nanousd, held.nanousd), min(tokens, held.tokens)
    return Amounts(nanousd, tokens, held.steps, held.tool_calls)


def _exceeds(posted: Amounts, held: Amounts) -> bool:
    return (
        posted.nanousd > held.nanousd
        or posted.tokens > held.tokens
        or posted.steps > held.steps
        or posted.tool_calls > held.tool_calls
    )


def keep_price(connection: Connection, row: Price, known: dict[str, Price], now: int) -> None:
    """Keep the price row that a posting is made with; `known` are those that are surely in the store, by id.

    Raises UsageError for an id under which other rates are kept: what was charged at them must stay computable.
    """
    if known.get(row.id) == row:
        return
    claim(connection, [NOBODYS])  # two tenants may come with the same price at once
    kept = connection.execute(select(price.c.record).where(price.c.id == row.id)).scalar()
    if kept is None:
        record = json.dumps(row.to_record())
        connection.execute(insert(price).values(id=row.id, record=record))
        journal(connection, kind="price", at_us=now, detail={"price": row.id, "sha256": hash_of("", record)})
        return
    before = Price.from_record(json.loads(kept))
    if replace(row, source=before.source, effective=before.effective) != before:
        raise UsageError(
            f"price {row.id} has other rates than those that calls were charged at under this id",
            next_step=f"give the new rates an id of their own, such as {row.id}-2",
        )
    known[row.id] = row
