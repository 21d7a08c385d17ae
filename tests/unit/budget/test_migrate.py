from __future__ import annotations

import inspect as python
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from bursar.budget.errors import LedgerUnavailable, LedgerVersionError
from bursar.budget.migrate import SCRIPTS, migrate
from bursar.budget.schema import metadata
from bursar.budget.store import Store
from tests.support.processes import Child


def a_store(folder: Path, name: str = "ledger.db") -> Store:
    return Store(f"sqlite:///{folder / name}")


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def shape(store: Store) -> dict[str, Any]:
    """All that can be said of the ledger's tables and indexes, in no particular order."""
    with store.read() as connection:
        found = inspect(connection)
        ask: list[Callable[[str], object]] = [
            found.get_columns,
            found.get_unique_constraints,
            found.get_check_constraints,
            found.get_foreign_keys,
        ]
        indexes = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'index'"))
        return {row.name: row.sql for row in indexes} | {
            name: [found.get_pk_constraint(name), *(sorted(map(str, cast("list[Any]", look(name)))) for look in ask)]
            for name in metadata.tables
        }


def test_the_migrations_make_the_tables_of_the_schema_and_no_others(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    migrate(store)
    with store.read() as connection:
        options: dict[str, Any] = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts={"version_table": "bursar_version", **options})
        assert compare_metadata(context, metadata) == []
    store.close()


def test_the_migrations_keep_every_constraint_and_every_condition_of_an_index(tmp_path: Path) -> None:
    migrated, made = a_store(tmp_path), a_store(tmp_path, "made.db")
    migrate(migrated)
    with made.write() as connection:
        metadata.create_all(connection)
    of_alembic = "sqlite_autoindex_bursar_version_1"
    assert {name: what for name, what in shape(migrated).items() if name != of_alembic} == shape(made)
    for store in (migrated, made):
        store.close()


def test_the_newest_migration_is_the_one_that_the_code_knows() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("path_separator", "os")
    known = python.signature(migrate).parameters["head"].default
    assert ScriptDirectory.from_config(config).get_heads() == [known]


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    migrate(store)
    store.close()
    before = store.path.read_bytes()
    migrate(store)
    store.close()
    assert store.path.read_bytes() == before


def test_an_up_to_date_store_is_opened_without_importing_alembic(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    migrate(store)
    store.close()
    code = f"""if True:
        import sys
        from bursar.budget.migrate import migrate
        from bursar.budget.store import Store
        migrate(Store({store.url!r}))
        sys.exit("alembic" in sys.modules)
    """
    with Child("-c", code) as child:
        assert child.wait() == 0


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    migrate(store)
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("UPDATE bursar_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(
        LedgerVersionError, match=r"has version 9999, and this Bursar knows versions up to 0001"
    ) as caught:
        migrate(store)
    assert caught.value.next_step == "pip install --upgrade bursar"
    store.close()


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("not a database, and longer than a header of one would be; " * 20)
    before = path.read_bytes()
    with pytest.raises(LedgerUnavailable, match="is not a Bursar ledger"):
        migrate(a_store(tmp_path))
    assert path.read_bytes() == before


def scripts(folder: Path, *migrations: str) -> Path:
    """A room's own migrations: one file for each, of SQL or of what fails."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text((SCRIPTS / "env.py").read_text())
    for number, body in enumerate(migrations):
        down = f"'{number - 1}'" if number else None
        lines = f"from alembic import op\nrevision = '{number}'\ndown_revision = {down}\ndef upgrade():\n    {body}\n"
        (folder / "versions" / f"{number}.py").write_text(lines)
    return folder


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    broken = scripts(tmp_path / "room", "op.execute('CREATE TABLE half (n)')", "raise ZeroDivisionError")
    with pytest.raises(ZeroDivisionError):
        migrate(store, scripts=broken, head="1", version_table="room_version")
    assert tables(store.path) == set()
    migrate(store)
    assert tables(store.path) >= set(metadata.tables)
    store.close()


def test_another_room_keeps_its_tables_and_its_version_in_the_same_file(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    room = scripts(tmp_path / "room", "op.execute('CREATE TABLE theirs (n)')")
    for _ in range(2):
        migrate(store)
        migrate(store, scripts=room, head="0", version_table="room_version")
    assert tables(store.path) >= {"theirs", "room_version", "bursar_version", *metadata.tables}
    store.close()


def test_a_store_is_brought_from_any_version_to_the_newest(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    first = scripts(tmp_path / "first", "op.execute('CREATE TABLE theirs (n)')")
    both = scripts(
        tmp_path / "both", "op.execute('CREATE TABLE theirs (n)')", "op.execute('ALTER TABLE theirs ADD COLUMN m')"
    )
    migrate(store, scripts=first, head="0", version_table="room_version")
    migrate(store, scripts=both, head="1", version_table="room_version")
    with closing(sqlite3.connect(store.path)) as connection:
        assert [row[1] for row in connection.execute("PRAGMA table_info(theirs)")] == ["n", "m"]
    store.close()
