from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.errors import UsageError
from bursar.runtime.cli.chosen import Chosen
from bursar.runtime.cli.moments import distance, moment, span, zone_of

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("30d", NOON - timedelta(days=30)),
        ("12h", NOON - timedelta(hours=12)),
        ("5m", NOON - timedelta(minutes=5)),
        ("2w", NOON - timedelta(weeks=2)),
        ("2026-11-20", datetime(2026, 11, 19, 23, tzinfo=UTC)),
        ("2026-07-20T14:30", datetime(2026, 7, 20, 12, 30, tzinfo=UTC)),
        ("2026-11-20T14:30Z", datetime(2026, 11, 20, 14, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_before_now_or_on_the_clock_of_its_zone(text: str, means: datetime) -> None:
    assert moment(text, "Europe/Paris", NOON) == means


@given(st.text(max_size=12) | st.from_regex(r"[0-9]{1,6}[mhdw-]", fullmatch=True))
def test_any_text_is_a_time_or_a_mistake(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert moment(text, "UTC", NOON).tzinfo is not None


def test_a_mistake_says_how_times_are_written() -> None:
    with pytest.raises(UsageError, match="'soon' is no time -> 30d, 12h, 2026-11-20 or 2026-11-20T14:30"):
        moment("soon", "UTC", NOON)


@pytest.mark.parametrize("name", ["", "Paris", "../etc/passwd", "europe/paris"])
def test_a_zone_has_its_iana_name(name: str) -> None:
    with pytest.raises(UsageError, match="is no IANA time zone"):
        zone_of(name)


@pytest.mark.parametrize(
    ("chosen", "path"),
    [
        (Chosen(), None),
        (Chosen(organisation="globex"), "org:globex"),
        (Chosen(tenant="acme"), "acme"),
        (Chosen(organisation="globex", tenant="acme"), "acme"),
        (Chosen(tenant="acme", team="red"), "acme/team:red"),
        (Chosen(tenant="acme", user="dana"), "acme/user:dana"),
        (Chosen(tenant="acme", team="red", user="dana"), "acme/team:red/user:dana"),
        (Chosen(tenant="acme", agent="support"), "acme/support"),
        (Chosen(tenant="acme", agent="support", node="draft"), "acme/support/node:draft"),
        (Chosen(tenant="acme", agent="support", team="red"), None),
        (Chosen(tenant="acme", node="draft"), None),
        (Chosen(tenant="acme", tier="small"), None),
        (Chosen(agent="support"), None),
    ],
)
def test_a_budget_is_drawn_where_it_covers_exactly_what_is_chosen(chosen: Chosen, path: str | None) -> None:
    assert chosen.budget_path == path


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "in 0 s"),
        (89.9, "in 89 s"),
        (90, "in 1 min"),
        (5_399, "in 89 min"),
        (3 * 3600 + 3599, "in 3 h"),
        (172_799, "in 47 h"),
        (172_800, "in 2 d"),
        (-1, "1 s ago"),
        (-7_200, "2 h ago"),
    ],
)
def test_a_distance_is_rounded_down_so_that_no_deadline_seems_further_than_it_is(seconds: float, expected: str) -> None:
    assert distance(NOON + timedelta(seconds=seconds), NOON) == expected


@pytest.mark.parametrize(("text", "expected"), [("15m", 900), ("2h", 7_200), ("1d", 86_400)])
def test_a_length_of_time_is_typed_in_minutes_hours_or_days(text: str, expected: int) -> None:
    assert span(text).total_seconds() == expected


@pytest.mark.parametrize("text", ["", "15", "soon", "-2h", "1.5h"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        span(text)
