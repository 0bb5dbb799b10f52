"""Too little of something: checkouts that stop, revenue that falls. No judge while delivery is in doubt."""

import numpy as np
from msgspec import Struct

from billingwatch.model import Severity
from detectors.calendar import Bools, Floats
from detectors.signal import Side, Signal, distant, needed, signals, spans, total
from detectors.strip import Line, Strip, View

STILL = 0.8  # times the expectation: the effect lasts


class Drop(Struct, frozen=True, forbid_unknown_fields=True):
    """A signal when a window holds at most `factor` times what is expected at least, `least` fewer, by no chance."""

    name: str
    line: str
    windows: tuple[int, ...] = (3, 6, 12, 24, 36, 72, 144, 288, 864)  # bins
    factor: float = 0.8
    least: float = 8.0
    shift: float = 1.5
    days: float = 7.0
    sensitivity: float = 7.2
    severity: Severity = "medium"

    @property
    def side(self) -> Side:
        return "down"

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0) -> dict[int, Signal]:
        """The signals by tick. `ends` are where exposure ends: the watermark while delivery is in doubt."""
        if strip.age < self.days or self.line not in strip.lines:
            return {}
        line = strip.absence(self.line)
        if len(ends) == 1 and self._calm(line, float(ends[0]), floor):
            return {}
        view = View(ends, self.windows, floor)
        observed, mean = view.count(line), view.least(line.low)
        gate: Bools = (observed <= self.factor * mean) & (mean - observed >= self.least)
        if not gate.any():
            return {}
        gate &= view.recent(line) <= STILL * view.recent_least(line.low)
        variance = view.variance(line, mean, line.dispersion.down)
        limits = needed(self.sensitivity, self.shift, view.windows)
        return signals(self.name, "down", view, observed, mean, variance, limits, gate)

    def _calm(self, line: Line, end: float, floor: float) -> bool:
        """Whether no window can be a signal: its mean is never above this one, its variance never below the mean."""
        for start, top in spans(end, self.windows, floor):
            observed, mean = total(line.count, start, top), total(line.low[0], start, end)
            below = mean - observed
            if observed <= self.factor * mean and below >= self.least and distant(below, mean, "down"):
                return False
        return True

    def gone(self, strip: Strip, ends: Floats, bins: int) -> Bools:
        """Whether the newest `bins` are back to normal, by tick."""
        view = View(ends, (bins,))
        line = strip.absence(self.line)
        observed, mean = view.count(line), view.least(line.low)
        found: Bools = (observed > STILL * mean) & (observed >= 1)
        return np.asarray(found[0])

    def curve(self, strip: Strip, start: int, end: int) -> tuple[Floats, Floats]:
        """Counts and expectations by bin, to find where it began."""
        line = strip.absence(self.line)
        return line.counts[start:end], np.diff(line.mid[0, start : end + 1])
