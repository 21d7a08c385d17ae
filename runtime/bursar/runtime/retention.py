"""Deletes the checkpoints that a tenant's retention keeps no longer, and never one that a waiting run goes on with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import select, update

from bursar.budget.errors import ConflictError
from bursar.budget.stores.store import Store
from bursar.budget.windows import from_us, to_us
from bursar.memory import CheckpointRefused, CheckpointSaver
from bursar.runtime.config import Config
from bursar.runtime.config_escalations import span
from bursar.runtime.config_retention import RetentionConfig
from bursar.runtime.runs.records import Record
from bursar.runtime.runs.run import ENDED, RunStatus
from bursar.runtime.runs.schema import run

__all__ = ["Pruned", "prune_due", "require_kept"]

BATCH = 500
"""How many runs are looked up at once."""

_log = logging.getLogger("bursar.runtime")


What = Literal["checkpoints", "history"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What went, or would go."""

    tenant: str
    run_id: str
    what: What


def prune_due(
    store: Store, checkpoints: CheckpointSaver, config: Config, now: datetime, *, dry_run: bool = False
) -> list[Pruned]:
    """Do what the retention of every tenant says is due; blocking. `store` is that of the runs.

    A run whose checkpoints are damaged is left as it is, and logged. Raises LedgerUnavailable and
    CheckpointsUnavailable.
    """
    due = {
        tenant: list(_due(store, checkpoints.for_tenant(tenant), section.retention, tenant, now))
        for tenant, section in config.tenants.items()
    }
    return [
        pruned
        for tenant, found in due.items()
        for pruned, changed_us in found
        if dry_run or _prune(store, checkpoints.for_tenant(tenant), pruned, changed_us, now)
    ]


def require_kept(row: Record) -> None:
    """Raise ConflictError for a run whose checkpoints were deleted: it would begin anew, and act a second time."""
    if row["pruned_us"] is not None:
        raise ConflictError(
            f"run {row['id']} cannot go on: its checkpoints were deleted on {from_us(row['pruned_us']):%Y-%m-%d}, as "
            f"tenants.{row['tenant']}.retention says",
            next_step="start a new one",
        )


def _due(
    store: Store, checkpoints: CheckpointSaver, retention: RetentionConfig, tenant: str, now: datetime
) -> Iterator[tuple[Pruned, int]]:
    """What is due of one tenant, and when each of its runs changed last."""
    seen: set[str] = set()
    kept: Sequence[tuple[What, str | None, Sequence[RunStatus]]] = (
        ("checkpoints", retention.checkpoints, ENDED),
        ("history", retention.history, (*ENDED, "interrupted")),
    )
    for what, kept_for, statuses in kept:
        if kept_for is None:
            continue
        threads = checkpoints.threads(with_history=what == "history")
        for run_id, changed_us in _quiet(store, tenant, threads, statuses, now - span(kept_for)):
            if run_id not in seen:
                yield Pruned(tenant=tenant, run_id=run_id, what=what), changed_us
            seen.add(run_id)


def _quiet(
    store: Store, tenant: str, run_ids: Sequence[str], statuses: Sequence[RunStatus], since: datetime
) -> Iterator[tuple[str, int]]:
    """Those of the runs that are in these states and have not changed since."""
    query = select(run.c.id, run.c.changed_us).where(
        run.c.tenant == tenant, run.c.status.in_(statuses), run.c.changed_us < to_us(since)
    )
    for start in range(0, len(run_ids), BATCH):
        with store.read() as connection:
            found = connection.execute(query.where(run.c.id.in_(run_ids[start : start + BATCH]))).all()
        yield from ((run_id, changed_us) for run_id, changed_us in found)


def _prune(store: Store, checkpoints: CheckpointSaver, due: Pruned, changed_us: int, now: datetime) -> bool:
    """Whether it was done: not where the run has changed meanwhile."""
    try:
        if due.what == "history":
            checkpoints.prune([due.run_id])
            return True
        # Without its checkpoints a run would begin anew, so it is closed before they go.
        closed = update(run).where(run.c.id == due.run_id, run.c.changed_us == changed_us, run.c.status.in_(ENDED))
        with store.write(durable=True) as connection:
            if not connection.execute(closed.values(pruned_us=to_us(now))).rowcount:
                return False
        checkpoints.delete_thread(due.run_id)
    except CheckpointRefused as error:
        _log.warning("run %s of tenant %s is not pruned: %s", due.run_id, due.tenant, error)
        return False
    return True
