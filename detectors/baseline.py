"""What is normal for one metric: a level and a weekly shape, learnt from its own hours with credibility.

It judges nothing and reads no clock: the day it is made for is an argument.
"""

import numpy as np
from msgspec import Struct

from detectors.calendar import Floats, Ints, weekday, weekdays
from detectors.dispersion import Dispersion, measure

DAYS = 56  # of history that the shape is learnt from
HALF_LIFE = 28.0  # days
LEVEL_DAYS = 14
STEADY_DAYS, ABOVE = 5, 1.15  # days that make a middle one; how far above it a day may be taken for usual
SPREAD_DAYS = 28
NEXT = 1.0  # event that is always about to come: what was never seen in two days is not impossible
MEASURED = 10.0  # days of weight after which the errors of forecasts tell what the shape does not know
CLIP = 3.5  # standard deviations
HOUR, WEEKDAY, PART, CELL = 0.35, 0.15, 0.10, 0.03  # prior variances of the shape's factors around 1
DAILY = 0.0225  # tau squared of a day, in the credibility of each factor
LEAST = 1e-4  # an hour's mean: what was never seen is rare, not impossible

_WEEKEND = np.array([0, 0, 0, 0, 0, 1, 1])
_PARTS = (slice(0, 5), slice(5, 7))


class Baseline(Struct, frozen=True):
    """The forecast of one metric from a local day on, with what it was made from."""

    day: int  # since 1970-01-01, local: the first day it speaks about
    level: float  # events an hour
    shape: tuple[float, ...]  # 168 factors around 1, Monday's first hour first
    error: float  # relative variance of level and shape: how little they were learnt from
    dispersion: Dispersion
    since: int  # the oldest day it was learnt from
    days: float  # of exposure, in days of 24 hours: what was left out does not count
    counted: float  # events, as clipped
    hour: tuple[float, ...] = ()  # the factors that make the shape, to answer "why 1.1?"
    weekday: tuple[float, ...] = ()
    part: tuple[float, ...] = ()  # 24 hours of working days, 24 of weekends

    def forecast(self, day: int) -> Floats:
        """Expected events in each of the 24 hours of a local day."""
        first = weekday(day) * 24
        found: Floats = np.maximum(self.level * np.array(self.shape[first : first + 24]), LEAST)
        return found


class History:
    """The newest days of one metric as [day, hour of day]; `first` is the oldest day. Values are means per hour.

    Exposure is 1 for an hour that counts, 0 for one that is left out: not seen, an incident, an expected span.
    `squares` sums the squares of an hour's twelve bins; `kept` is what was plausible of the count; `mid`, `low`
    and `high` are what had been forecast, NaN where nothing had.
    """

    def __init__(
        self,
        first: int,
        counts: Floats,
        exposure: Floats,
        *,
        squares: Floats | None = None,
        kept: Floats | None = None,
        mid: Floats | None = None,
        low: Floats | None = None,
        high: Floats | None = None,
    ) -> None:
        unknown = np.full(counts.shape, np.nan)
        self.first = first
        self.counts = counts
        self.exposure = exposure
        self.squares = counts**2 / 12 + counts * 11 / 12 if squares is None else squares
        self.kept = counts if kept is None else kept
        self.mid = unknown if mid is None else mid
        self.low = self.mid if low is None else low
        self.high = self.mid if high is None else high

    @property
    def end(self) -> int:
        """The day after the newest one."""
        return self.first + len(self.counts)


def clipped(counts: Floats, mid: Floats, dispersion: Dispersion) -> Floats:
    """Of each hour's count only what its forecast makes plausible: an anomaly must not become normal."""
    tau = max(dispersion.up.hour, dispersion.down.hour)
    reach = CLIP * np.sqrt(dispersion.phi * mid + tau * mid**2 + 0.25)
    found: Floats = np.where(np.isfinite(mid), np.clip(counts, mid - reach, mid + reach), counts)
    return found


def tamed(kept: Floats, exposure: Floats) -> Floats:
    """Hours cut to what is plausible beside the same hour of other days, once there are five of them.

    For lines whose absence is judged: the renewals of a month's first hour, come before any forecast could clip
    them, would be missed every week.
    """
    seen = exposure > 0
    if seen.sum() < 5 * 24:
        return kept
    days = np.where(seen, kept, np.nan)[seen.any(axis=1)]
    whole = np.nan_to_num(days, nan=float(np.nanmedian(days)))
    middle = np.maximum(_smooth(np.median(whole, axis=0)), np.median(whole, axis=0))
    return np.asarray(np.minimum(kept, 3 * middle + 4 * np.sqrt(middle + 1)))


def fit(
    history: History,
    *,
    guard: int = 0,
    prior: float = 0.0225,
    winsor: float = 16.0,
    raw: bool = False,
    steady: bool = False,
) -> Baseline:
    """The baseline for the day after the history's newest.

    `guard` newest days are not learnt from: slow incidents would be taken for normal before they are found.
    `prior` and `winsor` are the dispersion's; `raw` measures it on what was counted instead of what was kept.
    `steady` holds the level of lines whose absence is judged against days far above the others.
    """
    days: Ints = np.arange(history.first, history.end)
    age = history.end - days
    weight = np.where((age > guard) & (age <= DAYS), 2.0 ** (-age / HALF_LIFE), 0.0)
    exposure = history.exposure * weight[:, None]
    seen = history.kept * (history.exposure > 0) * weight[:, None]
    # Summed by weekday and hour: all that the factors are made from.
    seen, exposure = (_by_weekday(rows, days) for rows in (seen, exposure))
    mean = (float(seen.sum()) + NEXT) / max(float(exposure.sum()), 1.0)
    expected = mean * exposure
    hour = _ratio(_smooth(seen.sum(0)), _smooth(expected.sum(0)), exposure.sum(0), HOUR)
    unknown = _doubt(expected.sum(0), exposure.sum(0), HOUR)
    expected = expected * hour
    week = _ratio(seen.sum(1), expected.sum(1), exposure.sum(1) / 24, WEEKDAY)
    unknown += _doubt(expected.sum(1), exposure.sum(1) / 24, WEEKDAY)
    expected = expected * week[:, None]
    part = np.stack(
        [_ratio(_smooth(seen[to].sum(0)), _smooth(expected[to].sum(0)), exposure[to].sum(0), PART) for to in _PARTS]
    )
    expected = expected * part[_WEEKEND]
    cell = _ratio(seen, expected, exposure, CELL)
    shape = hour * week[:, None] * part[_WEEKEND] * cell
    level, error = _level(history, age, guard, shape[weekdays(days)], mean, steady)
    newest = slice(max(0, len(history.counts) - SPREAD_DAYS), None)
    dispersion = measure(
        (history.counts if raw else history.kept)[newest],
        (history.squares if raw else _cut(history))[newest],
        history.exposure[newest],
        history.mid[newest],
        history.low[newest],
        history.high[newest],
        prior=prior,
        winsor=winsor,
        sessions=raw,
    )
    return Baseline(
        day=history.end,
        level=level,
        shape=tuple(shape.ravel().tolist()),
        error=error * dispersion.phi + unknown * max(0.0, 1 - float(exposure.sum()) / 24 / MEASURED),
        dispersion=dispersion,
        since=max(history.first, history.end - DAYS),
        days=float(history.exposure[weight > 0].sum()) / 24,
        counted=float(history.kept[weight > 0].sum()),
        hour=tuple(hour.tolist()),
        weekday=tuple(week.tolist()),
        part=tuple(part.ravel().tolist()),
    )


def _cut(history: History) -> Floats:
    """The squares of the hours as kept: the spread of an hour that was cut, cut like its count. With the squares of
    what was counted, one anomaly would pass for clusters in all four weeks.
    """
    spread = history.squares - history.counts**2 / 12
    share = np.minimum(1.0, history.kept / np.maximum(history.counts, 1.0))
    found: Floats = history.kept**2 / 12 + spread * share
    return found


def _level(history: History, age: Ints, guard: int, shape: Floats, mean: float, steady: bool) -> tuple[float, float]:
    """The deseasonalised mean of the last two weeks, and its relative variance by count alone.

    A `steady` one follows no days far above the middle one: after a sale the usual would be missed for two weeks.
    """
    newest = (age > guard) & (age <= guard + LEVEL_DAYS)
    by_day = mean * (history.exposure[newest] * shape[newest]).sum(1)
    seen_by_day = (history.kept * (history.exposure > 0))[newest].sum(1)
    expected = float(by_day.sum())
    if steady and (by_day > 0).sum() >= STEADY_DAYS:
        usual = float(np.median(seen_by_day[by_day > 0] / by_day[by_day > 0])) * by_day
        seen_by_day = np.minimum(seen_by_day, ABOVE * usual + 2 * np.sqrt(usual + 1))
    seen = float(seen_by_day.sum())
    if expected <= 0:
        return mean, 1.0
    trust = 1 / (1 + 2 / expected)
    return mean * (1 + trust * (seen / expected - 1)), 1 / (seen + 2)


def _by_weekday(rows: Floats, days: Ints) -> Floats:
    found = np.zeros((7, 24))
    np.add.at(found, weekdays(days), rows)
    return found


def _ratio(seen: Floats, expected: Floats, days: Floats, prior: float) -> Floats:
    """Observed to expected, shrunk towards 1 by how little was expected."""
    found: Floats = 1 + _trust(expected, days, prior) * (seen / np.maximum(expected, 1e-9) - 1)
    return np.maximum(found, 0.01)


def _doubt(expected: Floats, days: Floats, prior: float) -> float:
    """The relative variance that a factor which was hardly seen adds to what is expected; it fades as it is."""
    return prior * float((1 - _trust(expected, days, prior)).mean())


def _trust(expected: Floats, days: Floats, prior: float) -> Floats:
    found: Floats = prior / (prior + 1 / np.maximum(expected, 1e-9) + DAILY / np.maximum(days, 1e-9))
    return found


def _smooth(hours: Floats) -> Floats:
    """Each hour with a quarter of each neighbour, around the clock."""
    found: Floats = hours / 2 + (np.roll(hours, 1) + np.roll(hours, -1)) / 4
    return found
