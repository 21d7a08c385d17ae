"""Calendar windows in a tenant's time zone: a window is part of an account's key, so nothing ever resets it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from bursar.budget.schema import FOREVER_US

__all__ = ["PERIODS", "Period", "Window", "from_us", "to_us", "utc_now", "window_at"]

Period = Literal["hour", "day", "week", "month", "total"]
PERIODS: tuple[Period, ...] = get_args(Period)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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
    """`2026-11-20T15+01:00`, `2026-11-20`, `2026-W47`, `2026-11`, or empty for total."""

    starts_us: int
    ends_us: int


TOTAL = Window("", -FOREVER_US, FOREVER_US)


def window_at(per: Period, zone: str, at: datetime) -> Window:
    """The window of a period in a zone that holds the aware time `at`; days and months begin at local midnight."""
    if per == "total":
        return TOTAL
    local = at.astimezone(_zone(zone))
    if per == "hour":
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        start = at.astimezone(UTC) - past
        return Window(local.isoformat(timespec="hours"), to_us(start), to_us(start + timedelta(hours=1)))
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
