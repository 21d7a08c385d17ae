"""What must hold in every ledger at every moment, read from the store itself."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import RowMapping

from bursar.budget import Store
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.journal import body_of, hash_of
from bursar.budget.schema import account, entry, pot, reservation
from bursar.budget.stores.prepared import Record

__all__ = ["audit", "balances", "excesses"]


_RESERVATIONS = select(reservation)
_ENTRIES = select(entry).order_by(entry.c.chain, entry.c.number)
_ACCOUNTS = select(account)
_HARD = (
    select(account, pot.c.overdraft_percent, *(pot.c[f"limit_{name}"].label(f"base_{name}") for name in DIMENSIONS))
    .join(pot)
    .where(pot.c.mode == "hard", pot.c.per.not_like("rolling%"))
)


def balances(store: Store) -> dict[int, RowMapping]:
    """Every account as it stands in the store, by id."""
    with store.read() as connection:
        return {row["id"]: row for row in connection.execute(_ACCOUNTS).mappings()}


def excesses(store: Store) -> dict[tuple[int, str], int]:
    """By how much the posted and held amounts of an account exceed its hard limit and its overdraft, where they do.

    Of a rolling limit an account is but a part, so there is nothing to say of it.
    """
    with store.read() as connection:
        rows = connection.execute(_HARD).mappings().all()
    over = {
        (row["id"], name): row[f"posted_{name}"] + row[f"held_{name}"] - row[f"limit_{name}"] - _overdraft(row, name)
        for row in rows
        for name in DIMENSIONS
        if row[f"limit_{name}"] is not None
    }
    return {key: amount for key, amount in over.items() if amount > 0}


def audit(store: Store) -> None:
    """Hold is the sum of open reservations, posted of settled ones, and the journal makes every balance anew."""
    with store.read() as connection:
        made = {row["id"]: row for row in connection.execute(_RESERVATIONS).mappings()}
        written = connection.execute(_ENTRIES).mappings().all()
        kept = {row["id"]: row for row in connection.execute(_ACCOUNTS).mappings()}
    of_rows = _balances_of(made.values())
    assert of_rows == {key: _balance(row) for key, row in kept.items() if any(_balance(row))}
    assert _replayed(written, made) == of_rows
    assert _limits_replayed(written).items() <= {key: _limit(row) for key, row in kept.items()}.items()
    _follow(written)


def _follow(written: Sequence[RowMapping]) -> None:
    """Every entry is the next of its chain, and its hash is made of the one before; the first may be rolled up."""
    last: dict[str, RowMapping] = {}
    for row in written:
        before = last.get(row["chain"])
        if before is not None or row["number"] == 1:
            number, hashed = (before["number"], before["hash"]) if before is not None else (0, "")
            assert (row["number"], row["hash"]) == (number + 1, hash_of(hashed, body_of(row))), "a chain is broken"
        last[row["chain"]] = row


def _overdraft(row: Record, name: str) -> int:
    return int(row[f"base_{name}"] or 0) * int(row["overdraft_percent"]) // 100


_BALANCE = tuple(f"{side}_{name}" for side in ("held", "posted") for name in DIMENSIONS)


def _balance(row: Record) -> tuple[int, ...]:
    return tuple(row[column] for column in _BALANCE)


def _limit(row: Record) -> tuple[int | None, ...]:
    return tuple(row[f"limit_{name}"] for name in DIMENSIONS)


def _accounts(row: Record) -> tuple[int, ...]:
    return _ids(row["accounts"])


@lru_cache(maxsize=4096)
def _ids(accounts: str) -> tuple[int, ...]:
    return tuple(json.loads(accounts))


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


def _limits_replayed(written: Sequence[RowMapping]) -> dict[int, tuple[int | None, ...]]:
    """Limits by account, from the journal alone: the pot's when its window was opened or changed, and its grants."""
    base: dict[int, tuple[int | None, ...]] = {}
    granted: dict[int, tuple[int, ...]] = defaultdict(lambda: (0,) * len(DIMENSIONS))
    for row in written:
        for key in _accounts(row) if row["accounts"] is not None else ():
            if row["kind"] in ("open", "limit", "retune", "window"):
                base[key] = _limit(row)
            sign = {"grant": 1, "carry": 1, "take_back": -1}.get(row["kind"], 0)
            granted[key] = _plus(granted[key], [sign * (amount or 0) for amount in _limit(row)])
    return {
        key: tuple(None if limit is None else limit + more for limit, more in zip(base[key], granted[key], strict=True))
        for key in base
    }
