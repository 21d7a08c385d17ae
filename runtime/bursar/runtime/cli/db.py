"""`bursar db upgrade`."""

from __future__ import annotations

from pathlib import Path

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from bursar.budget.migrate import SCRIPTS
from bursar.budget.store import Store
from bursar.runtime.cli.books import open_books
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, DryRun
from bursar.runtime.cli.output import console, print_json
from bursar.runtime.cli.words import plain
from bursar.runtime.config import load_config
from bursar.runtime.runs.records import MIGRATIONS

__all__ = ["upgrade", "versions"]

_PARTS = {"ledger": ("bursar_version", SCRIPTS), "runs": ("bursar_runs_version", MIGRATIONS)}


def upgrade(*, config: ConfigFile = CONFIG_FILE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Bring the database's tables to this version of Bursar."""
    path = load_config(config).database_path
    before = versions(path)
    if not dry_run:
        with open_books(config):
            pass
    newest = {part: ScriptDirectory(str(scripts)).get_current_head() for part, (_, scripts) in _PARTS.items()}
    if as_json:
        return print_json({"dry_run": dry_run, "database": str(path), "found": before, "newest": newest})
    done = "would be upgraded" if dry_run else "upgraded"
    changed = [
        f"{part} {done} from {found or 'nothing'} to {newest[part]}"
        for part, found in before.items()
        if found != newest[part]
    ]
    return console().print(plain(f"{path}: {', '.join(changed) or 'up to date'}"), soft_wrap=True)


def versions(database: Path) -> dict[str, str | None]:
    """The version of each part's tables; None where there are none. Raises LedgerUnavailable."""
    if not database.exists():
        return dict.fromkeys(_PARTS)
    store = Store(f"sqlite:///{database}", locked_s_max=1)
    try:
        with store.read() as connection:
            return {
                part: MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision()
                for part, (table, _) in _PARTS.items()
            }
    finally:
        store.close()
