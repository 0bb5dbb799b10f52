"""What is expected of one account in the days to come, as learnt at the end of a day; and the strip drawn from it.

It is all that an evaluation needs to know of the past beside the counts of the last days.
"""

import msgspec
import numpy as np
from msgspec import Struct

from detectors import hull
from detectors.baseline import LEAST
from detectors.calendar import Calendar, Floats, Ints, month_day
from detectors.catalogue import forecast
from detectors.dispersion import Dispersion
from detectors.share import STRATA
from detectors.sheet import BINS, Sheet
from detectors.strip import Line, Rate, Strip

BACK = 98  # hours before a strip's newest one: the longest window, and the day and more that adjusts its beginning
AHEAD = 72  # hours: a night that is missed does no harm
HOUR = 3600  # seconds
DAY = 24  # hours
QUIET = 0.03  # of the level: a shape of factors tells too little of hours in which hardly anything happens
DUPLICATES = 0.0005  # double charges to successes, before anything was learnt
PRIORS = {name: Rate(share) for name, share in STRATA.items()} | {"duplicate": Rate(DUPLICATES)}
MONTH_STARTERS = frozenset({"cancel", "mrr_lost"})  # doubled in a month's first days


class Foretold(Struct, frozen=True):
    """One line: the middle of each hour from the forecast's `first` on, in `unit`s, and how it varies."""

    mid: list[float]
    level: float
    dispersion: Dispersion
    error: float
    records: dict[int, float]  # the most that windows of so many bins held in the weeks before
    unit: float = 1.0  # minor units that weigh as one event does; 1 where events are counted


class Forecast(Struct, frozen=True):
    """Hours are UTC hours since the epoch."""

    since: int = 0  # the account's first one
    closed: int = 0  # the end of what was learnt from
    first: int = 0  # where each line's `mid` begins
    lines: dict[str, Foretold] = {}
    rates: dict[str, Rate] = msgspec.field(default_factory=lambda: dict(PRIORS))

    @property
    def units(self) -> dict[str, float]:
        """What one count of each line is worth, in minor units where money is counted."""
        return {name: each.unit for name, each in self.lines.items()}


def draw(
    forecast_: Forecast,
    sheet: Sheet,
    calendar: Calendar,
    hour: int,
    *,
    since: int,
    left_out: tuple[tuple[int, int], ...] = (),
) -> Strip:
    """The account's lines up to and with the UTC hour `hour`, from the sheet's first hour on.

    `since` is the account's first hour, for as long as nothing was learnt. Spans that were left out, epoch seconds,
    say nothing about how a day is running.
    """
    length = hour + 1 - sheet.first
    hours = np.arange(sheet.first, hour + 1)
    since = forecast_.since or since
    exposure = ((hours >= since) & (hours < hour)).astype(np.float64)
    for start, end in left_out:
        exposure[(hours >= start // HOUR) & (hours < -(-end // HOUR))] = 0.0
    local = calendar.local(hours)
    shifted = calendar.changed(int(local[-1]) // DAY)
    lines: dict[str, Line] = {}
    for name, bins in sheet.bins.items():
        counts = bins[: length * BINS]
        foretold = forecast_.lines.get(name)
        if foretold is None:
            lines[name] = Line(counts.copy(), np.zeros(length) if forecast(name) else None)
            continue
        mid = _middle(foretold, forecast_.first, hours, since)
        counted = counts.reshape(-1, BINS).sum(1) / foretold.unit
        adjusted = hull.adjustment(counted, mid, exposure, foretold.dispersion.phi)
        low, high = hull.sides(mid, adjusted)
        mid, low, high = _allow(name, foretold.level, calendar, local, mid, low, high)
        lines[name] = Line(
            counts / foretold.unit,
            mid,
            low,
            high,
            foretold.dispersion,
            foretold.error,
            foretold.records,
            shifted,
            foretold.unit,
        )
    age = (hour - since) / DAY if forecast_.lines else 0.0
    return Strip(sheet.first * HOUR, lines, forecast_.rates, age)


def _middle(foretold: Foretold, first: int, hours: Ints, since: int) -> Floats:
    """The middle of these hours; next to nothing where none was foretold."""
    place = hours - first
    known = (place >= 0) & (place < len(foretold.mid)) & (hours >= since)
    mid = np.array(foretold.mid)
    return np.where(known, mid[np.clip(place, 0, len(mid) - 1)], LEAST)


def _allow(
    name: str, level: float, calendar: Calendar, local: Ints, mid: Floats, low: Floats, high: Floats
) -> tuple[Floats, Floats, Floats]:
    """What the calendar makes normal besides: holidays, a month's first days."""
    days = local // DAY
    low = np.where(np.isin(days, sorted(calendar.holidays & set(days.tolist()))), low * hull.HOLIDAY_LOW, low)
    least = QUIET * level
    busy = np.ones(len(local))
    if name.partition(".")[0] in MONTH_STARTERS:
        first = [day for day in np.unique(days).tolist() if month_day(day) <= 3]
        busy = np.where(np.isin(days, first), hull.MONTH_START_HIGH, 1.0)
    return np.maximum(mid * busy, least), low, np.maximum(high * busy, least)
