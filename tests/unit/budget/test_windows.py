from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.windows import PERIODS, Period, from_us, to_us, window_at

# Half hours and quarters, midnights that are skipped or come twice, a day that never was.
ZONES = [
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "Pacific/Apia",
]
periods = st.sampled_from(PERIODS)
zones = st.sampled_from(ZONES)
times = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - made aware


@given(periods, zones, times)
def test_a_window_holds_the_time_that_it_is_asked_for(per: Period, zone: str, at: datetime) -> None:
    window = window_at(per, zone, at)
    assert window.starts_us <= to_us(at) < window.ends_us


@given(periods, zones, times, st.floats(0, 1, exclude_max=True))
def test_every_time_in_a_window_has_that_window(per: Period, zone: str, at: datetime, part: float) -> None:
    window = window_at(per, zone, at)
    if per != "total":
        inside = window.starts_us + int((window.ends_us - window.starts_us) * part)
        assert window_at(per, zone, from_us(inside)) == window


@given(st.sampled_from(["hour", "day", "week", "month"]), zones, times)
def test_one_window_begins_where_the_last_ended_and_has_another_name(per: Period, zone: str, at: datetime) -> None:
    window = window_at(per, zone, at)
    following = window_at(per, zone, from_us(window.ends_us))
    assert following.starts_us == window.ends_us
    assert following.name != window.name


@given(st.sampled_from(["day", "week", "month"]), zones, times)
def test_days_begin_when_the_date_changes_on_the_wall(per: Period, zone: str, at: datetime) -> None:
    starts = from_us(window_at(per, zone, at).starts_us)
    today, yesterday = (time.astimezone(ZoneInfo(zone)) for time in (starts, starts - timedelta(microseconds=1)))
    assert today.date() > yesterday.date()
    if per == "week":
        assert today.weekday() == 0
    if per == "month":
        assert today.day == 1


@given(zones, times, st.integers(-12, 12))
def test_a_window_does_not_depend_on_the_zone_in_which_the_time_is_written(zone: str, at: datetime, hours: int) -> None:
    elsewhere = at.astimezone(timezone(timedelta(hours=hours)))
    for per in PERIODS:
        assert window_at(per, zone, elsewhere) == window_at(per, zone, at)


@pytest.mark.parametrize(
    ("per", "zone", "at", "name", "starts", "ends"),
    [
        ("month", "UTC", "2026-11-20T12:00Z", "2026-11", "2026-11-01T00:00Z", "2026-12-01T00:00Z"),
        ("month", "Europe/Paris", "2026-11-30T22:59Z", "2026-11", "2026-10-31T23:00Z", "2026-11-30T23:00Z"),
        ("month", "Europe/Paris", "2026-11-30T23:00Z", "2026-12", "2026-11-30T23:00Z", "2026-12-31T23:00Z"),
        ("month", "Europe/Paris", "2026-03-31T21:59Z", "2026-03", "2026-02-28T23:00Z", "2026-03-31T22:00Z"),
        ("month", "America/Sao_Paulo", "2026-12-01T02:59Z", "2026-11", "2026-11-01T03:00Z", "2026-12-01T03:00Z"),
        ("month", "America/Sao_Paulo", "2028-02-29T12:00Z", "2028-02", "2028-02-01T03:00Z", "2028-03-01T03:00Z"),
        ("day", "Europe/Paris", "2026-03-29T12:00Z", "2026-03-29", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),
        ("day", "Europe/Paris", "2026-10-25T12:00Z", "2026-10-25", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),
        ("day", "America/Sao_Paulo", "2018-11-04T12:00Z", "2018-11-04", "2018-11-04T03:00Z", "2018-11-05T02:00Z"),
        ("day", "Pacific/Apia", "2011-12-30T09:59Z", "2011-12-29", "2011-12-29T10:00Z", "2011-12-30T10:00Z"),
        ("day", "Pacific/Apia", "2011-12-30T10:00Z", "2011-12-31", "2011-12-30T10:00Z", "2011-12-31T10:00Z"),
        ("week", "Europe/Paris", "2027-01-03T12:00Z", "2026-W53", "2026-12-27T23:00Z", "2027-01-03T23:00Z"),
        ("week", "Europe/Paris", "2026-10-25T12:00Z", "2026-W43", "2026-10-18T22:00Z", "2026-10-25T23:00Z"),
        ("hour", "Europe/Paris", "2026-10-25T00:30Z", "2026-10-25T02+02:00", "2026-10-25T00:00Z", "2026-10-25T01:00Z"),
        ("hour", "Europe/Paris", "2026-10-25T01:30Z", "2026-10-25T02+01:00", "2026-10-25T01:00Z", "2026-10-25T02:00Z"),
        (
            "hour",
            "Asia/Kathmandu",
            "2026-11-20T12:00Z",
            "2026-11-20T17+05:45",
            "2026-11-20T11:15Z",
            "2026-11-20T12:15Z",
        ),
    ],
)
def test_windows_follow_the_wall_clock_of_their_zone(
    per: Period, zone: str, at: str, name: str, starts: str, ends: str
) -> None:
    window = window_at(per, zone, datetime.fromisoformat(at))
    assert window.name == name
    assert from_us(window.starts_us) == datetime.fromisoformat(starts)
    assert from_us(window.ends_us) == datetime.fromisoformat(ends)


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones.map(ZoneInfo)))  # noqa: DTZ001 - made aware
def test_a_time_comes_back_from_microseconds_unchanged(at: datetime) -> None:
    assert from_us(to_us(at)) == at.astimezone(UTC)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        to_us(datetime(2026, 11, 20))  # noqa: DTZ001 - what is refused
