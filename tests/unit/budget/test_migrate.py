"""How a store gets its tables, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import inspect as python
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from bursar.budget.errors import LedgerUnavailable, LedgerVersionError
from bursar.budget.schema import metadata
from bursar.budget.stores.migrate import SCRIPTS, migrate
from bursar.budget.stores.store import Store
from tests.support.postgres import Postgres
from tests.support.processes import Child


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Makes URLs of stores without a table, on each kind of store in turn."""
    with ExitStack() as databases:

        def url() -> str:
            if request.param == "sqlite":
                return f"sqlite:///{tmp_path}/{len(list(tmp_path.iterdir()))}.db"
            server: Postgres = request.getfixturevalue("postgres")
            return server.url(databases.enter_context(server.database()))

        yield url


@pytest.fixture
def new_store(new_url: Callable[[], str]) -> Iterator[Callable[[], Store]]:
    """Makes stores without a table."""
    with ExitStack() as stores:
        yield lambda: stores.enter_context(closing(Store(new_url())))


@pytest.fixture
def store(new_store: Callable[[], Store]) -> Store:
    """A store without a table."""
    return new_store()


def tables(store: Store) -> set[str]:
    with store.read() as connection:
        return set(inspect(connection).get_table_names())


def execute(store: Store, statement: str) -> None:
    with store.write() as connection:
        connection.execute(text(statement))


INDEXES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index'",
    "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
}


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
        indexes = {name: sql for name, sql in connection.execute(text(INDEXES[store.dialect])) if "version" not in name}
        return indexes | {
            name: [found.get_pk_constraint(name), *(sorted(map(str, cast("list[Any]", look(name)))) for look in ask)]
            for name in metadata.tables
        }


def test_the_migrations_make_the_tables_of_the_schema_and_no_others(store: Store) -> None:
    migrate(store)
    with store.read() as connection:
        options: dict[str, Any] = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts={"version_table": "bursar_version", **options})
        assert compare_metadata(context, metadata) == []


def test_the_migrations_keep_every_constraint_and_every_condition_of_an_index(new_store: Callable[[], Store]) -> None:
    migrated, made = new_store(), new_store()
    migrate(migrated)
    with made.write() as connection:
        metadata.create_all(connection)
    assert shape(migrated) == shape(made)


def test_the_newest_migration_is_the_one_that_the_code_knows() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("path_separator", "os")
    known = python.signature(migrate).parameters["head"].default
    assert ScriptDirectory.from_config(config).get_heads() == [known]


def test_migrating_again_writes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(store)
    monkeypatch.setattr(store, "write", None)
    migrate(store)


def test_processes_that_migrate_at_the_same_time_wait_for_each_other(store: Store) -> None:
    code = f"""if True:
        import alembic.command
        from bursar.budget.stores.migrate import migrate
        from bursar.budget.stores.store import Store
        migrate(Store({store.url!r}))
    """
    with ExitStack() as children:
        started = [children.enter_context(Child("-c", code)) for _ in range(3)]
        assert [child.wait() for child in started] == [0, 0, 0]
    assert tables(store) == {"bursar_version", *metadata.tables}


def test_an_up_to_date_store_is_opened_without_importing_alembic(store: Store) -> None:
    migrate(store)
    code = f"""if True:
        import sys
        from bursar.budget.stores.migrate import migrate
        from bursar.budget.stores.store import Store
        migrate(Store({store.url!r}))
        sys.exit("alembic" in sys.modules)
    """
    with Child("-c", code) as child:
        assert child.wait() == 0


def test_a_store_of_a_newer_version_is_refused_and_left_alone(store: Store) -> None:
    migrate(store)
    execute(store, "UPDATE bursar_version SET version_num = '9999'")
    with pytest.raises(
        LedgerVersionError, match=r"has version 9999, and this Bursar knows versions up to 0001"
    ) as caught:
        migrate(store)
    assert caught.value.next_step == "pip install --upgrade bursar"


def test_tables_of_somebody_else_are_refused_and_left_alone(store: Store) -> None:
    execute(store, "CREATE TABLE account (theirs INTEGER)")
    with pytest.raises(LedgerVersionError, match="holds tables that are not Bursar's"):
        migrate(store)
    assert tables(store) == {"account"}


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("not a database, and longer than a header of one would be; " * 20)
    before = path.read_bytes()
    with pytest.raises(LedgerUnavailable, match="is not a Bursar ledger"):
        migrate(Store(f"sqlite:///{path}"))
    assert path.read_bytes() == before


def test_a_user_who_owns_a_schema_and_nothing_else_can_migrate(postgres: Postgres) -> None:
    with postgres.database() as name:
        user = f"owner_of_{name}"
        postgres.execute("CREATE ROLE {} LOGIN", user)
        postgres.execute("CREATE SCHEMA bursar AUTHORIZATION {}", user, database=name)
        with closing(Store(postgres.url(name, user=user, options="-csearch_path=bursar"))) as store:
            migrate(store)
            migrate(store)
        found = postgres.execute(
            f"SELECT DISTINCT schemaname FROM pg_tables WHERE tableowner = '{user}'", database=name
        )
    assert found == [("bursar",)]


def scripts(folder: Path, *migrations: str) -> Path:
    """A room's own migrations: one file for each, of SQL or of what fails."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text((SCRIPTS / "env.py").read_text())
    for number, body in enumerate(migrations):
        down = f"'{number - 1}'" if number else None
        lines = f"from alembic import op\nrevision = '{number}'\ndown_revision = {down}\ndef upgrade():\n    {body}\n"
        (folder / "versions" / f"{number}.py").write_text(lines)
    return folder


def test_a_migration_that_fails_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    broken = scripts(tmp_path / "room", "op.execute('CREATE TABLE half (n INTEGER)')", "raise ZeroDivisionError")
    with pytest.raises(ZeroDivisionError):
        migrate(store, scripts=broken, head="1", version_table="room_version")
    assert tables(store) == set()
    migrate(store)
    assert tables(store) >= set(metadata.tables)


def test_another_room_keeps_its_tables_and_its_version_in_the_same_store(store: Store, tmp_path: Path) -> None:
    room = scripts(tmp_path / "room", "op.execute('CREATE TABLE theirs (n INTEGER)')")
    for _ in range(2):
        migrate(store)
        migrate(store, scripts=room, head="0", version_table="room_version")
    assert tables(store) >= {"theirs", "room_version", "bursar_version", *metadata.tables}


def test_a_store_is_brought_from_any_version_to_the_newest(store: Store, tmp_path: Path) -> None:
    steps = (
        "op.execute('CREATE TABLE theirs (n INTEGER)')",
        "op.execute('ALTER TABLE theirs ADD COLUMN m INTEGER')",
    )
    migrate(store, scripts=scripts(tmp_path / "first", steps[0]), head="0", version_table="room_version")
    migrate(store, scripts=scripts(tmp_path / "both", *steps), head="1", version_table="room_version")
    with store.read() as connection:
        assert [column["name"] for column in inspect(connection).get_columns("theirs")] == ["n", "m"]
