"""What one account's hours were and are expected to be: its calendar, a baseline a line, its failure rates.

It is closed at each local midnight; between two nights it only counts. It knows no clock and judges nothing.
"""

from collections.abc import Collection, Mapping

import numpy as np

from detectors import hull
from detectors.baseline import DAYS, LEAST, Baseline, History, clipped, fit, tamed
from detectors.calendar import Calendar, Floats, Ints, month_day
from detectors.share import STRATA, rate
from detectors.strip import Line, Rate, Strip

HOUR = 3600  # seconds
PAST = (DAYS + 4) * 24  # hours kept
AHEAD = 72  # hours forecast: a night that is missed does no harm
BACK = 96  # hours before a strip's first tick: the longest window, and what adjusts its beginning
DUPLICATES, WORTH = 0.0005, 2000.0  # the prior of double charges to successes, worth so many successes
QUIET = 0.03  # of the level: a shape of factors tells too little of hours in which hardly anything happens
RECORD_DAYS = 28
MISSED = frozenset({"any", "attempt.checkout"})  # lines whose absence is judged
MONTH_STARTERS = frozenset({"cancel"})  # doubled in a month's first days

COUNTS, SQUARES, KEPT, MID, LOW, HIGH = range(6)


class Almanac:
    """Hours are UTC hours since the epoch. `since` is the account's first one; arrays begin at `first`."""

    def __init__(
        self,
        calendar: Calendar,
        since: int,
        *,
        forecast: Collection[str],
        plain: Collection[str] = (),
        guard: Mapping[str, int] | None = None,
        prior: Mapping[str, float] | None = None,
        raw: Collection[str] = (),
    ) -> None:
        """`forecast` names the lines with a baseline, `plain` those that are only counted; see the catalogue."""
        self.calendar = calendar
        self.since = since
        self.first = since - PAST
        self._closed = since
        self.baselines: dict[str, Baseline] = {}
        self.records: dict[str, dict[int, float]] = {}
        self.rates = {name: Rate(share) for name, share in STRATA.items()}
        self.rates["duplicate"] = Rate(DUPLICATES)
        self._forecast, self._guard, self._prior, self._raw = forecast, guard or {}, prior or {}, raw
        self._hours = {name: np.zeros((6, PAST + AHEAD)) for name in (*forecast, *plain)}
        for rows in self._hours.values():
            rows[MID:] = np.nan
        self._exposure = np.zeros(PAST + AHEAD)

    def count(self, line: str, hour: int, counts: Floats, squares: Floats) -> None:
        """What was counted in the hours from `hour` on; `squares` sums those of an hour's twelve bins."""
        place = hour - self.first
        rows = self._hours[line][:, place : place + len(counts)]
        rows[COUNTS], rows[SQUARES], rows[KEPT] = counts, squares, counts
        if line in self.baselines:
            rows[KEPT] = clipped(counts, rows[MID], self.baselines[line].dispersion)

    def expose(self, start: int, end: int, exposure: float = 1.0) -> None:
        """The hours [start, end) were seen; with 0 learn nothing from them: an incident, an expected span, a gap."""
        self._exposure[max(0, start - self.first) : max(0, end - self.first)] = exposure

    def night(self, hour: int) -> None:
        """A local day ends before this hour: learn from what was plausible of it, forecast the days to come."""
        since = min(hour - self.since, hour - self._closed)
        self._move(hour)
        self._closed = hour
        local = self.calendar.local(np.arange(self.first, hour))
        place = local - local[0] // 24 * 24
        for name in self._forecast:
            rows = self._hours[name]
            self._sides(name, max(0, PAST - since), PAST)
            counts, squares, kept, mid, low, high = (_fold(place, row[:PAST], self._exposure[:PAST]) for row in rows)
            exposure = _fold(place, self._exposure[:PAST], self._exposure[:PAST])
            if name in MISSED:
                kept = tamed(kept, exposure)
            history = History(
                int(local[0]) // 24,
                counts,
                exposure,
                squares=squares,
                kept=kept,
                mid=mid,
                low=low,
                high=high,
            )
            self.records[name] = self._record(rows[COUNTS, :PAST])
            raw = name in self._raw
            self.baselines[name] = fit(
                history,
                guard=self._guard.get(name, 0) if hour - self.since > 14 * 24 else 0,
                prior=self._prior.get(name, 0.0225),
                winsor=25.0 if raw else 16.0,
                raw=raw,
            )
            self._foretell(name)
        self._learn_rates(place)

    def strip(self, start: int, counts: Mapping[str, Floats], age: float) -> Strip:
        """The account's lines from the UTC hour `start` on, from counts by 5-minute bins; `age` in days."""
        first = start - self.first
        lines: dict[str, Line] = {}
        shifted = self.calendar.changed(int(self.calendar.local(np.array([start + BACK]))[0]) // 24)
        for name, each in counts.items():
            if name not in self.baselines:
                lines[name] = Line(each, np.zeros(len(each) // 12) if name in self._forecast else None)
                continue
            last = first + len(each) // 12
            self._sides(name, first, last)
            rows = self._hours[name]
            baseline = self.baselines[name]
            known = np.arange(start, start + last - first) >= self.since
            mid, low, high = (np.where(known, rows[row, first:last], LEAST) for row in (MID, LOW, HIGH))
            mid, low, high = self._allow(name, start, mid, low, high)
            lines[name] = Line(
                each, mid, low, high, baseline.dispersion, baseline.error, self.records.get(name), shifted
            )
        return Strip(start * HOUR, lines, dict(self.rates), age)

    def _sides(self, name: str, start: int, end: int) -> None:
        """The low and high sides of hours whose middle is known, by how the hours before them ran."""
        rows = self._hours[name]
        if name not in self.baselines:
            return
        before = max(0, start - hull.TO - 1)
        piece = slice(before, end)
        mid = np.nan_to_num(rows[MID, piece], nan=LEAST)
        adjusted = hull.adjustment(rows[COUNTS, piece], mid, self._exposure[piece], self.baselines[name].dispersion.phi)
        low, high = hull.sides(mid, adjusted)
        rows[LOW, start:end], rows[HIGH, start:end] = low[start - before :], high[start - before :]

    def _allow(self, name: str, hour: int, mid: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
        """What the calendar makes normal besides, in hours from `hour` on: holidays, a month's first days."""
        local = self.calendar.local(np.arange(hour, hour + len(mid)))
        low = np.where(np.isin(local // 24, sorted(self.calendar.holidays)), low * hull.HOLIDAY_LOW, low)
        least = QUIET * self.baselines[name].level
        busy = self._busy(name, local)
        return np.maximum(mid * busy, least), low, np.maximum(high * busy, least)

    def _busy(self, name: str, local: Ints) -> Floats:
        """How much more than the baseline's may be normal on these local hours' day of the month."""
        days = np.unique(local // 24)
        first = [int(day) for day in days if name in MONTH_STARTERS and month_day(int(day)) <= 3]
        return np.where(np.isin(local // 24, first), hull.MONTH_START_HIGH, 1.0)

    def _foretell(self, name: str) -> None:
        """Write the middle of the hours to come, and of those that passed before there was any baseline."""
        rows = self._hours[name]
        baseline = self.baselines[name]
        unknown = np.isnan(rows[MID])
        unknown[PAST:] = True
        where = np.nonzero(unknown)[0]
        if self.first + PAST - self.since > 8 * 24:
            where = where[where >= PAST - BACK]
        local = self.calendar.local(self.first + where)
        shape = np.array(baseline.shape)[(local // 24 + 3) % 7 * 24 + local % 24]
        rows[MID, where] = np.maximum(baseline.level * shape, LEAST)

    def _record(self, counts: Floats) -> dict[int, float]:
        """The most that windows of whole hours held in four weeks without an incident, by their length in bins."""
        newest = (counts * self._exposure[:PAST])[-RECORD_DAYS * 24 :]
        sums = np.concatenate([[0.0], np.cumsum(newest)])
        return {hours * 12: float((sums[hours:] - sums[:-hours]).max()) for hours in (1, 3, 6, 12, 24, 72)}

    def _learn_rates(self, place: Ints) -> None:
        for stratum, prior in STRATA.items():
            failed, tried = (
                _fold(place, self._hours[f"{line}.{stratum}"][COUNTS, :PAST], self._exposure[:PAST], total=True)
                for line in ("failure", "attempt")
            )
            self.rates[stratum] = rate(failed, tried, prior)
        pairs, successes = (
            _fold(place, self._hours[line][COUNTS, :PAST], self._exposure[:PAST], total=True)
            for line in ("duplicate", "success")
        )
        learnt = rate(pairs, successes, DUPLICATES, worth=WORTH)
        self.rates["duplicate"] = learnt

    def _move(self, hour: int) -> None:
        """Let the arrays begin PAST hours before this one."""
        by = hour - PAST - self.first
        self.first += by
        if by <= 0:
            return
        for rows in (*self._hours.values(), self._exposure[None]):
            rows[:, :-by] = rows[:, by:].copy()
            rows[:, -by:] = 0.0
            rows[MID:, -by:] = np.nan  # nobody foretold them; exposure has one row and is not concerned


def _fold(place: Ints, row: Floats, exposure: Floats, total: bool = False) -> Floats:
    """Hours as [day, hour of day]: means of the exposed ones, or their total. An hour may come twice in autumn."""
    size = (int(place[-1]) // 24 + 1) * 24
    exposed = exposure > 0
    sums = np.bincount(place, np.where(exposed, row, 0.0), size).astype(np.float64)
    times = np.ones(size) if total else np.maximum(np.bincount(place, exposed, size), 1.0)
    return (sums / times).reshape(-1, 24)
