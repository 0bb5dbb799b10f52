"""Is Stripe still delivering? Silence: nothing comes. Lag: what comes is late."""

import numpy as np
from msgspec import Struct

from billingwatch.model import Severity
from detectors.calendar import Bools, Floats
from detectors.signal import Side, Signal, signals, spans, total
from detectors.strip import Strip, View, at
from detectors.tail import silence

STALE = 6 * 3600  # seconds between `created` and arrival from which on it is no lag: a replay, an import
ANCIENT = 7 * 86_400  # seconds; nobody is told of a silence that is older
SETTLE = 600  # seconds
CLUSTERS = 1.05  # variance per mean of late arrivals
NAT = 0.4343  # of a score: each object that is missing, at most
DOUBT = 2.0  # a score of silence from which on absence ends at the newest event


def arriving(at: int, newest: int, received: int, settle: int = SETTLE) -> bool:
    """Whether an import is under way: the last arrival, a moment ago, was old when it came. All in epoch seconds:
    now, the newest event's `created`, the last arrival.
    """
    return received - newest > STALE and at - received < settle


def untold(at: int, newest: int, received: int, settle: int = SETTLE) -> bool:
    """Whether absence means nothing: the past is being told, or was told and nothing since."""
    return at - newest > ANCIENT or arriving(at, newest, received, settle)


class WebhookSilence(Struct, frozen=True, forbid_unknown_fields=True):
    """A signal when nothing was created since the watermark, and more than `least` objects should have been."""

    name: str = "webhook_silence"
    line: str = "any"
    least: float = 4.0
    score: float = 6.5
    settle: int = 600  # seconds without an arrival after an import, before silence is judged
    severity: Severity = "critical"

    def scores(self, strip: Strip, ends: Floats, watermark: Floats) -> tuple[Floats, Floats, Floats]:
        """By tick: the score, the objects expected since the watermark, their variance."""
        line = strip.lines[self.line]
        if len(ends) == 1:
            most = total(line.low[0], 0, float(ends[0])) - total(line.low[0], 0, float(watermark[0]))
            if most * NAT < min(DOUBT, self.score):  # no spread makes less surprise of it
                return np.zeros(1), np.full(1, most), np.full(1, most)
        mean = np.maximum((at(line.low, ends) - at(line.low, watermark)).min(0), 0.0)
        square = np.maximum(at(line.square, ends) - at(line.square, watermark), 0.0)
        spread = line.dispersion.down
        variance = line.dispersion.variance(mean, square, ends - watermark, spread) + line.error * mean * mean
        size = mean**2 / np.maximum(variance - mean, 1e-4 * mean + 1e-12)
        score: Floats = size * np.log10(1 + mean / np.maximum(size, 1e-12))
        return score, mean, variance

    def scan(self, strip: Strip, ends: Floats, watermark: Floats) -> dict[int, Signal]:
        """The signals by tick."""
        score, mean, variance = self.scores(strip, ends, watermark)
        found = {}
        for tick in np.nonzero((mean > self.least) & (score >= self.score))[0].tolist():
            expected, spread = float(mean[tick]), float(variance[tick])
            found[tick] = Signal(
                detector=self.name,
                side="down",
                window=max(1, int(np.ceil(ends[tick] - watermark[tick]))),
                start=float(watermark[tick]),
                end=float(ends[tick]),
                observed=0,
                expected=expected,
                sd=spread**0.5,
                score=silence(expected, max(spread, expected)),
                needed=self.score,
            )
        return found

    def gone(self, strip: Strip, ends: Floats, watermark: Floats) -> Bools:
        """Whether the newest event is young enough again, by tick."""
        score, mean, _ = self.scores(strip, ends, watermark)
        found: Bools = (score < DOUBT) | (mean < 1)
        return found


class WebhookLag(Struct, frozen=True, forbid_unknown_fields=True):
    """A signal when many of the first deliveries that arrived in a window were created long before."""

    name: str = "webhook_lag"
    line: str = "late"
    share_of: str = "arrived"
    windows: tuple[int, ...] = (1, 3, 6, 12)  # bins, of arrival
    least: float = 4.0
    factor: float = 0.2  # of the arrivals
    usual: float = 0.002
    score: float = 5.0
    severity: Severity = "medium"

    @property
    def side(self) -> Side:
        return "up"

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0) -> dict[int, Signal]:
        """The signals by tick."""
        if len(ends) == 1 and self._calm(strip, float(ends[0]), floor):
            return {}
        view = View(ends, self.windows, floor)
        late, arrived = view.count(strip.lines[self.line]), view.count(strip.lines[self.share_of])
        gate: Bools = (late >= self.least) & (late >= self.factor * arrived)
        gate &= view.recent(strip.lines[self.line]) >= 1
        if not gate.any():
            return {}
        mean = arrived * self.usual + 1e-3
        limits = np.full((len(self.windows), 1), self.score)
        return signals(self.name, "up", view, late, mean, mean * CLUSTERS, limits, gate, out_of=arrived)

    def _calm(self, strip: Strip, end: float, floor: float) -> bool:
        late, arrived = strip.lines[self.line].count, strip.lines[self.share_of].count
        for start, top in spans(end, self.windows, floor):
            some = total(late, start, top)
            if some >= self.least and some >= self.factor * total(arrived, start, top):
                return False
        return True

    def gone(self, strip: Strip, ends: Floats, bins: int) -> Bools:
        """Whether what arrives is on time again, by tick."""
        view = View(ends, (bins,))
        late, arrived = view.count(strip.lines[self.line]), view.count(strip.lines[self.share_of])
        found: Bools = (late < self.least) | (late < self.factor / 2 * arrived)
        return np.asarray(found[0])

    def curve(self, strip: Strip, start: int, end: int) -> tuple[Floats, Floats]:
        """Late and usually late arrivals by bin."""
        return strip.lines[self.line].counts[start:end], strip.lines[self.share_of].counts[start:end] * self.usual
