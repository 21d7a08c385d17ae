"""Windows of time in a tenant's time zone: a window is part of an account's key, so nothing ever resets it.

A call counts in the window in which it was reserved. A rolling window is made of buckets, each a sixtieth of it: what
was spent counts until the bucket in which it was reserved has wholly left the window, so that no stretch of that
length, wherever it begins, ever holds more than the limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from bursar.budget.errors import UsageError
from bursar.budget.schema import FOREVER_US

__all__ = [
    "PERIODS",
    "ROLLING",
    "Period",
    "Window",
    "check_period",
    "from_us",
    "rolling_us",
    "to_us",
    "utc_now",
    "window_at",
]

Period = str
"""`hour`, `day`, `week`, `month`, `total`, or rolling: `rolling-30m`, `rolling-24h`, `rolling-7d`."""

PERIODS: tuple[Period, ...] = ("hour", "day", "week", "month", "total")
"""The calendar periods."""

ROLLING = re.compile(r"rolling-([1-9]\d{0,3})([mhd])")

BUCKETS = 60
"""How many buckets a rolling window has: so much of it, at most, is freed late."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNIT_US = {"m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def utc_now() -> datetime:
    """The clock that is used where none is passed in."""
    return datetime.now(UTC)


def to_us(at: datetime) -> int:
    """Whole microseconds since 1970 UTC; raises ValueError for a time without a zone."""
    if at.tzinfo is None:
        raise ValueError(f"a time needs a time zone: {at!r}")
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The aware UTC time of a number of microseconds."""
    return _EPOCH + timedelta(microseconds=us)


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open stretch of time: `starts_us <= t < ends_us`."""

    name: str
    """`2026-11-20T15+01:00`, `2026-11-20`, `2026-W47`, `2026-11`, empty for total, a bucket's begin for rolling."""

    starts_us: int
    ends_us: int


TOTAL = Window("", -FOREVER_US, FOREVER_US)


def check_period(per: str) -> Period:
    """The period, where it is one; raises UsageError."""
    if per in PERIODS or ROLLING.fullmatch(per):
        return per
    raise UsageError(f"per {per!r}: expected one of {', '.join(PERIODS)}, or rolling-24h, rolling-7d, rolling-30m")


@lru_cache
def rolling_us(per: Period) -> int | None:
    """The length of a rolling period in microseconds; None for a calendar period."""
    found = ROLLING.fullmatch(per)
    return int(found[1]) * _UNIT_US[found[2]] if found else None


def window_at(per: Period, zone: str, at: datetime) -> Window:
    """The window of a period in a zone that holds the aware time `at`; days and months begin at local midnight.

    Of a rolling period, the bucket that holds it: a rolling period knows no zone.
    """
    if per == "total":
        return TOTAL
    if (length := rolling_us(per)) is not None:
        bucket = length // BUCKETS
        start = to_us(at) // bucket * bucket
        return Window(f"{from_us(start):%Y-%m-%dT%H:%M:%SZ}", start, start + bucket)
    local = at.astimezone(_zone(zone))
    if per == "hour":
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        begin = at.astimezone(UTC) - past
        return Window(local.isoformat(timespec="hours"), to_us(begin), to_us(begin + timedelta(hours=1)))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if per == "day":
        return _span(f"{midnight:%Y-%m-%d}", midnight, midnight + timedelta(days=1))
    if per == "week":
        monday = midnight - timedelta(days=midnight.weekday())
        return _span(f"{monday:%G-W%V}", monday, monday + timedelta(days=7))
    first = midnight.replace(day=1)
    return _span(f"{first:%Y-%m}", first, (first + timedelta(days=32)).replace(day=1))


def _span(name: str, start: datetime, end: datetime) -> Window:
    # Arithmetic on aware times of one zone is on the wall clock; the conversion then finds each end's own offset.
    return Window(name, to_us(start.astimezone(UTC)), to_us(end.astimezone(UTC)))


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
