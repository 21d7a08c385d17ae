"""What a tenant decided about models without a price, where money is limited."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import Connection, RowMapping, delete, insert, select

from bursar.budget.errors import UsageError
from bursar.budget.journal import claim, journal
from bursar.budget.pricing.prices import Price
from bursar.budget.schema import policy
from bursar.budget.scope import budget_kind
from bursar.budget.stores.store import Store
from bursar.budget.windows import to_us, utc_now

__all__ = ["Policies", "Policy", "Unpriced"]

Unpriced = Literal[
    "refuse",  # nothing is sent: unknown is not free
    "ceiling_price",  # it is reserved and posted at the tenant's own price for the unknown
    "allow_and_alert",  # it goes out, nothing is posted for it, and somebody is told
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What happens to a call of a model without a price under a limit in money."""

    unpriced: Unpriced = "refuse"
    ceiling: Price | None = None
    """What such a call costs under `ceiling_price`; None under the others."""


class Policies:
    """The policies of a store's tenants. Safe to use from several threads."""

    def __init__(self, store: Store, clock: Callable[[], datetime] = utc_now) -> None:
        self._store, self._clock = store, clock

    def set(
        self,
        path: str,
        *,
        unpriced: Unpriced,
        ceiling: Price | None = None,
        author: str,
        note: str = "",
        source: Literal["config", "command"] = "command",
    ) -> Policy:
        """Set a tenant's policy and journal it; the next call meets it. Returns the policy that holds.

        What the command set is not changed by the configuration later. Raises UsageError for a path that is no tenant,
        another word than one of `Unpriced`, and a ceiling that is missing or not asked for.
        """
        wanted = _checked(path, unpriced, ceiling)
        values = {"unpriced": unpriced, "ceiling": wanted.ceiling and json.dumps(wanted.ceiling.to_record())}
        now = to_us(self._clock())
        with self._store.write(durable=True) as connection:
            claim(connection, [path])
            row = _row(connection, path)
            known = _policy(row)
            if (source == "config" and row and row["source"] == "command") or known == wanted:
                return known
            connection.execute(delete(policy).where(policy.c.path == path))
            by = {"path": path, "source": source, "set_by": author, "set_us": now}
            connection.execute(insert(policy).values(**by, **values))
            detail = {"unpriced": unpriced, "ceiling": wanted.ceiling and wanted.ceiling.to_record()}
            journal(
                connection,
                chain=path,
                kind="policy",
                at_us=now,
                path=path,
                author=author,
                note=note or f"unpriced: {unpriced}",
                detail=detail,
            )
        return wanted

    def of(self, connection: Connection, tenant: str) -> Policy:
        """A tenant's policy, within a transaction: `refuse` unless it was set."""
        return _policy(_row(connection, tenant))

    def ls(self) -> dict[str, Policy]:
        """Every policy that was set, by tenant."""
        with self._store.read() as connection:
            rows = connection.execute(select(policy).order_by(policy.c.path)).mappings().all()
        return {row["path"]: _policy(row) for row in rows}


def _checked(path: str, unpriced: Unpriced, ceiling: Price | None) -> Policy:
    if budget_kind(path) != "tenant":
        raise UsageError(f"policy of {path!r}: only a tenant has one", next_step="name the tenant, as in acme")
    if unpriced not in get_args(Unpriced):
        raise UsageError(f"unpriced {unpriced!r}: expected one of {', '.join(get_args(Unpriced))}")
    if (unpriced == "ceiling_price") != (ceiling is not None):
        raise UsageError(
            f"unpriced {unpriced}: a ceiling belongs to ceiling_price, and only to it",
            next_step=f"bursar budget policy {path} --unpriced ceiling_price "
            "--input-usd-per-mtok 20 --output-usd-per-mtok 100",
        )
    return Policy(unpriced=unpriced, ceiling=ceiling and _identified(path, ceiling))


def _identified(path: str, ceiling: Price) -> Price:
    """The price under an id that names its content: postings keep the row that they were made with."""
    digest = hashlib.sha256(json.dumps({**ceiling.to_record(), "id": ""}, sort_keys=True).encode()).hexdigest()[:8]
    return replace(ceiling, id=f"ceiling:{path}#{digest}")


def _row(connection: Connection, path: str) -> RowMapping | None:
    return connection.execute(select(policy).where(policy.c.path == path)).mappings().first()


def _policy(row: RowMapping | None) -> Policy:
    if row is None:
        return Policy()
    ceiling = Price.from_record(json.loads(row["ceiling"])) if row["ceiling"] else None
    return Policy(unpriced=row["unpriced"], ceiling=ceiling)
