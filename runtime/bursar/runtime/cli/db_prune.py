"""`bursar db prune`: delete the checkpoints that are kept no longer."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime

from bursar.budget.errors import UsageError
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, DryRun
from bursar.runtime.cli.output import console, print_json
from bursar.runtime.cli.words import counted, plain

__all__ = ["prune"]


def prune(*, config: ConfigFile = CONFIG_FILE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Delete the checkpoints that the tenants' retention keeps no longer, and give their space back."""
    from bursar.memory.opening import opened_checkpoints  # with LangGraph
    from bursar.runtime.retention import prune_due

    with open_books(config) as books:
        if not any(tenant.retention.says_something for tenant in books.config.tenants.values()):
            raise UsageError(
                "no tenant has a retention, so every checkpoint is kept",
                next_step="tenants: {acme: {retention: {checkpoints: 30d, history: 1d}}} in bursar.yaml",
            )
        with opened_checkpoints(books.config.checkpoints_url(os.environ)) as checkpoints:
            done = prune_due(books.ledger.store, checkpoints, books.config, datetime.now(UTC), dry_run=dry_run)
            if done and not dry_run:
                checkpoints.give_back()
    if as_json:
        runs = [{"tenant": one.tenant, "run": one.run_id, "what": one.what} for one in done]
        return print_json({"dry_run": dry_run, "pruned": runs})
    for (tenant, what), count in sorted(Counter((one.tenant, one.what) for one in done).items()):
        would = "would be deleted" if dry_run else "deleted"
        part = "checkpoints" if what == "checkpoints" else "earlier checkpoints"
        console().print(plain(f"{tenant}: {part} of {counted(count, 'run')} {would}"), soft_wrap=True)
    if not done:
        console().print("nothing is due")
    return None
