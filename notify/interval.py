"""Parts of the week: "mon-fri 22:00-07:00, sat-sun". Read from text, asked by the local clock. Pure.

An interval names days, hours, or both. Hours that end before they begin reach into the next morning, which belongs to
the day on which they began. An hour that a change of the clock leaves out does not exist, one that it doubles is twice
as long.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from msgspec import Struct

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60  # minutes
_HOURS = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})", re.ASCII)
_DAYS = re.compile(r"([a-z]{3})(?:-([a-z]{3}))?")
EXAMPLE = "as mon-fri 22:00-07:00, or sat-sun"


class Interval(Struct, frozen=True):
    """`days` on which it begins, 0 for Monday; from `start` to `end`, minutes of the day."""

    days: frozenset[int]
    start: int = 0
    end: int = DAY

    def holds(self, local: datetime) -> bool:
        """Whether a wall clock that shows `local` is inside."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


class Times(Struct, frozen=True):
    """Several intervals: inside one is inside. `text` is as it was written."""

    text: str = ""
    intervals: tuple[Interval, ...] = ()

    def holds(self, at: datetime, zone: tzinfo) -> bool:
        """Whether the instant `at` (aware) is inside, by the clocks of `zone`."""
        local = at.astimezone(zone)
        return any(interval.holds(local) for interval in self.intervals)

    def over(self, at: datetime, zone: tzinfo) -> datetime | None:
        """The full minute, UTC, at which the stretch around `at` ends; None where it never does."""
        for moment in self._edges(at.astimezone(UTC), zone):
            if not self.holds(moment, zone):
                return moment
        return None

    def _edges(self, at: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Every instant of the next eight days at which an interval may end, in order."""
        minutes = sorted({0, *(each.end % DAY for each in self.intervals), *(each.start for each in self.intervals)})
        midnight = at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        found = set()
        for day in range(-1, 9):
            for minute in minutes:
                wall = midnight + timedelta(days=day, minutes=minute)
                # Where the clock is set back a wall time comes twice.
                found |= {wall.replace(tzinfo=zone, fold=fold).astimezone(at.tzinfo) for fold in (0, 1)}
        # Where the clock is changed, too: it may leap over an end.
        start = at.replace(minute=0, second=0, microsecond=0)
        hours = [start + timedelta(hours=hour) for hour in range(9 * 24)]
        offsets = [hour.astimezone(zone).utcoffset() for hour in hours]
        found |= {hours[place] for place in range(1, len(hours)) if offsets[place] != offsets[place - 1]}
        yield from sorted(moment for moment in found if moment > at)


def read(text: str) -> Times:
    """The parts of the week that the text names. Raises ValueError with a sentence about the part that is wrong."""
    intervals = tuple(_interval(part.strip().lower()) for part in text.split(","))
    return Times(text, intervals)


def _interval(text: str) -> Interval:
    words = text.split()
    if not words or len(words) > 2:
        raise ValueError(f"{text!r} is no part of the week ({EXAMPLE})")
    hours = _HOURS.fullmatch(words[-1])
    days = words[0] if not hours or len(words) == 2 else "mon-sun"
    if len(words) == 2 and not hours:
        raise ValueError(f"{words[1]!r} are no hours ({EXAMPLE})")
    start, end = _minutes(hours) if hours else (0, DAY)
    return Interval(frozenset(_days(days)), start, end)


def _minutes(hours: re.Match[str]) -> tuple[int, int]:
    first, second, third, fourth = map(int, hours.groups())
    start, end = first * 60 + second, third * 60 + fourth
    if second > 59 or fourth > 59 or start >= DAY or end > DAY:
        raise ValueError(f"{hours[0]!r} are no hours: 00:00 to 24:00")
    if start == end:
        raise ValueError(f"{hours[0]!r} begin when they end; the whole day is 00:00-24:00")
    return start, end


def _days(text: str) -> list[int]:
    found = _DAYS.fullmatch(text)
    if not found or found[1] not in DAYS or (found[2] or "mon") not in DAYS:
        raise ValueError(f"{text!r} are no days ({', '.join(DAYS)})")
    first = DAYS.index(found[1])
    last = DAYS.index(found[2]) if found[2] else first
    return [(first + step) % 7 for step in range((last - first) % 7 + 1)]
