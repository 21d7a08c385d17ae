"""Summaries: what stands for entries of the journal that were rolled up, signed so that nobody can change it unseen.

The signature is an HMAC with a secret of whoever runs the ledger. A pair of keys (Ed25519) would let others check a
summary who cannot make one; but whoever checks a ledger reads the whole of it, so they are the same people, and a hash
that was kept elsewhere (`bursar budget verify --head`) shows the rest of the world as much, without another library.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from bursar.budget.errors import UsageError
from bursar.budget.schema import rollup, summary

__all__ = ["KEY_BYTES_MIN", "SIGNING_KEY", "Kept", "check_key", "is_signed", "signature_of", "summaries"]

SIGNING_KEY = "BURSAR_SIGNING_KEY"
"""The environment variable that holds the secret."""

KEY_BYTES_MIN = 32

PAGE = 50
"""How many summaries are read at once."""

_UNSIGNED = ("id", "summary_id", "signature")


def check_key(key: bytes | None) -> bytes:
    """The secret, where it is long enough; raises UsageError."""
    if key is None or len(key) < KEY_BYTES_MIN:
        said = "is not set" if not key else f"has {len(key)} bytes"
        raise UsageError(
            f"the environment variable {SIGNING_KEY} {said}: expected a secret of at least {KEY_BYTES_MIN} bytes, "
            "with which what is rolled up is signed",
            next_step=f"export {SIGNING_KEY}=$(openssl rand -hex 32), and keep it",
        )
    return key


def signature_of(key: bytes, row: Mapping[str, Any] | RowMapping, rollups: Sequence[Mapping[str, Any]]) -> str:
    """The signature of a summary with its rollups, both without their ids."""
    signed = [_signed(row), [_signed(one) for one in rollups]]
    body = json.dumps(signed, separators=(",", ":"), sort_keys=True)
    return hmac.digest(key, body.encode(), "sha256").hex()


def is_signed(connection: Connection, key: bytes, row: RowMapping) -> bool:
    """Whether a summary and its rollups are as they were signed."""
    made = select(rollup).where(rollup.c.summary_id == row["id"]).order_by(rollup.c.id)
    rollups: list[Any] = list(connection.execute(made).mappings())
    return hmac.compare_digest(row["signature"].encode(), signature_of(key, row, rollups).encode())


def summaries(connection: Connection, chain: str | None = None) -> Iterator[RowMapping]:
    """Every summary, or those of a chain, in the order of the entries that they stand for."""
    query = select(summary).order_by(summary.c.chain, summary.c.last_number).limit(PAGE)
    if chain is not None:
        query = query.where(summary.c.chain == chain)
    after: tuple[str, int] = ("", 0)
    while True:
        beyond = (summary.c.chain > after[0]) | ((summary.c.chain == after[0]) & (summary.c.last_number > after[1]))
        page = connection.execute(query.where(beyond)).mappings().all()
        yield from page
        if len(page) < PAGE:
            return
        after = (page[-1]["chain"], page[-1]["last_number"])


@dataclass(slots=True)
class Kept:
    """Reservations of which entries were rolled up, and whose rows are still there: what was held and posted."""

    sums: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """By reservation, in the order of `bursar.budget.audit.tally.MOVED`."""

    def add(self, record: str) -> None:
        """Take in what the next summary says: amounts for those that were kept, null for those that were rolled up."""
        for key, amounts in json.loads(record).items():
            if amounts is None:
                self.sums.pop(int(key), None)
            else:
                before = self.sums.get(int(key), (0,) * len(amounts))
                self.sums[int(key)] = tuple(a + b for a, b in zip(before, amounts, strict=True))


def _signed(row: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _UNSIGNED}
