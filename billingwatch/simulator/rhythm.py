"""When things happen: hours, weekdays, month starts, office hours, and noise that lasts. Times are UTC seconds."""

import math
import random
from datetime import UTC, datetime
from typing import Literal

Kind = Literal["b2b", "b2c"]

HOUR = 3600
DAY = 86_400

# Weight of each hour of the day; normalized below to a mean of 1.
_HOURS: dict[Kind, tuple[float, ...]] = {
    "b2b": (
        *(0.25, 0.18, 0.15, 0.14, 0.18, 0.3, 0.55, 0.95, 1.5, 1.9, 2.05, 1.95),
        *(1.6, 1.75, 2.0, 1.95, 1.75, 1.4, 0.95, 0.7, 0.55, 0.45, 0.4, 0.32),
    ),
    "b2c": (
        *(0.55, 0.36, 0.26, 0.22, 0.22, 0.3, 0.48, 0.72, 0.95, 1.1, 1.2, 1.25),
        *(1.3, 1.22, 1.15, 1.15, 1.2, 1.3, 1.45, 1.62, 1.75, 1.68, 1.35, 0.92),
    ),
}
_WEEKDAYS: dict[Kind, tuple[float, ...]] = {  # Monday first
    "b2b": (1.28, 1.34, 1.3, 1.24, 1.08, 0.38, 0.38),
    "b2c": (0.98, 0.94, 0.95, 0.97, 1.02, 1.09, 1.05),
}


def _normal(weights: tuple[float, ...]) -> tuple[float, ...]:
    mean = sum(weights) / len(weights)
    return tuple(weight / mean for weight in weights)


HOURS = {kind: _normal(weights) for kind, weights in _HOURS.items()}
WEEKDAYS = {kind: _normal(weights) for kind, weights in _WEEKDAYS.items()}


def weekday(at: int) -> int:
    """0 for Monday."""
    return (at // DAY + 3) % 7  # 1970-01-01 was a Thursday


def intensity(kind: Kind, at: int) -> float:
    """How busy this moment is, 1 on average over a week; hours blend into each other."""
    hours = HOURS[kind]
    hour, second = divmod(at % DAY, HOUR)
    step = second / HOUR - 0.5
    near = hours[(hour + (1 if step > 0 else -1)) % 24]
    return (hours[hour] + abs(step) * (near - hours[hour])) * WEEKDAYS[kind][weekday(at)]


def second_of_day(rng: random.Random, kind: Kind) -> int:
    """A second of a day, more often of its busy hours."""
    return rng.choices(range(24), HOURS[kind])[0] * HOUR + int(rng.random() * HOUR)


def day_of_month(at: int) -> int:
    """1 to 31."""
    return datetime.fromtimestamp(at, UTC).day


class Noise:
    """A factor around 1 that wanders: an hourly and a daily part, each remembering the one before.

    Sampled in order of time; `at` in the same hour gives the same factor.
    """

    def __init__(self, rng: random.Random, hourly: float = 0.05, daily: float = 0.05) -> None:
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
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    following = datetime(year + (month == 11), (month + 1) % 12 + 1, 1, tzinfo=UTC)
    first = datetime(year, month + 1, 1, tzinfo=UTC)
    day = min(anchor, (following - first).days)
    return int(first.timestamp()) + (day - 1) * DAY + at % DAY


def office_hour(rng: random.Random, at: int, habit: int) -> int:
    """The next moment after `at` when staff sit down to refunds: weekday sessions of three quarters of an hour.

    `habit` is a number of the account's own; with the day it decides when that day's session is and, some days,
    that there is none.
    """
    day = at // DAY
    for ahead in range(15):
        today = day + ahead
        whim = (today * 2_654_435_761 + habit * 40_503) >> 5 & 1023  # differs by day, the same for every caller
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
