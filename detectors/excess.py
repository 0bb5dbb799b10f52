"""Too many of something: refunds, cancellations, disputes, small declines, double charges."""

import numpy as np
from msgspec import Struct

from billingwatch.model import Severity
from detectors.calendar import Bools, Floats
from detectors.signal import Side, Signal, distant, needed, signals, spans, total
from detectors.strip import Line, Strip, View

HOUR = 12  # bins
STILL = 1.3  # times the expectation: the effect lasts
YOUNG, PART = 7.0, 0.15  # days in which a part is taken for usual that no baseline tells yet
RECORD_DAYS = 14.0  # of history, before a record means something
UNHEARD_OF = 2.2  # the score that is enough far beyond any record
RARE = 0.02  # expected in any window of a metric that no baseline knows yet


class Excess(Struct, frozen=True, forbid_unknown_fields=True):
    """A signal when a window holds `factor` times the expected count, `least` more, and by no chance.

    Windows up to an hour are held against the high side of the plausible expectations, longer ones against the
    middle. With `reference` the expectation follows another line: times its rate (`share`), or lifted as that
    line is lifted.
    """

    name: str
    line: str
    windows: tuple[int, ...]  # bins
    factor: float
    least: float
    shift: float
    days: float  # of history before the first signal
    sensitivity: float = 7.2
    clusters: float = 12.0  # variance per mean at most: more than that is no nature of this line, but what is sought
    share_of: str = ""  # the line whose count, times the rate named like this line, is the expectation
    records: float = 0.0  # times the most of late that it must exceed: this line comes in bursts by nature
    beyond: float = 0.0  # times the most of late from which on little surprise is asked: such heaps never were
    part_of: str = ""  # the line of which, in a young account, it is taken to be a part
    lift_by: str = ""  # the line that lifts the expectation when it is itself above its own
    severity: Severity = "medium"

    @property
    def side(self) -> Side:
        return "up"

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0) -> dict[int, Signal]:
        """The signals by tick."""
        if strip.age < self.days or self.line not in strip.lines:
            return {}
        if len(ends) == 1 and self._calm(strip, float(ends[0]), floor):
            return {}
        view = View(ends, self.windows, floor)
        line = strip.lines[self.line]
        observed = view.count(line)
        gate: Bools = observed >= self.least
        if not gate.any():
            return {}
        mean, recent_mean, variance = self._expected(strip, view, line)
        gate &= (observed >= self.factor * mean) & (observed - mean >= self.least)
        gate &= view.recent(line) > STILL * recent_mean
        if self.records:
            gate &= observed > self.records * self._record(line)
        if not gate.any():
            return {}
        limits = needed(self.sensitivity, self.shift, view.windows)
        if self.beyond:
            far = (observed >= self.beyond * self._record(line)) & (observed - mean >= 2 * self.least)
            limits = np.where(far & (strip.age >= RECORD_DAYS), np.minimum(limits, UNHEARD_OF), limits)
        return signals(self.name, "up", view, observed, mean, variance, limits, gate)

    def gone(self, strip: Strip, ends: Floats, bins: int) -> Bools:
        """Whether the newest `bins` are back to normal, by tick."""
        view = View(ends, (bins,))
        line = strip.lines[self.line]
        observed = view.count(line)
        mean, _, variance = self._expected(strip, view, line)
        found: Bools = (observed < STILL * mean) | (observed <= mean + 2 * np.sqrt(variance))
        return np.asarray(found[0])

    def curve(self, strip: Strip, start: int, end: int) -> tuple[Floats, Floats]:
        """Counts and expectations by bin, to find where it began."""
        line = strip.lines[self.line]
        if self.share_of:
            return line.counts[start:end], strip.lines[self.share_of].counts[start:end] * strip.rates[self.line].share
        return line.counts[start:end], np.diff(line.mid[0, start : end + 1])

    def _calm(self, strip: Strip, end: float, floor: float) -> bool:
        """Whether no window can be a signal: its mean is never below this one, its variance never below the mean."""
        line = strip.lines[self.line]
        of = strip.lines[self.share_of] if self.share_of else None
        for window, (start, top) in zip(self.windows, spans(end, self.windows, floor), strict=True):
            observed = total(line.count, start, top)
            if observed < self.least:
                continue
            if of:
                mean = total(of.count, start, top) * strip.rates[self.line].share
            else:
                mean = total((line.high if window <= HOUR else line.mid)[0], start, end)
            above = observed - mean
            if observed >= self.factor * mean and above >= self.least and distant(above, mean, "up"):
                return False
        return True

    def _record(self, line: Line) -> Floats:
        """By window; a part of an hour is held against seven tenths of the fullest hour."""
        hour = line.records.get(HOUR, 0.0)
        found = [line.records.get(window, 0.0) if window >= HOUR else 0.7 * hour for window in self.windows]
        return np.array(found)[:, None]

    def _expected(self, strip: Strip, view: View, line: Line) -> tuple[Floats, Floats, Floats]:
        if self.share_of:
            rate, of = strip.rates[self.line], strip.lines[self.share_of]
            mean = view.count(of) * rate.share + RARE
            variance: Floats = line.dispersion.phi * mean + (rate.tau * mean) ** 2
            return mean, view.recent(of) * rate.share + RARE, variance
        short = view.windows <= HOUR
        mean = np.where(short, view.most(line.high), view.most(line.mid)) + RARE
        recent = np.where(short, view.recent_most(line.high), view.recent_most(line.mid)) + RARE
        if self.lift_by:
            other = strip.lines[self.lift_by]
            lift = np.clip(view.count(other) / np.maximum(view.most(other.mid), 1.0), 1.0, 10.0)
            mean, recent = mean * lift, recent * lift
        if self.part_of and strip.age < YOUNG:
            whole = strip.lines[self.part_of]
            mean = np.maximum(mean, PART * view.count(whole))
        variance = view.variance(line, mean, line.dispersion.up)
        variance = variance - max(0.0, line.dispersion.phi - self.clusters) * mean
        return mean, recent, variance
