"""Points in time as people type and read them: `30d` ago, a day or a time, `in 3 h`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from bursar.budget.errors import UsageError

__all__ = ["ahead", "distance", "moment", "span", "zone_of"]

_AGO = re.compile(r"(\d{1,5})([mhdw])")
_UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def moment(text: str, zone: str, now: datetime) -> datetime:
    """The time that is meant, aware: `30d` before `now`, or a day or time of the zone; raises UsageError."""
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no time", next_step="30d, 12h, 2026-11-20 or 2026-11-20T14:30") from None


def ahead(text: str, zone: str, now: datetime | None = None) -> datetime:
    """The time that is meant, aware: `2h` from `now` on, or a day or time of the zone; raises UsageError."""
    if later := _AGO.fullmatch(text):
        return (now or datetime.now(UTC)) + int(later[1]) * _UNITS[later[2]]
    return moment(text, zone, now or datetime.now(UTC))


def span(text: str) -> timedelta:
    """A length of time such as `15m` or `2h`; raises UsageError."""
    if found := _AGO.fullmatch(text):
        return int(found[1]) * _UNITS[found[2]]
    raise UsageError(f"{text!r} is no length of time", next_step="15m, 2h or 1d")


def distance(at: datetime, now: datetime) -> str:
    """How far a time lies off: `in 3 h`, `5 min ago`, rounded down so that no deadline seems further than it is."""
    seconds = int(abs((at - now).total_seconds()))
    units = ((172_800, 86_400, "d"), (5_400, 3_600, "h"), (90, 60, "min"), (0, 1, "s"))
    size, unit = next((size, unit) for least, size, unit in units if seconds >= least)
    return f"in {seconds // size} {unit}" if at >= now else f"{seconds // size} {unit} ago"


def zone_of(name: str) -> str:
    """The name of an IANA time zone, as it is; raises UsageError."""
    if name not in available_timezones():
        raise UsageError(f"{name!r} is no IANA time zone", next_step="--zone Europe/Paris")
    return name
