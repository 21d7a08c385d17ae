"""What can be done with a call while it runs: hold less of it, and ask whether it may go on."""

from __future__ import annotations

import json
from dataclasses import replace

from sqlalchemy import Connection, update

from bursar.budget.accounts import drawn_on
from bursar.budget.admission import over_limit
from bursar.budget.amounts import Amounts
from bursar.budget.errors import UsageError
from bursar.budget.gate import cut_off
from bursar.budget.journal import amounts_in, columns_of, move
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Reservation, row_of
from bursar.budget.schema import reservation

__all__ = ["check", "shrink"]


def shrink(connection: Connection, made: Reservation, keep: Amounts, *, now: int) -> Reservation:
    """Hold only the money and the tokens of `keep` any longer; returns the reservation as it is held then."""
    row = row_of(connection, made.id, lock=True)
    held = amounts_in("held", row)
    kept = Amounts(keep.nanousd, keep.tokens, held.steps, held.tool_calls)
    if not (0 <= kept.nanousd <= held.nanousd and 0 <= kept.tokens <= held.tokens):
        raise UsageError(f"reservation {made.id} holds {held} and cannot be shrunk to {keep}: a hold never grows")
    if row["state"] in ("reserved", "dispatched") and kept != held:
        values = columns_of("held", kept)
        connection.execute(update(reservation).where(reservation.c.id == made.id).values(**values))
        move(
            connection,
            chain=row["tenant"],
            kind="shrink",
            at_us=now,
            reservation_id=made.id,
            accounts=row["accounts"],
            held=kept - held,
        )
        held = kept
    return made.holding(held)


def check(connection: Connection, made: Reservation, now: int) -> Refusal | None:
    """Why a call under way should be cut off, or None."""
    pots = drawn_on(connection, json.loads(made.accounts), now)
    hard = [row.balance for row in pots if row.mode == "hard"]
    refusal = cut_off(pots, made.call, now) or over_limit(hard, made.held)
    return None if refusal is None else replace(refusal, cut=True)
