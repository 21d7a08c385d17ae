from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bursar.budget import Amounts, Store
from bursar.budget.reports.report import GROUPS, Selection
from bursar.budget.reports.spend import Group, Part
from bursar.budget.testing import NOON
from tests.support.spending import MIDNIGHT, Past, a_past

DAY = timedelta(days=1)


@pytest.fixture
def past(store_url: str) -> Iterator[Past]:
    """A past on each kind of store in turn."""
    store = Store(store_url)
    yield Past(store)
    store.close()


def spent(past: Past, *by: Group, **how: Any) -> dict[str, int]:
    """Nano-USD by name."""
    return {line.name: line.posted.nanousd for line in past.reports.spend(*by, selection=Selection(**how))}


# --- Sums -------------------------------------------------------------------------------------------------------------


def test_spending_is_summed_by_any_combination_with_the_dearest_first(past: Past) -> None:
    past.attempt(nanousd=5, tier="small")
    past.attempt(nanousd=7, tier="frontier", team="red")
    past.attempt(nanousd=2, tier="frontier", team="red")
    past.attempt(nanousd=1, tier="frontier", team="blue", tenant="rival")
    assert [*spent(past, "tier").items()] == [("frontier", 10), ("small", 5)]
    assert [*spent(past, "tenant", "team").items()] == [("acme red", 9), ("acme -", 5), ("rival blue", 1)]
    assert spent(past) == {"": 15}
    assert spent(past, "tier", where={"tenant": "acme", "team": "red"}) == {"frontier": 9}
    assert spent(past, "run_id", where={"tenant": "nobody"}) == {}


def test_only_what_was_posted_counts(past: Past) -> None:
    past.attempt(state="released", posted_nanousd=0, posted_steps=0, posted_tokens=0)
    past.attempt(state="dispatched", posted_nanousd=0, posted_steps=0, posted_tokens=0)
    past.attempt(kind="tool", model="find_order", posted_tool_calls=1, posted_steps=0, posted_tokens=0, nanousd=0)
    past.attempt(nanousd=3)
    [line] = past.reports.spend()
    assert line.posted == Amounts(3, 50, 1, 1)


def test_nothing_posted_is_no_line(past: Past) -> None:
    for by in ((), ("day",), ("tenant",), ("day", "model")):
        assert spent(past, *by) == {}


def test_a_call_counts_when_it_was_reserved(past: Past) -> None:
    for hours in range(4):
        past.attempt(at=NOON + timedelta(hours=hours), nanousd=10**hours)
    assert spent(past, since=NOON + timedelta(hours=1), until=NOON + timedelta(hours=3)) == {"": 110}


def test_days_begin_at_midnight_of_their_zone_also_when_the_clocks_change(past: Past) -> None:
    # In Paris, 25 October 2026 begins at 22:00 UTC the day before and has 25 hours.
    ten_pm = datetime(2026, 10, 24, 22, tzinfo=UTC)
    past.attempt(at=ten_pm - timedelta(microseconds=1), nanousd=1)
    past.attempt(at=ten_pm, nanousd=10)
    past.attempt(at=ten_pm + timedelta(hours=25) - timedelta(microseconds=1), nanousd=100)
    past.attempt(at=ten_pm + timedelta(hours=25), nanousd=1000)
    days = spent(past, "day", zone="Europe/Paris")
    assert days == {"2026-10-24": 1, "2026-10-25": 110, "2026-10-26": 1000}
    assert spent(past, "model", "day", zone="Europe/Paris", since=ten_pm) == {
        "small-1 2026-10-25": 110,
        "small-1 2026-10-26": 1000,
    }


# --- Waste ------------------------------------------------------------------------------------------------------------


def test_waste_says_what_was_paid_for_nothing(past: Past) -> None:
    call = past.attempt(nanousd=100, outcome="unknown", usage=None, reply=None)
    past.attempt(call=call, attempt=1, nanousd=20)
    past.attempt(nanousd=30, reply=None)
    past.attempt(nanousd=50, held=45)
    [line] = past.reports.spend()
    assert line.posted.nanousd == 200
    assert line.waste.unknown == Part(1, 100)
    assert line.waste.retries == Part(1, 20)
    assert line.waste.aborted == Part(1, 30)
    assert line.waste.overage == Part(1, 5)


def test_a_retry_of_what_was_not_billed_is_no_waste(past: Past) -> None:
    call = past.attempt(state="released", nanousd=0)
    past.attempt(call=call, attempt=1, nanousd=20)
    past.attempt(call=call, attempt=2, nanousd=20, run_id="run_2")
    [line] = past.reports.spend()
    assert line.waste.retries == Part(0, 0)


def test_a_tool_that_returns_nothing_is_not_aborted(past: Past) -> None:
    past.attempt(kind="tool", reply=None, nanousd=4)
    [line] = past.reports.spend()
    assert line.waste.aborted == Part(0, 0)


# --- What retention has summed up -------------------------------------------------------------------------------------


def test_what_retention_has_summed_up_is_reported_with_the_rest(past: Past) -> None:
    past.attempt(nanousd=1)
    past.summed_up(MIDNIGHT - 40 * DAY, calls=3, nanousd=10, retries=1, retries_nanousd=4, aborted=2, aborted_nanousd=6)
    past.summed_up(MIDNIGHT - 40 * DAY, calls=2, nanousd=100, outcome="unknown", team="red")
    past.summed_up(MIDNIGHT - 40 * DAY, calls=2, nanousd=0, state="released")
    [line] = past.reports.spend()
    assert line.posted == Amounts(111, 300, 6, 0)
    assert line.waste.unknown == Part(2, 100)
    assert line.waste.retries == Part(1, 4)
    assert line.waste.aborted == Part(2, 6)
    assert spent(past, "team") == {"red": 100, "-": 11}
    assert spent(past, "run_id") == {"-": 110, "run_1": 1}
    assert spent(past, "day") == {"2026-10-11": 110, "2026-11-20": 1}
    assert spent(past, since=MIDNIGHT - 39 * DAY) == {"": 1}
    assert spent(past, where={"run_id": "run_1"}) == {"": 1}


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "UTC", "Asia/Tokyo"])
def test_a_day_that_was_summed_up_keeps_its_name_in_every_zone(past: Past, zone: str) -> None:
    past.summed_up(MIDNIGHT, calls=3, nanousd=10)
    assert spent(past, "day", zone=zone) == {"2026-11-20": 10}


# --- For any history --------------------------------------------------------------------------------------------------


@st.composite
def attempts(draw: st.DrawFn) -> dict[str, Any]:
    values: dict[str, Any] = {
        "at": NOON + timedelta(minutes=draw(st.integers(-5000, 5000))),
        "nanousd": draw(st.integers(0, 10**13)),
        "state": draw(st.sampled_from(["settled", "settled", "released", "reserved"])),
        "outcome": draw(st.sampled_from(["exact", "estimated", "unknown"])),
        "reply": draw(st.sampled_from(["hello", None])),
        "run_id": f"run_{draw(st.integers(1, 3))}",
        "attempt": draw(st.integers(0, 2)),
    }
    for name in ("organisation", "team", "user", "tier", "model"):
        values[name] = draw(st.sampled_from([None, "a", "b"]))
    for name in ("tenant", "agent", "node"):
        values[name] = draw(st.sampled_from(["a", "b"]))
    return values


@settings(max_examples=25)
@given(history=st.lists(attempts(), max_size=12), by=st.lists(st.sampled_from(GROUPS), unique=True, max_size=4))
def test_every_grouping_adds_up_to_the_same_to_the_nano_usd(history: list[dict[str, Any]], by: list[Group]) -> None:
    with tempfile.TemporaryDirectory() as folder, a_past(Path(folder)) as past:
        for values in history:
            past.attempt(**values)
        truth: Counter[str] = Counter()
        for values in history:
            if values["state"] == "settled":
                truth[values["run_id"]] += values["nanousd"]
        assert sum(spent(past, *by).values()) == sum(truth.values())
        nodes: Counter[str] = Counter()
        for line in past.reports.spend("run_id", "node"):
            nodes[line.key[0]] += line.posted.nanousd
        assert nodes == truth
        lines = [*past.reports.spend(*by)]
        assert len({line.key for line in lines}) == len(lines)
        totals = [*past.reports.spend()]
        for part in ("retries", "aborted", "unknown", "overage", "replayed"):
            found = sum((getattr(line.waste, part) for line in lines), Part(0, 0))
            assert found == sum((getattr(line.waste, part) for line in totals), Part(0, 0))
