"""Working time: on which days, from when to when, in which time zone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

__all__ = ["DAYS", "Hours"]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """The hours in which people work; time counts in them alone."""

    zone: str
    days: Sequence[str]
    """Some of `DAYS`, at least one."""

    begin_minute: int
    """Of the day, from 0 on."""

    end_minute: int
    """Of the day, at most 1440, after `begin_minute`."""

    def after(self, start: datetime, span: timedelta) -> datetime:
        """The moment at which so much working time has passed since the start, in UTC."""
        start = start.astimezone(UTC)  # where an hour is an hour
        for begin, end in self._spans(start):
            begin = max(begin, start)
            if begin + span <= end:
                return begin + span
            span -= max(end - begin, timedelta())
        raise AssertionError("the spans of working time never end")

    def _spans(self, start: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The working hours from the day of a moment on, in UTC."""
        day = start.astimezone(ZoneInfo(self.zone)).date()
        while True:
            if DAYS[day.weekday()] in self.days:
                begin, end = self._at(day, self.begin_minute), self._at(day, self.end_minute)
                if end > start:
                    yield begin, end
            day += timedelta(days=1)

    def _at(self, day: date, minute: int) -> datetime:
        whole_days, rest = divmod(minute, 24 * 60)
        local = datetime.combine(day + timedelta(days=whole_days), time(*divmod(rest, 60)), ZoneInfo(self.zone))
        return local.astimezone(UTC)
