"""Judge one account at a run of instants: every detector on one strip, every signal through one life.

Live a run is one instant; a backtest hands in as many as see the same counts.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec
import numpy as np

from billingwatch.model import Severity
from detectors.calendar import Bools, Floats, Ints
from detectors.life import SILENCE, Change, Life, span, step
from detectors.pulse import DOUBT, WebhookSilence
from detectors.signal import Side, Signal, onset
from detectors.strip import BIN, Strip

Spans = tuple[tuple[int, int], ...]


class Detector(Protocol):
    """A frozen struct of thresholds: signals and recoveries by tick, and the curve in which an onset is sought."""

    @property
    def name(self) -> str: ...

    @property
    def side(self) -> Side:
        """Whether it looks for too much or for too little."""

    @property
    def severity(self) -> Severity:
        """The least that its incidents have."""

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0, /) -> dict[int, Signal]: ...

    def gone(self, strip: Strip, ends: Floats, bins: int, /) -> Bools: ...

    def curve(self, strip: Strip, start: int, end: int, /) -> tuple[Floats, Floats]: ...


class _Run:
    """One strip and its ticks: what each detector says of them, looked at again where an incident changed that."""

    def __init__(
        self,
        strip: Strip,
        ticks: Ints,
        watermark: Ints,
        detectors: Mapping[str, Detector],
        silence: WebhookSilence | None,
        consumed: int,
    ) -> None:
        self.strip, self.detectors, self.silence, self.consumed = strip, detectors, silence, consumed
        self.ends = (ticks - strip.start) / BIN
        self.watermark = np.clip((watermark - strip.start) / BIN, 0.0, self.ends)
        self.delivered = self.ends
        if silence:
            score, _, _ = silence.scores(strip, self.ends, self.watermark)
            self.delivered = np.where(score >= DOUBT, self.watermark, self.ends)

    def ends_of(self, name: str) -> Floats:
        return self.delivered if self.detectors[name].side == "down" else self.ends

    def scan(self, name: str, life: Life, first: int) -> dict[int, Signal]:
        """The detector's signals from tick `first` on."""
        if name == SILENCE and self.silence:
            found = self.silence.scan(self.strip, self.ends[first:], self.watermark[first:])
        else:
            floor = self.strip.position(max(life.floors.get(name, 0), self.consumed))
            found = self.detectors[name].scan(self.strip, self.ends_of(name)[first:], max(0.0, floor))
        return {tick + first: self._dated(signal) for tick, signal in found.items()}

    def _dated(self, signal: Signal) -> Signal:
        """The signal with instants, epoch seconds, in place of the strip's positions."""
        start, end = (self.strip.start + place * BIN for place in (signal.start, signal.end))
        return msgspec.structs.replace(signal, start=start, end=end)

    def gone(self, name: str, life: Life, first: int) -> Bools:
        """By tick from `first` on, as if for all of them."""
        if name not in self.detectors and not (name == SILENCE and self.silence):
            tail = np.ones(len(self.ends) - first, np.bool_)  # switched off since it opened
        elif name == SILENCE and self.silence:
            tail = self.silence.gone(self.strip, self.ends[first:], self.watermark[first:])
        else:
            tail = self.detectors[name].gone(self.strip, self.ends_of(name)[first:], span(life.open[name]))
        return np.concatenate([np.zeros(first, np.bool_), tail])

    def onset(self, name: str, signal: Signal) -> int:
        """Epoch seconds in which the signal's steepest run began."""
        begin, end = int(self.strip.position(signal.start)), int(np.ceil(self.strip.position(signal.end) - 1e-9))
        if name not in self.detectors or end <= begin:
            return int(signal.start)
        observed, expected = self.detectors[name].curve(self.strip, begin, end)
        return self.strip.start + (begin + onset(observed, expected, signal.side)) * BIN


def run(
    strip: Strip,
    ticks: Ints,
    watermark: Ints,
    life: Life,
    detectors: Mapping[str, Detector],
    silence: WebhookSilence | None = None,
    *,
    backlog: bool = False,
    expected: Spans = (),
) -> tuple[Life, list[Change]]:
    """Judge at `ticks` (epoch seconds, ascending), where `watermark` is the newest event's `created` at each.

    `backlog` says that our own queue is behind. In `expected` spans, epoch seconds, nothing opens, and what they held
    is no evidence afterwards.
    """
    names = [*([SILENCE] if silence else []), *detectors]
    consumed = max((end for _, end in expected if end <= int(ticks[-1])), default=0)
    for start, end in life.hidden:
        strip.hide(strip.position(start), strip.position(end))
    here = _Run(strip, ticks, watermark, detectors, silence, consumed)
    hits = {name: here.scan(name, life, 0) for name in names}
    gone = {name: here.gone(name, life, 0) for name in life.open}
    changes: list[Change] = []
    tick = 0
    while tick < len(ticks):
        if not life.open:
            tick = min((t for each in hits.values() for t in each if t >= tick), default=len(ticks))
            if tick == len(ticks):
                break
        signals = {name: each[tick] for name, each in hits.items() if tick in each}
        over = {name for name, each in gone.items() if each[tick]}
        onsets = {name: here.onset(name, signal) for name, signal in signals.items() if name not in life.open}
        at = int(ticks[tick])
        announced = any(start <= at < end for start, end in expected)
        life, changed = step(life, at, signals, over, onsets, backlog=backlog, expected=announced)
        changes += changed
        for change in changed:
            name = change.detector
            if change.reason in ("first", "joined", "reopened") and tick + 1 < len(ticks):
                gone[name] = here.gone(name, life, tick + 1)
            elif change.reason in ("eased", "resolved"):
                gone.pop(name, None)
                if tick + 1 < len(ticks):
                    hits[name] = here.scan(name, life, tick + 1)
                if name == SILENCE:
                    start, end = life.hidden[-1]
                    strip.hide(strip.position(start), strip.position(end))
                    if tick + 1 < len(ticks):
                        hits |= {
                            each: here.scan(each, life, tick + 1) for each, by in detectors.items() if by.side == "down"
                        }
        tick += 1
    return life, changes
