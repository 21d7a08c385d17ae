"""`bursar db upgrade`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from bursar.budget.stores.migrate import SCRIPTS
from bursar.budget.stores.store import Store
from bursar.memory.opening import MIGRATIONS as CHECKPOINTS
from bursar.memory.opening import VERSION_TABLE as CHECKPOINTS_TABLE
from bursar.memory.opening import opened_checkpoints
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, DryRun
from bursar.runtime.cli.output import console, print_json
from bursar.runtime.cli.words import plain
from bursar.runtime.config import Config, load_config
from bursar.runtime.runs.records import MIGRATIONS
from bursar.tools.effect_table import MIGRATIONS as EFFECTS

__all__ = ["upgrade", "versions", "where"]

_PARTS = {
    "ledger": ("bursar_version", SCRIPTS, Config.database_url),
    "runs": ("bursar_runs_version", MIGRATIONS, Config.database_url),
    "effects": ("bursar_effects_version", EFFECTS, Config.database_url),
    "checkpoints": (CHECKPOINTS_TABLE, CHECKPOINTS, Config.checkpoints_url),
}


def upgrade(*, config: ConfigFile = CONFIG_FILE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Bring the database's tables to this version of Bursar."""
    read = load_config(config)
    before = versions(read)
    if not dry_run:
        with open_books(config), opened_checkpoints(read.checkpoints_url()):
            pass
    newest = {part: ScriptDirectory(str(scripts)).get_current_head() for part, (_, scripts, _) in _PARTS.items()}
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
    return {part: _version(url(config, env), table) for part, (table, _, url) in _PARTS.items()}


def _version(url: str, table: str) -> str | None:
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return None
    with closing(Store(url, locked_s_max=1)) as store, store.read() as connection:
        return MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision()
