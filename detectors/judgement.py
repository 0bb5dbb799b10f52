"""Judge one account at a run of instants: every detector on one strip, every signal through one life.

Live a run is one instant; a backtest hands in as many as see the same counts.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

import numpy as np

from detectors.calendar import Bools, Floats, Ints
from detectors.life import ABSENCE, SILENCE, Change, Life, span, step
from detectors.pulse import DOUBT, WebhookSilence
from detectors.signal import Signal, onset
from detectors.strip import BIN, Strip


class Detector(Protocol):
    """A frozen struct of thresholds: signals and recoveries by tick, and the curve in which an onset is sought."""

    @property
    def name(self) -> str: ...

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
    ) -> None:
        self.strip, self.detectors, self.silence = strip, detectors, silence
        self.ends = (ticks - strip.start) / BIN
        self.watermark = np.clip((watermark - strip.start) / BIN, 0.0, self.ends)
        self.delivered = self.ends
        if silence:
            score, _, _ = silence.scores(strip, self.ends, self.watermark)
            self.delivered = np.where(score >= DOUBT, self.watermark, self.ends)

    def ends_of(self, name: str) -> Floats:
        return self.delivered if name in ABSENCE else self.ends

    def scan(self, name: str, life: Life, first: int) -> dict[int, Signal]:
        """The detector's signals from tick `first` on."""
        if name == SILENCE and self.silence:
            found = self.silence.scan(self.strip, self.ends[first:], self.watermark[first:])
        else:
            floor = self.strip.position(life.floors[name]) if name in life.floors else 0.0
            found = self.detectors[name].scan(self.strip, self.ends_of(name)[first:], max(0.0, floor))
        return {tick + first: signal for tick, signal in found.items()}

    def gone(self, name: str, life: Life, first: int) -> Bools:
        """By tick from `first` on, as if for all of them."""
        if name == SILENCE and self.silence:
            tail = self.silence.gone(self.strip, self.ends[first:], self.watermark[first:])
        else:
            tail = self.detectors[name].gone(self.strip, self.ends_of(name)[first:], span(life.open[name]))
        return np.concatenate([np.zeros(first, np.bool_), tail])

    def onset(self, name: str, signal: Signal) -> int:
        """Epoch seconds in which the signal's steepest run began."""
        begin, end = int(signal.start), int(np.ceil(signal.end - 1e-9))
        if name not in self.detectors or end <= begin:
            return int(self.strip.start + signal.start * BIN)
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
    named: Collection[str] | None = None,
) -> tuple[Life, list[Change]]:
    """Judge at `ticks` (epoch seconds, ascending), where `watermark` is the newest event's `created` at each.

    `named` leaves out every other detector: nothing that they read has changed.
    """
    names = [*([SILENCE] if silence else []), *detectors]
    names = [name for name in names if named is None or name in named or name in life.open]
    for start, end in life.hidden:
        strip.hide(strip.position(start), strip.position(end))
    here = _Run(strip, ticks, watermark, detectors, silence)
    hits = {name: here.scan(name, life, 0) for name in names}
    gone = {name: here.gone(name, life, 0) for name in life.open if name in names}
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
        life, changed = step(life, int(ticks[tick]), signals, over, onsets, backlog=backlog)
        changes += changed
        for change in changed:
            name = change.detector
            if change.reason in ("first", "joined") and tick + 1 < len(ticks):
                gone[name] = here.gone(name, life, tick + 1)
            elif change.reason in ("eased", "resolved"):
                gone.pop(name, None)
                if tick + 1 < len(ticks):
                    hits[name] = here.scan(name, life, tick + 1)
                if name == SILENCE:
                    start, end = life.hidden[-1]
                    strip.hide(strip.position(start), strip.position(end))
                    if tick + 1 < len(ticks):
                        hits |= {each: here.scan(each, life, tick + 1) for each in names if each in ABSENCE}
        tick += 1
    return life, changes
