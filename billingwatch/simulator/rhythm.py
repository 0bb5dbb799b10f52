"""When things happen: local hours, weekdays, month starts, office hours, and noise that lasts.

Times are epoch seconds; a `local` one is what a clock of the account's zone shows, as if it were UTC. Asks no clock.
"""

import math
import random
import zlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, get_args
from zoneinfo import ZoneInfo

Kind = Literal["b2c", "b2b", "global", "food"]
KINDS: tuple[Kind, ...] = get_args(Kind)

HOUR = 3600
DAY = 86_400

# Weight of each hour of the local day; normalized below to a mean of 1.
_HOURS: dict[Kind, tuple[float, ...]] = {
    "b2b": (
        *(0.25, 0.18, 0.15, 0.14, 0.18, 0.3, 0.55, 0.95, 1.5, 1.9, 2.05, 1.95),
        *(1.6, 1.75, 2.0, 1.95, 1.75, 1.4, 0.95, 0.7, 0.55, 0.45, 0.4, 0.32),
    ),
    "b2c": (
        *(0.55, 0.36, 0.26, 0.22, 0.22, 0.3, 0.48, 0.72, 0.95, 1.1, 1.2, 1.25),
        *(1.3, 1.22, 1.15, 1.15, 1.2, 1.3, 1.45, 1.62, 1.75, 1.68, 1.35, 0.92),
    ),
    "global": (  # customers around the world: a swell, no night
        *(0.82, 0.77, 0.74, 0.74, 0.77, 0.82, 0.88, 0.96, 1.03, 1.08, 1.12, 1.15),
        *(1.16, 1.17, 1.17, 1.16, 1.14, 1.12, 1.09, 1.05, 1.02, 0.98, 0.94, 0.88),
    ),
    "food": (  # orders for lunch and for dinner
        *(0.12, 0.07, 0.05, 0.05, 0.06, 0.1, 0.2, 0.4, 0.55, 0.75, 1.3, 2.4),
        *(2.75, 1.8, 0.85, 0.7, 1.0, 1.9, 2.8, 2.45, 1.35, 0.65, 0.35, 0.2),
    ),
}
_WEEKDAYS: dict[Kind, tuple[float, ...]] = {  # Monday first
    "b2b": (1.28, 1.34, 1.3, 1.24, 1.08, 0.38, 0.38),
    "b2c": (0.98, 0.94, 0.95, 0.97, 1.02, 1.09, 1.05),
    "global": (1.03, 1.03, 1.02, 1.01, 1.0, 0.95, 0.96),
    "food": (0.8, 0.85, 0.9, 1.0, 1.2, 1.3, 0.95),
}


def _normal(weights: tuple[float, ...]) -> tuple[float, ...]:
    mean = sum(weights) / len(weights)
    return tuple(weight / mean for weight in weights)


class Zone:
    """An account's time zone. Raises ZoneInfoNotFoundError, a KeyError, for a name that is none."""

    def __init__(self, name: str = "UTC") -> None:
        self._zone = ZoneInfo(name)
        self._quarter = self._offset = -1

    def local(self, at: int) -> int:
        """What the clock on the wall shows at this second."""
        if at // 900 != self._quarter:  # offsets change on a quarter of an hour, everywhere
            offset = datetime.fromtimestamp(at, self._zone).utcoffset()
            self._quarter, self._offset = at // 900, int(offset.total_seconds()) if offset else 0
        return at + self._offset

    def utc(self, local: int) -> int:
        """When the clock shows this: the earlier time if it does twice, an hour off if it never does."""
        first = local - (self.local(local) - local)
        return local - (self.local(first) - first)


class Shape:
    """How busy hours and weekdays are, 1 on average over a week: its kind's shape, with the account's own dents."""

    def __init__(self, kind: Kind, rng: random.Random) -> None:
        self._hours = _normal(tuple(weight * math.exp(rng.gauss(0, 0.1)) for weight in _HOURS[kind]))
        self._week = _normal(tuple(weight * math.exp(rng.gauss(0, 0.04)) for weight in _WEEKDAYS[kind]))

    def at(self, local: int) -> float:
        """The weight of this second; hours blend into each other."""
        hours = self._hours
        hour, second = divmod(local % DAY, HOUR)
        step = second / HOUR - 0.5
        near = hours[(hour + (1 if step > 0 else -1)) % 24]
        return (hours[hour] + abs(step) * (near - hours[hour])) * self._week[weekday(local)]

    def second_of_day(self, rng: random.Random) -> int:
        """A second of a local day, more often of its busy hours."""
        return rng.choices(range(24), self._hours)[0] * HOUR + int(rng.random() * HOUR)


def weekday(at: int) -> int:
    """0 for Monday."""
    return (at // DAY + 3) % 7  # 1970-01-01 was a Thursday


def day_of_month(at: int) -> int:
    """1 to 31."""
    return datetime.fromtimestamp(at, UTC).day


class Noise:
    """A factor around 1 that wanders: an hourly and a daily part, each remembering the one before.

    Sampled in order of time; `at` in the same hour gives the same factor.
    """

    def __init__(self, rng: random.Random, hourly: float, daily: float) -> None:
        self._rng = rng
        self._hourly = hourly
        self._daily = daily
        self._hour = self._day = -1
        self._h = rng.gauss(0, hourly)
        self._d = rng.gauss(0, daily)
        self._factor = 1.0

    def at(self, at: int) -> float:
        """The factor at this second."""
        hour = at // HOUR
        if hour != self._hour:
            self._hour = hour
            self._h = 0.7 * self._h + self._rng.gauss(0, self._hourly * math.sqrt(1 - 0.7**2))
            if at // DAY != self._day:
                self._day = at // DAY
                self._d = 0.4 * self._d + self._rng.gauss(0, self._daily * math.sqrt(1 - 0.4**2))
            self._factor = math.exp(self._h + self._d)
        return self._factor


def poisson(rng: random.Random, mean: float) -> int:
    """How many of the independent things with this mean happen."""
    count = 0
    while mean > 500:  # exp(-500) is still far from the smallest float
        count += poisson(rng, 500)
        mean -= 500
    limit = math.exp(-mean)
    product = rng.random()
    while product > limit:
        count += 1
        product *= rng.random()
    return count


def renewal_day(rng: random.Random) -> int:
    """The day of the month a subscription renews on: the 1st, 2nd, 3rd and 15th are favourites."""
    number = rng.random()
    for bound, day in ((0.24, 1), (0.31, 2), (0.36, 3), (0.48, 15)):
        if number < bound:
            return day
    return 1 + int(rng.random() * 31)


def month_later(at: int, anchor: int, months: int = 1) -> int:
    """The same second of the day `months` later, on the anchor day or the last day of a shorter month."""
    moment = datetime.fromtimestamp(at, UTC)
    return _midnight(moment.year * 12 + moment.month - 1 + months, anchor) + at % DAY


@lru_cache(maxsize=1024)
def _midnight(month: int, anchor: int) -> int:
    """When the anchor day of a month begins; months are counted from year 0."""
    first = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
    following = datetime((month + 1) // 12, (month + 1) % 12 + 1, 1, tzinfo=UTC)
    return int(first.timestamp()) + (min(anchor, (following - first).days) - 1) * DAY


def office_hour(rng: random.Random, at: int, habit: int) -> int:
    """The next moment after `at`, both local, when staff sit down to refunds: weekday sessions of 45 minutes.

    `habit` is a number of the account's own; with the day it decides when that day's session is and, some days,
    that there is none.
    """
    day = at // DAY
    for ahead in range(15):
        today = day + ahead
        whim = zlib.crc32(b"%d:%d" % (habit, today))  # differs by day, the same for every caller
        if weekday(today * DAY) > 4 or whim % 6 == 0:
            continue
        session = today * DAY + (9 + whim % 8) * HOUR + int(rng.random() * 2700)
        if session > at:
            return session
    return at + DAY


def banking_hour(rng: random.Random, at: int) -> int:
    """The next moment after `at` when card issuers work: weekdays, 13:00 to 21:00 UTC."""
    moment = (at // DAY) * DAY + 13 * HOUR + int(rng.random() * 8 * HOUR)
    if moment <= at:
        moment += DAY
    return moment + {5: 2, 6: 1}.get(weekday(moment), 0) * DAY
