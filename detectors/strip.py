"""The last days of one account as 5-minute bins with prefix sums: any window of any line costs two look-ups.

Positions are in bins since the strip's start, with fractions; counts are of whole bins, expectations are divided.
"""

import numpy as np
from msgspec import Struct

from detectors.calendar import Floats, Ints
from detectors.dispersion import Dispersion, Spread
from detectors.hull import rhythms

BIN = 300  # seconds
LEAST_WINDOW = 3  # bins; a window that was cut to less judges nothing


class Line:
    """One metric's counts and expectations, as prefix sums: entry i sums the bins before i."""

    def __init__(
        self,
        counts: Floats,
        mid: Floats | None = None,
        low: Floats | None = None,
        high: Floats | None = None,
        dispersion: Dispersion | None = None,
        error: float = 0.0,
        records: dict[int, float] | None = None,
        shifted: bool = False,
        unit: float = 1.0,
    ) -> None:
        """`counts` by bin; expectations by hour, of which the strip's start is the first; none for mere counts.

        `records` are the most that windows of so many bins held in the weeks before; `shifted` says that the
        clocks were changed of late. Counts of money come in `unit`s, minor units that weigh as one event does.
        """
        self.unit = unit
        self.known = mid is not None and dispersion is not None
        self.counts = counts
        self.count = _prefix(counts)
        self.dispersion = dispersion or Dispersion()
        self.error = error
        self.records = records or {}
        if mid is not None:
            low, high = mid if low is None else low, mid if high is None else high
            mids = rhythms(mid, shifted)
            self.low, self.high = _prefix(rhythms(low, shifted)), _prefix(rhythms(high, shifted))
            self.mid = _prefix(mids if shifted else mids[:1])
            self.square = _prefix(12 * mids[0] ** 2)

    def put(self, counts: Floats) -> None:
        """Count anew; the expectations stay."""
        self.counts = counts / self.unit if self.unit != 1.0 else counts
        self.count = _prefix(self.counts)

    def masked(self, mask: Floats) -> "Line":
        """The line as if the bins where `mask` is 0 had never been: neither counted nor expected."""
        found = object.__new__(Line)
        found.counts = self.counts * mask
        found.count = _prefix(found.counts)
        found.dispersion, found.error, found.records = self.dispersion, self.error, self.records
        found.unit, found.known = self.unit, self.known
        for name in ("mid", "low", "high", "square"):
            setattr(found, name, _prefix(np.diff(getattr(self, name), axis=-1) * mask))
        return found


class Rate(Struct, frozen=True):
    """How large a share of attempts usually fails, and how far that wanders."""

    share: float
    tau: float = 0.25  # relative standard deviation
    attempts: float = 0.0  # it was learnt from


class Strip:
    """One account's lines from `start` (epoch seconds, on the hour), its rates, and how many days it is known."""

    def __init__(self, start: int, lines: dict[str, Line], rates: dict[str, Rate], age: float) -> None:
        self.start = start
        self.lines = lines
        self.rates = rates
        self.age = age
        self._seen = lines
        self.mask = np.ones(len(next(iter(lines.values())).counts))

    def hide(self, start: float, end: float) -> None:
        """Judge no absence in these bins: what was sent in them may never come."""
        self.mask[max(0, int(start)) : max(0, int(np.ceil(end)))] = 0.0

    def absence(self, name: str) -> Line:
        """The line as absence is judged by it."""
        line = self.lines[name]
        return line if self.mask.all() else line.masked(self.mask)

    def position(self, at: float) -> float:
        """The place of an instant, epoch seconds."""
        return (at - self.start) / BIN


class View:
    """Windows of several lengths that end at several ticks: arrays of shape [windows, ticks].

    No window begins before `floor`: what an earlier incident used up is no evidence for another one.
    """

    def __init__(self, ends: Floats, windows: tuple[int, ...], floor: float = 0.0) -> None:
        self.windows = np.array(windows, np.float64)[:, None]
        self.ends = ends
        self.top: Ints = np.ceil(ends - 1e-9).astype(np.int64)
        self.start = np.maximum(self.top - self.windows.astype(np.int64), int(np.ceil(floor)))
        self.start = np.minimum(self.start, self.top)
        self.valid = self.top - self.start >= np.minimum(LEAST_WINDOW, self.windows)
        recent = np.maximum(LEAST_WINDOW, self.windows.astype(np.int64) // 6)
        self.late = np.maximum(self.top - recent, self.start)

    def count(self, line: Line) -> Floats:
        found: Floats = line.count[self.top] - line.count[self.start]
        return found

    def recent(self, line: Line) -> Floats:
        """Counts of the newest sixth, 15 minutes at least: nothing opens after it ended."""
        found: Floats = line.count[self.top] - line.count[self.late]
        return found

    def least(self, prefixes: Floats) -> Floats:
        """The least that any of the rhythms expects."""
        return np.asarray(np.maximum(self._sums(prefixes, self.start).min(0), 0.0))

    def most(self, prefixes: Floats) -> Floats:
        """The most that any of the rhythms expects."""
        return np.asarray(np.maximum(self._sums(prefixes, self.start).max(0), 0.0))

    def recent_least(self, prefixes: Floats) -> Floats:
        return np.asarray(np.maximum(self._sums(prefixes, self.late).min(0), 0.0))

    def recent_most(self, prefixes: Floats) -> Floats:
        return np.asarray(np.maximum(self._sums(prefixes, self.late).max(0), 0.0))

    def _sums(self, prefixes: Floats, start: Ints) -> Floats:
        found: Floats = at(prefixes, self.ends)[..., None, :] - prefixes[..., start]
        return found

    def variance(self, line: Line, mean: Floats, spread: Spread) -> Floats:
        """Of counts around this mean, the baseline's own uncertainty included."""
        found = line.dispersion.variance(
            mean, np.maximum(self._sums(line.square, self.start), 0.0), self.windows, spread
        )
        return found + line.error * mean * mean


def at(prefix: Floats, place: Floats) -> Floats:
    """Prefix sums, along the last axis, at positions between bins."""
    last = prefix.shape[-1] - 1
    whole = np.minimum(place.astype(np.int64), last)
    after = np.minimum(whole + 1, last)
    found: Floats = prefix[..., whole] + (place - whole) * (prefix[..., after] - prefix[..., whole])
    return found


def _prefix(values: Floats) -> Floats:
    found = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, out=found[..., 1:])
    return found
