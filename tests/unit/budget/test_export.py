from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet  # type: ignore[import-untyped]  # it comes without types

from bursar.budget.errors import UsageError
from bursar.budget.reports.export import Kind, write_csv, write_parquet

COLUMNS: Mapping[str, Kind] = {"name": "text", "calls": "integer", "cost": "decimal", "at": "time"}
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ROWS: list[dict[str, Any]] = [
    {"name": 'a "quoted", name\nof two lines', "calls": 3, "cost": Decimal("0.000000001"), "at": NOON},
    {"name": None, "calls": 0, "cost": Decimal("1E+3"), "at": None},
]
Writer = Callable[[Path, Mapping[str, Kind], Iterator[Mapping[str, Any]]], int]
WRITERS = pytest.mark.parametrize("write", [write_csv, write_parquet])


def test_a_csv_file_writes_decimals_with_a_point_and_times_in_utc(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    assert write_csv(file, COLUMNS, iter(ROWS)) == 2
    with file.open(newline="", encoding="utf-8") as read:
        header, first, second = csv.reader(read)
    assert header == [*COLUMNS]
    assert first == [ROWS[0]["name"], "3", "0.000000001", "2026-11-20T12:00:00Z"]
    assert second == ["", "0", "1000.0", ""]


def test_a_parquet_file_has_exact_values(tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    assert write_parquet(file, COLUMNS, iter(ROWS)) == 2
    assert parquet.read_table(file).to_pylist() == ROWS


def test_a_parquet_file_is_written_batch_by_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bursar.budget.reports.export.ROWS_AT_ONCE", 10)
    file = tmp_path / "out.parquet"
    assert write_parquet(file, {"calls": "integer"}, ({"calls": number} for number in range(25))) == 25
    assert parquet.ParquetFile(file).num_row_groups == 3
    assert parquet.read_table(file)["calls"].to_pylist() == [*range(25)]


@WRITERS
def test_a_table_without_rows_has_its_columns(tmp_path: Path, write: Writer) -> None:
    assert write(tmp_path / "out", COLUMNS, iter([])) == 0
    assert (tmp_path / "out").stat().st_size > 0


@WRITERS
def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, write: Writer) -> None:
    def rows() -> Iterator[Mapping[str, Any]]:
        yield from ROWS
        raise RuntimeError("the store went away")

    (tmp_path / "out").write_text("the last one")
    with pytest.raises(RuntimeError, match="went away"):
        write(tmp_path / "out", COLUMNS, rows())
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("out", "the last one")]


@WRITERS
def test_a_file_that_cannot_be_written_says_so(tmp_path: Path, write: Writer) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*nowhere/out: No such file or directory"):
        write(tmp_path / "nowhere" / "out", COLUMNS, iter(ROWS))


def test_parquet_without_pyarrow_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"needs pyarrow -> pip install 'bursar\[reports\]'"):
        write_parquet(tmp_path / "out", COLUMNS, iter(ROWS))
