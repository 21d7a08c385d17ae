"""Checks every reservation against the journal, and its bill against its price and its usage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, case, func, select

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.audit.links import PAGE, Finding
from bursar.budget.audit.tally import MOVED
from bursar.budget.pricing.prices import Price
from bursar.budget.schema import entry, price, reservation
from bursar.budget.stores.prepared import Record
from bursar.budget.usage import Usage

__all__ = ["Reservations"]

_OPEN = ("reserved", "dispatched")
_NOTHING = (0,) * len(MOVED)
_SIDE = len(DIMENSIONS)

Sums = tuple[int, ...]


_RESERVED = [
    func.sum(case((entry.c.kind.in_(["reserve", "shrink"]), entry.c[f"held_{name}"]), else_=0)).label(f"held_{name}")
    for name in DIMENSIONS
]
_BY_RESERVATION = (
    select(
        entry.c.reservation_id,
        *(func.sum(entry.c[name]) for name in MOVED),
        *_RESERVED,
        func.min(entry.c.accounts),
        func.max(entry.c.accounts),
        func.min(entry.c.chain),
        func.max(entry.c.chain),
    )
    .where(entry.c.reservation_id.is_not(None))
    .group_by(entry.c.reservation_id)
)


class Reservations:
    """Checks every reservation against its entries, and its bill against its price and its usage."""

    def __init__(self, kept: Mapping[int, Sums]) -> None:
        """`kept` is what was rolled up of reservations whose rows are still there."""
        self._kept = dict(kept)
        self._prices: dict[str, Price | None] = {}
        self._slices: dict[int, Sums] = {}

    def check(self, connection: Connection) -> Iterator[Finding]:
        """Every reservation, in the order of their ids."""
        self._prices = dict(_prices(connection))
        after: int | None = -(2**63)
        while after is not None:
            of_page = select(reservation).where(reservation.c.id > after).order_by(reservation.c.id).limit(PAGE)
            rows = connection.execute(of_page).mappings().all()
            last = rows[-1]["id"] if len(rows) == PAGE else None
            entries = _BY_RESERVATION.where(entry.c.reservation_id > after)
            if last is not None:
                entries = entries.where(entry.c.reservation_id <= last)
            yield from self._page(rows, {row[0]: tuple(row[1:]) for row in connection.execute(entries)})
            after = last
        for key in self._kept:
            yield Finding(what=f"reservation {key}", problem="is missing; its first entries were rolled up")
        for key, rest in self._slices.items():
            if any(rest):
                yield Finding(
                    what=f"reservation {key}", problem=f"its calls come to {_text(rest)} less than its entries"
                )

    def _page(self, rows: Sequence[RowMapping], written: dict[int, Any]) -> Iterator[Finding]:
        for row in rows:
            key = row["id"]
            said = written.pop(key, None)
            kept = self._kept.pop(key, None)
            for problem in self._problems(row, said, kept):
                yield Finding(chain=row["tenant"], what=f"reservation {key}", problem=problem)
        for key in written:
            yield Finding(what=f"reservation {key}", problem="is missing; the journal has entries of it")

    def _problems(self, row: RowMapping, said: Any, kept: Sums | None) -> Iterator[str]:
        is_part = row["slice_id"] is not None
        if not is_part and said is None and kept is None:
            yield "the journal knows nothing of it"
        sums = tuple(a + b for a, b in zip(said[: len(MOVED)] if said else _NOTHING, kept or _NOTHING, strict=True))
        stands = _standing(row)
        if is_part:
            self._add_to_slice(row["slice_id"], tuple(-amount for amount in stands[_SIDE:]))
        elif row["kind"] == "slice":
            self._add_to_slice(row["id"], tuple(a - b for a, b in zip(sums, stands, strict=True))[_SIDE:])
            sums = (*sums[:_SIDE], *stands[_SIDE:])
        if not is_part and sums != stands:
            yield f"it is {row['state']} with {_text(stands)}; its entries come to {_text(sums)}"
        if row["state"] not in _states(row, sums):
            yield f"it is {row['state']!r}; it should be {' or '.join(_states(row, sums))}"
        if row["state"] != "settled" and any(posted := [row[name] for name in MOVED[_SIDE:]]):
            yield f"it is {row['state']}, and was charged {_text(posted)}"
        if said is not None:
            yield from _against_entries(row, said[len(MOVED) :])
        yield from self._bill(row)

    def _add_to_slice(self, key: int, amounts: Sums) -> None:
        before = self._slices.get(key, (0,) * _SIDE)
        self._slices[key] = tuple(a + b for a, b in zip(before, amounts, strict=True))

    def _bill(self, row: RowMapping) -> Iterator[str]:
        """Whether it was posted what its usage costs; where nobody knows, no more than was held."""
        if row["state"] != "settled" or row["kind"] == "slice":
            return
        posted = tuple(row[name] for name in MOVED[_SIDE:])
        held = tuple(row[name] for name in MOVED[:_SIDE])
        due = held
        if row["usage"] is not None:
            try:
                usage = Usage(**json.loads(row["usage"]))
            except (TypeError, ValueError):
                yield "its usage cannot be read"
                return
            of_price = self._prices.get(row["price_id"]) if row["price_id"] is not None else None
            nanousd = of_price.cost(usage) if of_price is not None else 0
            due = (nanousd, usage.total_tokens, *held[2:])
            if row["outcome"] == "unknown":
                due = tuple(map(min, due, held))
        if posted != due:
            yield f"it was charged {_text(posted)}; its usage and its price come to {_text(due)}"


def _states(row: Record, sums: Sums) -> tuple[str, ...]:
    """The states that follow from what was moved; a slice may have spent all that it held, or nothing."""
    if row["slice_id"] is not None:
        return ("settled",)
    if row["kind"] == "slice":
        return (*_OPEN, "settled", "released")
    if not any(row[name] for name in MOVED[:_SIDE]):
        return (*_OPEN, "settled", "released")  # nothing was held, and so nothing moves
    if any(sums[:_SIDE]):
        return _OPEN
    return ("settled",) if any(sums[_SIDE:]) else ("released",)


def _standing(row: Record) -> Sums:
    """What a reservation holds and has posted now."""
    is_open, is_settled = row["state"] in _OPEN, row["state"] == "settled"
    held = (row[name] if is_open else 0 for name in MOVED[:_SIDE])
    return (*held, *(row[name] if is_settled else 0 for name in MOVED[_SIDE:]))


def _against_entries(row: RowMapping, said: Sequence[Any]) -> Iterator[str]:
    reserved, (first, last, chain, other) = tuple(said[:_SIDE]), said[_SIDE:]
    held = tuple(row[name] for name in MOVED[:_SIDE])
    if max(reserved) > 0 and row["kind"] != "slice" and reserved != held:  # else its first entry was rolled up
        yield f"it held {_text(held)}; its entries say {_text(reserved)}"
    if {first, last} != {row["accounts"]}:
        yield f"its accounts are {row['accounts']}; its entries say {first}"
    if {chain, other} != {row["tenant"]}:
        yield f"its tenant is {row['tenant']}; its entries are in the journal of {chain}"


def _prices(connection: Connection) -> Iterator[tuple[str, Price | None]]:
    for key, record in connection.execute(select(price.c.id, price.c.record)):
        try:
            yield key, Price.from_record(json.loads(record))
        except ValueError:  # what is wrong with the row is said where its digest is compared
            yield key, None


def _text(amounts: Sequence[int]) -> str:
    """The amounts that are not zero, by name: 8 of held and posted, or 4 of one of them."""
    names = MOVED if len(amounts) == len(MOVED) else DIMENSIONS
    return ", ".join(f"{name} {amount}" for name, amount in zip(names, amounts, strict=True) if amount) or "nothing"
