"""A rule that a user writes: a window of any line against a factor of its own average, and a constant.

It knows no rhythm and no chance: what it compares can be worked out on paper, and it is as wrong as that is.
"""

from typing import Literal

import numpy as np
from msgspec import Struct

from billingwatch.model import Severity
from detectors.calendar import Bools, Floats
from detectors.signal import Side, Signal
from detectors.strip import Line, Strip, View

HOUR, DAY = 12, 288  # bins


class Threshold(Struct, frozen=True, forbid_unknown_fields=True):
    """A signal when the window's count is above (or below) `factor` times the average of `past`, plus `plus`.

    The average is that of windows of the same length just before this one, within what is known of the account: a
    day, or `past` where that is less, must be. `least` is the smallest count that can be too much, or the smallest
    average that can be missed.
    """

    name: str
    line: str
    window: int = 12  # bins
    factor: float = 3.0
    plus: float = 1.0
    past: int = 2016  # bins
    compare: Literal["above", "below"] = "above"
    least: float = 0.0
    severity: Severity = "medium"
    currency: str = ""  # where its money is summed, in minor units, instead of events counted

    @property
    def side(self) -> Side:
        return "up" if self.compare == "above" else "down"

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0) -> dict[int, Signal]:
        """The signals by tick."""
        if self.line not in strip.lines:
            return {}
        view = View(ends, (self.window,), floor)
        now, average, hit = self._judge(strip, view)
        ticks = np.nonzero(hit & view.valid[0])[0].tolist()
        line, born = strip.lines[self.line], _born(strip)
        return {
            tick: Signal(
                detector=self.name,
                side=self.side,
                window=self.window,
                start=float(view.start[0, tick]),
                end=float(ends[tick]),
                observed=float(now[tick]),
                expected=float(average[tick]),
                sd=self._spread(line, max(born, int(view.start[0, tick]) - self.past), int(view.start[0, tick])),
                score=0.0,
                needed=0.0,
                scope=self.currency,
            )
            for tick in ticks
        }

    def gone(self, strip: Strip, ends: Floats, bins: int) -> Bools:
        """Whether the rule no longer holds, by tick; it is asked of its own window, however long the incident's."""
        if self.line not in strip.lines:
            return np.ones(len(ends), np.bool_)
        return ~self._judge(strip, View(ends, (self.window,)))[2]

    def curve(self, strip: Strip, start: int, end: int) -> tuple[Floats, Floats]:
        """Counts and their average by bin."""
        counts = strip.lines[self.line].counts
        past = counts[max(_born(strip), start - self.past) : start]
        return counts[start:end], np.full(end - start, float(past.mean()) if len(past) else 0.0)

    def _judge(self, strip: Strip, view: View) -> tuple[Floats, Floats, Bools]:
        """By tick: the window's count, the average of such windows before, and whether the rule holds."""
        line, start = strip.lines[self.line], view.start[0]
        now = view.count(line)[0]
        before = np.minimum(np.maximum(start - self.past, _born(strip)), start)
        known = start - before
        # What is still to come of the running bin is missed by nobody; of too much nothing is taken away for it.
        length = (view.top if self.compare == "above" else view.ends) - start
        average = (line.count[start] - line.count[before]) * length / np.maximum(known, 1)
        limit = self.factor * average + self.plus
        above = self.compare == "above"
        hit = (now > limit) & (now >= self.least) if above else (now < limit) & (average >= self.least)
        enough = self.factor == 0 or known >= min(DAY, self.past)
        return now, average, np.asarray(hit & enough)

    def _spread(self, line: Line, before: int, start: int) -> float:
        """How far windows of the past lie apart; by chance alone where there are fewer than two."""
        past = line.counts[before:start]
        whole = past[len(past) % self.window :].reshape(-1, self.window).sum(1)
        return float(whole.std() if len(whole) > 1 else past.sum() ** 0.5)


def _born(strip: Strip) -> int:
    """The bin in which the account's first hour begins, or 0: counts before it are of nobody."""
    return max(0, len(strip.mask) - HOUR - round(strip.age * DAY))
