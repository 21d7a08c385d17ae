from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from bursar.budget import Amounts
from bursar.budget.errors import UsageError
from bursar.budget.money import NANO
from bursar.budget.reports.chart import Burn, _draw_days, write_png
from bursar.budget.reports.spend import Part, SpendLine, Waste
from bursar.budget.reports.stack import OTHERS, Stack, stacked
from bursar.budget.whatif.forecast import Forecast

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOTHING = Waste(retries=Part(0, 0), aborted=Part(0, 0), unknown=Part(0, 0), overage=Part(0, 0), replayed=Part(0, 0))
FORECAST = Forecast(
    expected=30 * NANO,
    low=20 * NANO,
    high=50 * NANO,
    runs_out_at=NOON + timedelta(days=4),
    runs_out_earliest=NOON + timedelta(days=2),
    runs_out_latest=None,
    stretches=12,
)


def line(day: str, group: str, nanousd: int) -> SpendLine:
    return SpendLine(key=(day, group), posted=Amounts(nanousd), waste=NOTHING)


def test_days_without_spending_are_shown_between_those_with() -> None:
    found = stacked([line("2026-02-27", "a", 1), line("2026-03-02", "a", 2), line("2026-03-02", "b", 5)])
    assert found.days == ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]
    assert found.groups == {"b": [0, 0, 0, 5], "a": [1, 0, 0, 2]}
    assert found.totals == [1, 0, 0, 7]


def test_the_dearest_groups_are_told_apart_and_the_rest_are_one() -> None:
    found = stacked(line("2026-11-20", f"group {number}", 10**number) for number in range(8))
    assert [*found.groups] == [*(f"group {number}" for number in (7, 6, 5, 4, 3)), OTHERS]
    assert found.groups[OTHERS] == [111]


def test_nothing_spent_is_a_stack_without_days() -> None:
    assert stacked([]) == Stack(days=[], groups={})
    assert stacked([]).totals == []


@pytest.mark.parametrize("ends_at", [None, NOON + timedelta(days=10)])
def test_a_picture_is_a_png_whatever_is_known(tmp_path: Path, ends_at: datetime | None) -> None:
    file = tmp_path / "a.png"
    stack = Stack(days=["2026-11-19", "2026-11-20"], groups={r"$\frac{$": [NANO, 2 * NANO]})
    spent = [(NOON - timedelta(days=1), 0), (NOON, 3 * NANO)]
    burn = Burn(name=r"$\acme$ per month", limit=25 * NANO, spent=spent, ends_at=ends_at, forecast=FORECAST)
    write_png(file, title=r"$\acme$", stack=stack, burn=burn)
    assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_amounts_are_written_out_and_what_costs_nothing_is_left_out() -> None:
    stack = Stack(days=["2026-11-20"], groups={"small": [170_000], "-": [0]})
    axes = Figure().subplots()
    _draw_days(axes, stack)
    assert axes.get_legend_handles_labels()[1] == ["small"]
    assert axes.yaxis.get_major_formatter()(0.00002, None) == "$0.00002"
    begins, ends = axes.get_xlim()
    assert ends - begins > 10, "of bars: one day is no wall"


def test_a_picture_without_matplotlib_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"needs matplotlib -> pip install 'bursar\[reports\]'"):
        write_png(tmp_path / "a.png", title="acme", stack=Stack(days=[], groups={}), burn=None)


def test_reports_load_neither_matplotlib_nor_pyarrow_before_they_need_them() -> None:
    code = (
        "import sys; from bursar.budget.reports import chart, export, focus, report;"
        "sys.exit(bool({'matplotlib', 'pyarrow', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
