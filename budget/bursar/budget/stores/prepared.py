"""The statements of the hot path: written in SQLAlchemy Core, compiled once for each dialect, run on the driver.

SQLAlchemy's execution costs more CPU than the store's own work on a single row; see `benchmarks/ledger.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import Executable

__all__ = ["Cursor", "Driver", "Positional", "Prepared", "Record", "driver_of"]


class Record(Protocol):
    """A row, read by column name."""

    def __getitem__(self, key: str, /) -> Any:
        """The value of a column."""


class Cursor(Protocol):
    """What both drivers' cursors have in common; a row is a tuple in the order of the selected columns."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row."""

    def fetchall(self) -> Sequence[tuple[Any, ...]]:
        """All rows; a statement that returns some has to be read to its end."""


class Driver(Protocol):
    """What both drivers' connections have in common."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Cursor:
        """Run one statement."""


def driver_of(connection: Connection) -> Driver:
    """The driver's own connection under SQLAlchemy's."""
    return cast("Driver", connection.connection.dbapi_connection)


class Prepared:
    """One statement with named parameters, for every dialect."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def __call__(self, connection: Connection, values: Mapping[str, Any]) -> Cursor:
        """Run it in the connection's present transaction."""
        dialect = connection.dialect
        sql, literals = self._compiled.get(dialect.name) or self._compile(dialect)
        return driver_of(connection).execute(sql, {**literals, **values} if literals else values)

    def _compile(self, dialect: Dialect) -> tuple[str, dict[str, Any]]:
        # By name in both dialects; SQLite's default is by position.
        compiled = _compiled(self._statement, dialect, {"sqlite": "named", "postgresql": "pyformat"})
        literals = {name: value for name, value in compiled.params.items() if value is not None}
        made = self._compiled[dialect.name] = (str(compiled), literals)
        return made


class Positional:
    """One statement whose parameters come as a sequence, in the order of their names: cheaper than by name."""

    def __init__(self, statement: Executable, names: Sequence[str]) -> None:
        """`names` are those of all parameters, in the order in which the statement has them."""
        self._statement = statement
        self._names = tuple(names)
        self._compiled: dict[str, str] = {}

    def __call__(self, connection: Connection, values: Sequence[Any]) -> Cursor:
        """Run it in the connection's present transaction."""
        dialect = connection.dialect
        return driver_of(connection).execute(self._compiled.get(dialect.name) or self._compile(dialect), values)

    def _compile(self, dialect: Dialect) -> str:
        compiled = _compiled(self._statement, dialect, {"sqlite": "qmark", "postgresql": "format"})
        if tuple(compiled.positiontup or ()) != self._names:
            raise TypeError(f"the parameters are bound in another order: {compiled.positiontup}")
        made = self._compiled[dialect.name] = str(compiled)
        return made


def _compiled(statement: Executable, dialect: Dialect, paramstyles: Mapping[str, Any]) -> SQLCompiler:
    dialect_class: Any = type(dialect)  # whose constructor is not typed
    in_style = dialect_class(paramstyle=paramstyles[dialect.name])
    return cast("SQLCompiler", statement.compile(dialect=in_style))  # type: ignore[attr-defined]  # all have it
