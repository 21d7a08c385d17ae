"""Rows to a file, one after the other, so that a table may be larger than memory."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from bursar.budget.errors import UsageError

__all__ = ["Kind", "write_csv", "write_parquet"]

Kind = Literal[
    "text",
    "integer",
    "decimal",  # in CSV with a point, also where it is whole
    "time",  # in CSV as 2026-11-20T12:00:00Z
]

ROWS_AT_ONCE = 10_000
"""How many rows a Parquet file keeps together."""

DECIMALS = 15
"""As many as a token count times a price of nine decimals per million tokens has."""


def write_csv(file: Path, columns: Mapping[str, Kind], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a CSV file with a header, and return the number of rows; raises UsageError where it cannot be written."""
    with written_whole(file) as part, part.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(columns)
        count = 0
        for row in rows:
            writer.writerow(_text(row[name]) for name in columns)
            count += 1
    return count


def write_parquet(file: Path, columns: Mapping[str, Kind], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a Parquet file, and return the number of rows.

    Raises UsageError where it cannot be written or pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]  # it comes without types
        from pyarrow import parquet
    except ImportError:
        raise UsageError("Parquet needs pyarrow", next_step="pip install 'bursar[reports]'") from None
    types = {
        "text": pa.string(),
        "integer": pa.int64(),
        "decimal": pa.decimal128(38, DECIMALS),
        "time": pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    count = 0
    with written_whole(file) as part, part.open("wb") as out, parquet.ParquetWriter(out, schema) as writer:
        for batch in _batches(rows):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """A file beside it that takes its place in the end, so that nobody ever reads half a table.

    Raises UsageError where it cannot be written. Only a plain file is replaced, never a folder or a device.
    """
    if file.exists() and not file.is_file():
        raise UsageError(f"cannot write {file}: it is no plain file", next_step="name a file, such as spending.csv")
    part = file.with_name(f"{file.name}.part")
    try:
        yield part
        part.replace(file)
    except OSError as error:
        raise UsageError(
            f"cannot write {file}: {error.strerror}", next_step="name a file that can be written"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    left = iter(rows)
    while batch := list(islice(left, ROWS_AT_ONCE)):
        yield batch


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text if "." in text else f"{text}.0"
    return str(value)
