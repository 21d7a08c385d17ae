"""What must hold in every ledger at every moment, read from the store itself."""

# ruff: noqa: S101 - tests assert

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import RowMapping

from bursar.budget import Store
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.schema import account, entry, reservation
from bursar.budget.stores.prepared import Record

__all__ = ["audit", "balances", "excesses"]


def balances(store: Store) -> dict[int, RowMapping]:
    """Every account as it stands in the store, by id."""
    with store.read() as connection:
        return {row["id"]: row for row in connection.execute(select(account)).mappings()}


def excesses(store: Store) -> dict[tuple[int, str], int]:
    """By how much an account's posted and held amounts exceed its limit, where they do."""
    over = {
        (key, name): row[f"posted_{name}"] + row[f"held_{name}"] - row[f"limit_{name}"]
        for key, row in balances(store).items()
        for name in DIMENSIONS
        if row[f"limit_{name}"] is not None
    }
    return {key: amount for key, amount in over.items() if amount > 0}


def audit(store: Store) -> None:
    """Hold is the sum of open reservations, posted of settled ones, and the journal makes every balance anew."""
    with store.read() as connection:
        made = {row["id"]: row for row in connection.execute(select(reservation)).mappings()}
        in_order = (entry.c.chain.not_like("org:%"), entry.c.chain, entry.c.number)  # a limit before what it bounds
        written = connection.execute(select(entry).order_by(*in_order)).mappings().all()
        kept = {row["id"]: row for row in connection.execute(select(account)).mappings()}
    assert _balances_of(made.values()) == {key: _balance(row) for key, row in kept.items() if any(_balance(row))}
    assert _replayed(written, made) == _balances_of(made.values())
    assert _limits_replayed(written, made, kept).items() <= {key: _limit(row) for key, row in kept.items()}.items()


_BALANCE = tuple(f"{side}_{name}" for side in ("held", "posted") for name in DIMENSIONS)


def _balance(row: Record) -> tuple[int, ...]:
    return tuple(row[column] for column in _BALANCE)


def _limit(row: Record) -> tuple[int | None, ...]:
    return tuple(row[f"limit_{name}"] for name in DIMENSIONS)


def _accounts(row: Record) -> list[int]:
    return list(json.loads(row["accounts"]))


def _plus(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _balances_of(made: Any) -> dict[int, tuple[int, ...]]:
    """Balances by account, from what is open and what is settled."""
    found: dict[int, tuple[int, ...]] = defaultdict(lambda: (0,) * len(_BALANCE))
    for row in made:
        counts = {"reserved": "held", "dispatched": "held", "settled": "posted"}.get(row["state"])
        part = tuple(row[column] if counts and column.startswith(counts) else 0 for column in _BALANCE)
        for key in _accounts(row):
            found[key] = _plus(found[key], part)
    return {key: balance for key, balance in found.items() if any(balance)}


def _replayed(written: Sequence[RowMapping], made: Mapping[int, RowMapping]) -> dict[int, tuple[int, ...]]:
    """Balances by account, from the journal alone."""
    found: dict[int, tuple[int, ...]] = defaultdict(lambda: (0,) * len(_BALANCE))
    for row in written:
        if row["reservation_id"] is not None:
            assert _accounts(row) == _accounts(made[row["reservation_id"]])
            for key in _accounts(row):
                found[key] = _plus(found[key], _balance(row))
                assert min(found[key]) >= 0, f"entry {row['chain']} {row['number']} takes more than there is"
    return {key: balance for key, balance in found.items() if any(balance)}


def _limits_replayed(
    written: Sequence[RowMapping], made: Mapping[int, RowMapping], kept: Mapping[int, RowMapping]
) -> dict[int, tuple[int | None, ...]]:
    """Limits by account, from the journal alone: the pot's when its window was opened or changed, and its grants."""
    of_pot: dict[int, tuple[int | None, ...]] = {}
    granted: dict[int, tuple[int, ...]] = defaultdict(lambda: (0,) * len(DIMENSIONS))
    found: dict[int, tuple[int | None, ...]] = {}
    for row in written:
        for key in _accounts(row) if row["accounts"] is not None else ():
            if row["kind"] in ("open", "limit", "window"):
                of_pot[kept[key]["pot_id"]] = _limit(row)
            sign = {"grant": 1, "carry": 1, "take_back": -1}.get(row["kind"], 0)
            granted[key] = _plus(granted[key], [sign * (amount or 0) for amount in _limit(row)])
            if row["kind"] in ("open", "limit", "window") or sign or key not in found:
                base = of_pot[kept[key]["pot_id"]]
                found[key] = tuple(
                    None if limit is None else limit + more for limit, more in zip(base, granted[key], strict=True)
                )
    return found
