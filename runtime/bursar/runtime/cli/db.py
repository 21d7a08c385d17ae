"""`bursar db upgrade`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from bursar.budget.stores.migrate import SCRIPTS
from bursar.budget.stores.store import Store
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, DryRun
from bursar.runtime.cli.output import console, print_json
from bursar.runtime.cli.words import plain
from bursar.runtime.config import Config, load_config
from bursar.runtime.runs.records import MIGRATIONS

__all__ = ["upgrade", "versions", "where"]

_PARTS = {"ledger": ("bursar_version", SCRIPTS), "runs": ("bursar_runs_version", MIGRATIONS)}


def upgrade(*, config: ConfigFile = CONFIG_FILE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Bring the database's tables to this version of Bursar."""
    read = load_config(config)
    before = versions(read)
    if not dry_run:
        with open_books(config):
            pass
    newest = {part: ScriptDirectory(str(scripts)).get_current_head() for part, (_, scripts) in _PARTS.items()}
    if as_json:
        return print_json({"dry_run": dry_run, "database": where(read), "found": before, "newest": newest})
    done = "would be upgraded" if dry_run else "upgraded"
    changed = [
        f"{part} {done} from {found or 'nothing'} to {newest[part]}"
        for part, found in before.items()
        if found != newest[part]
    ]
    return console().print(plain(f"{where(read)}: {', '.join(changed) or 'up to date'}"), soft_wrap=True)


def where(config: Config) -> str:
    """The database as it is shown to people."""
    return str(config.database_path or config.database)


def versions(config: Config, env: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """The version of each part's tables; None where there are none. Raises ConfigError and LedgerUnavailable."""
    if config.database_path is not None and not config.database_path.exists():
        return dict.fromkeys(_PARTS)
    with closing(Store(config.database_url(env), locked_s_max=1)) as store, store.read() as connection:
        return {
            part: MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision()
            for part, (table, _) in _PARTS.items()
        }
