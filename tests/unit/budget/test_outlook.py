"""From what was charged to a budget to when it runs out; the method itself is tested in `test_forecast`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from bursar.budget import Amounts, Store
from bursar.budget.budgets import BudgetLine
from bursar.budget.testing import NOON
from bursar.budget.whatif.forecast import Forecast
from tests.support.spending import MIDNIGHT, Past

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def past(store_url: str) -> Iterator[Past]:
    store = Store(store_url)
    yield Past(store)
    store.close()


def line(path: str, per: str, *, spent: int, resets_at: Any, **limit: int) -> BudgetLine:
    limits = dict.fromkeys(("nanousd", "tokens", "steps", "tool_calls")) | limit
    return BudgetLine(
        path=path,
        kind="tenant",
        per=per,
        zone="UTC",
        window="now",
        resets_at=resets_at,
        limit=limits,
        posted=Amounts(spent),
        held=Amounts(),
        source="command",
    )


def expected(past: Past, *budgets: BudgetLine) -> list[Forecast]:
    return [one.forecast for one in past.reports.forecast(budgets, NOON)]


def test_the_pace_of_a_day_is_that_of_the_last_24_hours_also_before_midnight(past: Past) -> None:
    yesterday = past.budget("acme", window="2026-11-19", starts=MIDNIGHT - DAY, ends=MIDNIGHT, per="day")
    today = past.window(yesterday, window="2026-11-20", starts=MIDNIGHT, ends=MIDNIGHT + DAY)
    for hours in range(24):
        at = NOON - (hours + 0.5) * HOUR
        past.attempt(at=at, nanousd=10, accounts=json.dumps([today if at >= MIDNIGHT else yesterday, 99]))
        past.attempt(at=at, nanousd=1000, accounts="[99]")
    [found] = expected(past, line("acme", "day", spent=120, resets_at=MIDNIGHT + DAY, nanousd=180))
    assert (found.low, found.expected, found.high) == (240, 240, 240)
    assert found.runs_out_at == NOON + 6 * HOUR
    assert found.stretches == 24


def test_a_pace_begins_with_the_first_charge(past: Past) -> None:
    account = past.budget("acme", window="2026-11", starts=NOON - 19 * DAY, ends=NOON + 10 * DAY)
    for days in range(5):
        past.attempt(at=NOON - (days + 0.5) * DAY, nanousd=10, accounts=f"[{account}]")
    [found] = expected(past, line("acme", "month", spent=50, resets_at=NOON + 10 * DAY, nanousd=1000))
    assert found.expected == 150


def test_a_rolling_window_knows_what_leaves_it(past: Past) -> None:
    bucket = 24 * HOUR / 60
    first = past.budget(
        "acme", window="0", starts=NOON - DAY, ends=NOON - DAY + bucket, per="rolling-24h", posted_nanousd=10
    )
    for place in range(1, 60):
        starts = NOON - DAY + place * bucket
        past.window(first, window=str(place), starts=starts, ends=starts + bucket, posted_nanousd=10)
    [steady] = expected(past, line("acme", "rolling-24h", spent=600, resets_at=None, nanousd=611))
    assert (steady.expected, steady.runs_out_at) == (600, None)
    [tight] = expected(past, line("acme", "rolling-24h", spent=600, resets_at=None, nanousd=605))
    assert tight.runs_out_at == NOON + bucket / 2


def test_each_limit_of_each_budget_has_its_own_outlook(past: Past) -> None:
    past.budget("acme", window="2026-11", starts=NOON - 19 * DAY, ends=NOON + 10 * DAY)
    past.budget("rival", window="", starts=NOON - 19 * DAY, ends=NOON + 10 * DAY, per="total")
    month = line("acme", "month", spent=0, resets_at=NOON + 10 * DAY, nanousd=1000, steps=5)
    total = line("rival", "total", spent=0, resets_at=None, tokens=7)
    unlimited = line("rival", "total", spent=0, resets_at=None)
    found = past.reports.forecast([month, total, unlimited], NOON)
    assert [(one.budget.path, one.dimension) for one in found] == [
        ("acme", "nanousd"),
        ("acme", "steps"),
        ("rival", "tokens"),
    ]
    assert all(one.forecast.stretches == 0 and one.forecast.runs_out_at is None for one in found)
