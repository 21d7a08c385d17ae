"""Opens the ledger and the runs of a configuration, without anything that executes a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime

from bursar.budget.ledger import Ledger
from bursar.budget.stores.migrate import migrate
from bursar.budget.windows import utc_now
from bursar.runtime.config import Config
from bursar.runtime.runs.records import MIGRATIONS, Records
from bursar.runtime.tenants import declare_budgets
from bursar.tools.effect_table import MIGRATIONS as EFFECTS

__all__ = ["open_ledger"]


def open_ledger(
    config: Config, *, clock: Callable[[], datetime] = utc_now, env: Mapping[str, str] = os.environ
) -> tuple[Ledger, Records]:
    """The ledger and the runs of a configuration's store, brought to this version; blocking.

    `env` holds the database's password where it has one. Raises ConfigError, LedgerUnavailable and LedgerVersionError.
    """
    ledger = Ledger.open(config.database_url(env), clock=clock)
    migrate(ledger.store, scripts=MIGRATIONS, version_table="bursar_runs_version")
    migrate(ledger.store, scripts=EFFECTS, version_table="bursar_effects_version")
    declare_budgets(ledger, config)
    return ledger, Records(ledger, clock)
