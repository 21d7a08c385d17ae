"""Working time counts in working hours alone, on whatever clock the people live."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.runtime.escalations.hours import DAYS, Hours

PARIS = ZoneInfo("Europe/Paris")
WEEK = ("mon", "tue", "wed", "thu", "fri")


def hours(zone: str = "Europe/Paris", days: tuple[str, ...] = WEEK, begin: int = 9 * 60, end: int = 17 * 60) -> Hours:
    return Hours(zone=zone, days=days, begin_minute=begin, end_minute=end)


@pytest.mark.parametrize(
    ("start", "span_h", "expected"),
    [
        ("2026-03-02 10:00", 4, "2026-03-02 14:00"),  # within a day
        ("2026-03-02 15:00", 4, "2026-03-03 11:00"),  # over a night
        ("2026-03-06 16:00", 2, "2026-03-09 10:00"),  # over a weekend
        ("2026-03-07 12:00", 1, "2026-03-09 10:00"),  # begun on a Saturday
        ("2026-03-02 03:00", 8, "2026-03-02 17:00"),  # a whole day ends with the day
        ("2026-03-27 16:00", 2, "2026-03-30 10:00"),  # the night in which clocks are set forward
        ("2026-10-23 16:00", 2, "2026-10-26 10:00"),  # and back
    ],
)
def test_time_counts_in_working_hours_of_the_zone(start: str, span_h: int, expected: str) -> None:
    begin = datetime.fromisoformat(start).replace(tzinfo=PARIS)
    assert hours().after(begin, timedelta(hours=span_h)) == datetime.fromisoformat(expected).replace(tzinfo=PARIS)


def test_an_hour_is_an_hour_also_in_the_night_in_which_clocks_are_set() -> None:
    always = hours(days=DAYS, begin=0, end=24 * 60)
    for night in (datetime(2026, 3, 29, 0, 30, tzinfo=PARIS), datetime(2026, 10, 25, 0, 30, tzinfo=PARIS)):
        assert always.after(night, timedelta(hours=5)) - night.astimezone(UTC) == timedelta(hours=5)


@given(
    st.integers(0, 366 * 86_400),
    st.lists(st.integers(1, 2000), min_size=1, max_size=5),
    st.sampled_from(["Europe/Paris", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"]),
)
def test_time_adds_up(second: int, minutes: list[int], zone: str) -> None:
    """Two spans one after the other end when their sum does, and never before they began."""
    at = begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    of = hours(zone, begin=8 * 60 + 30, end=16 * 60)
    steps = [at]
    for some in minutes:
        at = of.after(at, timedelta(minutes=some))
        steps.append(at)
    assert at == of.after(begin, timedelta(minutes=sum(minutes)))
    assert all(later > earlier for earlier, later in pairwise(steps))
