"""The statements of the hot path: written in SQLAlchemy Core, compiled once, run on the driver.

SQLAlchemy's execution costs more CPU than SQLite's own work on a single row; see `benchmarks/ledger.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Protocol, cast

from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.expression import Executable

__all__ = ["Prepared", "Record", "driver_of"]


class Record(Protocol):
    """A row, read by column name."""

    def __getitem__(self, key: str, /) -> Any:
        """The value of a column."""


def driver_of(connection: Connection) -> sqlite3.Connection:
    """The driver's own connection under SQLAlchemy's."""
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)


class Prepared:
    """One statement with named parameters; rows come back as `Record`."""

    def __init__(self, statement: Executable) -> None:
        compiled = statement.compile(  # type: ignore[attr-defined]  # every Executable has it; the type does not say so
            dialect=sqlite.dialect(paramstyle="named")
        )
        self._sql = str(compiled)
        self._literals = {name: value for name, value in compiled.params.items() if value is not None}

    def __call__(self, connection: Connection, values: Mapping[str, Any]) -> sqlite3.Cursor:
        """Run it in the connection's present transaction."""
        return driver_of(connection).execute(self._sql, {**self._literals, **values})
