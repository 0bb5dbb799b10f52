"""A rule that a user writes: a window of any line against a factor of its own average, and a constant."""

from typing import Literal

import numpy as np
from msgspec import Struct

from detectors.calendar import Bools, Floats
from detectors.signal import Signal
from detectors.strip import Strip, View


class Threshold(Struct, frozen=True, forbid_unknown_fields=True):
    """A signal when the window's count is above (or below) `factor` times the average of `past`, plus `plus`.

    The average is that of windows of the same length. `least` is the smallest count that can be too much, or
    the smallest average that can be missed.
    """

    name: str
    line: str
    window: int = 12  # bins
    factor: float = 3.0
    plus: float = 1.0
    past: int = 2016  # bins
    compare: Literal["above", "below"] = "above"
    least: float = 0.0

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0) -> dict[int, Signal]:
        """The signals by tick."""
        view = View(ends, (self.window,), floor)
        now, average = self._compare(strip, view)
        limit = self.factor * average + self.plus
        above = self.compare == "above"
        hit = (now > limit) & (now >= self.least) if above else (now < limit) & (average >= self.least)
        return {
            tick: Signal(
                detector=self.name,
                side="up" if above else "down",
                window=self.window,
                start=float(view.start[0, tick]),
                end=float(ends[tick]),
                observed=float(now[tick]),
                expected=float(average[tick]),
                sd=float(average[tick]) ** 0.5,
                score=0.0,
                needed=0.0,
            )
            for tick in np.nonzero(hit & view.valid[0])[0].tolist()
        }

    def gone(self, strip: Strip, ends: Floats, bins: int) -> Bools:
        """Whether the rule no longer holds, by tick."""
        now, average = self._compare(strip, View(ends, (self.window,)))
        limit = self.factor * average + self.plus
        found: Bools = now <= limit if self.compare == "above" else now >= limit
        return found

    def curve(self, strip: Strip, start: int, end: int) -> tuple[Floats, Floats]:
        """Counts and their average by bin."""
        counts = strip.lines[self.line].counts
        past = counts[max(0, start - self.past) : start]
        return counts[start:end], np.full(end - start, float(past.mean()) if len(past) else 0.0)

    def _compare(self, strip: Strip, view: View) -> tuple[Floats, Floats]:
        line = strip.lines[self.line]
        before = np.maximum(view.start - self.past, 0)
        past = line.count[view.start] - line.count[before]
        average = past / np.maximum(view.start - before, 1) * self.window
        return view.count(line)[0], average[0]


ARTICLE = {f"{line}_surge": Threshold(f"{line}_surge", line) for line in ("failure", "refund", "dispute", "cancel")}
