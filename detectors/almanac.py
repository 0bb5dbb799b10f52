"""An account's hours of the last two months, what was forecast of them, and what is learnt from both at each midnight.

It reads no clock and no store: hours come in as arrays, and it can be packed into bytes and be opened again.
"""

import zlib
from collections.abc import Iterable

import msgspec
import numpy as np
from msgspec import Struct

from detectors import hull
from detectors.baseline import DAYS, LEAST, Baseline, History, clipped, fit, tamed
from detectors.calendar import Calendar, Floats, Ints
from detectors.catalogue import GUARD, PRIOR, RAW, forecast, kind
from detectors.forecast import AHEAD, BACK, DAY, DUPLICATES, HOUR, PRIORS, Forecast, Foretold
from detectors.judgement import Spans
from detectors.share import STRATA, rate
from detectors.sheet import Sheet
from detectors.strip import Rate

PAST = (DAYS + 4) * DAY  # hours kept
WORTH = 2000.0  # successes that the prior of double charges is worth
RECORD_DAYS = 35  # a month and a little: what the 1st holds, the last one held too
MISSED = frozenset({"any", "attempt.checkout", "revenue"})  # lines whose absence is judged
NEW = 7 * DAY  # hours in which an account is learnt anew every few of them, and nothing of it is left out
OFTEN = 6  # hours
LEARN = 72  # hours of an incident that are left out; what lasts longer is the new normal
FORMAT = 1  # of the packed bytes
UNIT_LEAST = 1.0

COUNTS, SQUARES, KEPT, MID, LOW, HIGH = range(6)


class _Packed(Struct, frozen=True):
    format: int
    since: int
    first: int
    closed: int
    exposure: bytes
    hours: dict[str, bytes]
    baselines: dict[str, Baseline]
    rates: dict[str, Rate]
    records: dict[str, dict[int, float]]
    units: dict[str, float]


class Almanac:
    """Hours are UTC hours since the epoch. `since` is the account's first one; arrays begin at `first`."""

    def __init__(self, calendar: Calendar, since: int) -> None:
        self.calendar = calendar
        self.since = since
        self.first = since - PAST
        self.closed = since
        self.baselines: dict[str, Baseline] = {}
        self.records: dict[str, dict[int, float]] = {}
        self.units: dict[str, float] = {}
        self.rates = dict(PRIORS)
        self._hours: dict[str, Floats] = {}
        self._exposure = np.zeros(PAST + AHEAD)

    def close(self, hour: int, sheet: Sheet, left_out: Spans, unseen: Spans = ()) -> Forecast:
        """Learn up to `hour` from the sheet's counts; what is expected from now on.

        `left_out` are spans of incidents, epoch seconds, of which nothing is learnt, `unseen` those that people left
        out.
        """
        begin = max(sheet.first, self.since, self.closed - BACK)  # what came later still is history
        for name in sheet.bins:
            self.count(name, begin, *sheet.hours(name, begin, hour))
        self.expose(max(begin, self.closed), hour)
        for start, end in left_out:
            first = start // HOUR
            if first >= self.since + NEW:  # of an account's first week all is needed, or what it mistook stays so
                self.expose(first, min(-(-end // HOUR), first + LEARN), 0.0)
        for start, end in unseen:
            self.expose(start // HOUR, -(-end // HOUR), 0.0)
        self.night(hour)
        return self.forecast()

    def count(self, line: str, hour: int, counts: Floats, squares: Floats) -> None:
        """What was counted in the hours from `hour` on; `squares` sums those of an hour's twelve bins."""
        rows = self._rows(line)
        place = hour - self.first
        if place < 0:
            counts, squares, place = counts[-place:], squares[-place:], 0
        rows = rows[:, place : place + len(counts)]
        rows[COUNTS], rows[SQUARES], rows[KEPT] = counts, squares, counts
        if line in self.baselines:
            unit = self.units.get(line, 1.0)
            rows[KEPT] = clipped(counts / unit, rows[MID] / unit, self.baselines[line].dispersion) * unit

    def expose(self, start: int, end: int, exposure: float = 1.0) -> None:
        """The hours [start, end) were seen; with 0 learn nothing from them: an incident, an expected span, a gap."""
        self._exposure[max(0, start - self.first) : max(0, end - self.first)] = exposure

    def night(self, hour: int) -> None:
        """A local day ends before this hour: learn from what was plausible of it, forecast the days to come."""
        since = min(hour - self.since, hour - self.closed)
        self._move(hour)
        self.closed = hour
        local = self.calendar.local(np.arange(self.first, hour))
        place = local - local[0] // DAY * DAY
        for name in filter(forecast, self._hours):
            self._learn(name, hour, place, int(local[0]) // DAY, since)
        self._learn_rates(place)

    def forecast(self) -> Forecast:
        """What is expected from a strip's beginning before `closed` to some days after it."""
        rows = slice(PAST - BACK, PAST + AHEAD)
        return Forecast(
            since=self.since,
            closed=self.closed,
            first=self.closed - BACK,
            lines={
                name: Foretold(
                    mid=np.nan_to_num(self._hours[name][MID, rows] / self.units.get(name, 1.0), nan=LEAST).tolist(),
                    level=baseline.level,
                    dispersion=baseline.dispersion,
                    error=baseline.error,
                    records=self.records.get(name, {}),
                    unit=self.units.get(name, 1.0),
                )
                for name, baseline in self.baselines.items()
            },
            rates=dict(self.rates),
        )

    def counted(self, name: str) -> tuple[Ints, Floats, Floats, Floats]:
        """The hours that the line's baseline came from: hours, counts, what was kept of them, exposure."""
        rows = self._hours[name][:, :PAST]
        hours = np.arange(self.first, self.first + PAST)
        seen = hours >= self.since
        return hours[seen], rows[COUNTS, seen], rows[KEPT, seen], self._exposure[:PAST][seen]

    def pack(self) -> bytes:
        """As bytes, for `unpack`."""
        packed = _Packed(
            FORMAT,
            self.since,
            self.first,
            self.closed,
            self._exposure.tobytes(),
            {name: rows.tobytes() for name, rows in self._hours.items()},
            self.baselines,
            self.rates,
            self.records,
            self.units,
        )
        return zlib.compress(msgspec.msgpack.encode(packed), 1)

    @classmethod
    def unpack(cls, calendar: Calendar, packed: bytes) -> "Almanac | None":
        """What `pack` made; None where another release made it, which is to be learnt anew."""
        try:
            found = msgspec.msgpack.decode(zlib.decompress(packed), type=_Packed)
        except (zlib.error, msgspec.DecodeError):
            return None
        if found.format != FORMAT or len(found.exposure) != (PAST + AHEAD) * 8:
            return None
        almanac = cls(calendar, found.since)
        almanac.first, almanac.closed = found.first, found.closed
        almanac.baselines, almanac.rates = found.baselines, found.rates
        almanac.records, almanac.units = found.records, found.units
        almanac._exposure = np.frombuffer(found.exposure).copy()
        almanac._hours = {
            name: np.frombuffer(rows).reshape(6, PAST + AHEAD).copy() for name, rows in found.hours.items()
        }
        return almanac

    def _rows(self, line: str) -> Floats:
        """The line's rows; those of a line that is new hold nothing, and were foretold by nobody."""
        if line not in self._hours:
            rows = np.zeros((6, PAST + AHEAD))
            rows[MID:] = np.nan
            self._hours[line] = rows
        return self._hours[line]

    def _learn(self, name: str, hour: int, place: Ints, day: int, since: int) -> None:
        rows = self._hours[name]
        family = kind(name)
        raw = family in RAW
        if "." in name and family != name:
            self.units[name] = _unit(rows[:, :PAST], self._exposure[:PAST])
        unit = self.units.get(name, 1.0)
        self._sides(name, max(0, PAST - since), PAST)
        counts, squares, kept, mid, low, high = (_fold(place, row[:PAST], self._exposure[:PAST]) for row in rows)
        exposure = _fold(place, self._exposure[:PAST], self._exposure[:PAST])
        if family in MISSED:
            kept = tamed(kept / unit, exposure) * unit
        self.records[name] = self._record(rows[COUNTS, :PAST] / unit)
        self.baselines[name] = fit(
            History(
                day,
                counts / unit,
                exposure,
                squares=squares / unit**2,
                kept=kept / unit,
                mid=mid / unit,
                low=low / unit,
                high=high / unit,
            ),
            guard=GUARD.get(family, 0) if hour - self.since > 14 * DAY else 0,
            prior=PRIOR.get(family, 0.0225),
            winsor=25.0 if raw else 16.0,
            raw=raw,
            steady=family in MISSED,
        )
        self._foretell(name, unit)

    def _sides(self, name: str, start: int, end: int) -> None:
        """The low and high sides of hours whose middle is known, by how the hours before them ran."""
        if name not in self.baselines:
            return
        rows = self._hours[name]
        before = max(0, start - hull.TO - 1)
        piece = slice(before, end)
        unit = self.units.get(name, 1.0)
        mid = np.nan_to_num(rows[MID, piece], nan=LEAST * unit)
        phi = self.baselines[name].dispersion.phi * unit
        low, high = hull.sides(mid, hull.adjustment(rows[COUNTS, piece], mid, self._exposure[piece], phi))
        rows[LOW, start:end], rows[HIGH, start:end] = low[start - before :], high[start - before :]

    def _foretell(self, name: str, unit: float) -> None:
        """Write the middle of the hours to come, and of those that passed before there was any baseline."""
        rows = self._hours[name]
        baseline = self.baselines[name]
        unknown = np.isnan(rows[MID])
        unknown[PAST:] = True
        where = np.nonzero(unknown)[0]
        if self.first + PAST - self.since > 8 * DAY:
            where = where[where >= PAST - BACK]
        local = self.calendar.local(self.first + where)
        shape = np.array(baseline.shape)[(local // DAY + 3) % 7 * DAY + local % DAY]
        rows[MID, where] = np.maximum(baseline.level * shape, LEAST) * unit

    def _record(self, counts: Floats) -> dict[int, float]:
        """The most that windows of whole hours held in five weeks without an incident, by their length in bins."""
        newest = (counts * self._exposure[:PAST])[-RECORD_DAYS * DAY :]
        sums = np.concatenate([[0.0], np.cumsum(newest)])
        return {hours * 12: float((sums[hours:] - sums[:-hours]).max()) for hours in (1, 3, 6, 12, 24, 72)}

    def _learn_rates(self, place: Ints) -> None:
        for stratum, prior in STRATA.items():
            failed, tried = self._totals(place, (f"failure.{stratum}", f"attempt.{stratum}"))
            self.rates[stratum] = rate(failed, tried, prior)
        pairs, successes = self._totals(place, ("duplicate", "success"))
        self.rates["duplicate"] = rate(pairs, successes, DUPLICATES, worth=WORTH)

    def _totals(self, place: Ints, names: Iterable[str]) -> list[Floats]:
        return [_fold(place, self._rows(name)[COUNTS, :PAST], self._exposure[:PAST], total=True) for name in names]

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


def nights(calendar: Calendar, since: int, after: int, until: int) -> list[int]:
    """The hours in (after, until] at which an account is learnt: its midnights, and often in its first week."""
    hours = np.arange(after + 1, until + 1)
    midnight = calendar.local(hours) % DAY == 0
    young = (hours - since <= NEW) & (hours % OFTEN == 0) & (hours > since)
    return [int(hour) for hour in hours[midnight | young]]


def _unit(rows: Floats, exposure: Floats) -> float:
    """Minor units that weigh as one event: by how much an hour's money spreads over its bins, the largest hundredth
    of hours left aside, since one invoice worth days of revenue would be all that is seen.
    """
    seen = (exposure > 0) & (rows[COUNTS] > 0)
    counts, squares = rows[COUNTS, seen], rows[SQUARES, seen]
    if not len(counts):
        return UNIT_LEAST
    usual = counts <= np.quantile(counts, 0.99)
    spread = (squares[usual] - counts[usual] ** 2 / 12) * 12 / 11
    return max(UNIT_LEAST, float(spread.sum() / max(counts[usual].sum(), 1e-9)))


def _fold(place: Ints, row: Floats, exposure: Floats, total: bool = False) -> Floats:
    """Hours as [day, hour of day]: means of the exposed ones, or their total. An hour may come twice in autumn."""
    size = (int(place[-1]) // DAY + 1) * DAY
    exposed = exposure > 0
    sums = np.bincount(place, np.where(exposed, row, 0.0), size).astype(np.float64)
    times = np.ones(size) if total else np.maximum(np.bincount(place, exposed, size), 1.0)
    return (sums / times).reshape(-1, DAY)
