"""One account as it is watched: its counts of the last days, its almanac, what is open. Fed with buckets, asked by the
minute. It reads no clock, and memory does not grow with what it was fed.
"""

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from billingwatch.model import Bucket
from detectors import catalogue
from detectors.almanac import AHEAD, BACK, HOUR, Almanac
from detectors.calendar import Calendar, Floats
from detectors.judgement import Detector, run
from detectors.life import Change, Life
from detectors.strip import BIN, Strip

ARRIVED, LATE = "arrived", "late"
TARDY, STALE = 300, 6 * 3600  # seconds between `created` and arrival: late from, too old for lag from: a replay
LEARN = 72  # hours of an incident that are left out; what lasts longer is the new normal
NEW = 7 * 24  # hours
SIZE = (BACK + AHEAD) * 12  # bins


class Watch:
    """`since` is the account's first UTC hour since the epoch."""

    def __init__(self, calendar: Calendar, since: int, detectors: Mapping[str, Detector] = catalogue.DETECTORS) -> None:
        self.since = since
        self.life = Life()
        self._detectors = detectors
        self._almanac = Almanac(
            calendar,
            since,
            forecast=catalogue.FORECAST,
            plain=[name for name in catalogue.LINES if name not in catalogue.FORECAST],
            guard=catalogue.GUARD,
            prior=catalogue.PRIOR,
            raw=catalogue.RAW,
        )
        self._first = since - BACK  # the hour that the bins begin with
        self._bins: dict[str, Floats] = {name: np.zeros(SIZE) for name in (*catalogue.LINES, ARRIVED, LATE)}
        self._changed: set[str] = set()
        self._strip: Strip | None = None
        self._hour = since
        self._newest = since * HOUR

    def add(self, buckets: Iterable[Bucket]) -> None:
        """Count what 5-minute buckets grew by. What is older than the strip is history that was judged already."""
        for bucket in buckets:
            place = bucket.start // BIN - self._first * 12
            if bucket.grain != BIN // 60 or not 0 <= place < SIZE:
                continue
            for name in _LINES_OF.get((bucket.metric, bucket.stratum), _LINES_OF.get((bucket.metric, "*"), ())):
                self._bins[name][place] += bucket.count
                self._changed.add(name)

    def arrive(self, received: int, created: int) -> None:
        """A business object was told for the first time; instants in epoch seconds."""
        place = received // BIN - self._first * 12
        if 0 <= place < SIZE:
            self._bins[ARRIVED][place] += 1
            self._bins[LATE][place] += TARDY < received - created <= STALE
            self._changed |= {ARRIVED, LATE}
        self._newest = max(self._newest, min(created, received))

    def judge(self, first: int, last: int) -> list[Change]:
        """Judge at every full minute from `first` to `last`, epoch seconds, with what was counted so far."""
        changes: list[Change] = []
        while first <= last:
            end = min(last, (first // HOUR + 1) * HOUR - 60)
            self._turn(first // HOUR)
            changes += self._minutes(first, end)
            first = end + 60
        return changes

    def _minutes(self, first: int, last: int) -> list[Change]:
        strip = self._strip or self._build()
        for name in self._changed:
            strip.lines[name].put(self._bins[name][: len(strip.lines[name].counts)])
        self._changed.clear()
        ticks = np.arange(first, last + 1, 60, dtype=np.int64)
        watermark = np.minimum(ticks, self._newest)
        silence = catalogue.SILENCE if "any" in self._almanac.baselines else None
        self.life, changes = run(strip, ticks, watermark, self.life, self._detectors, silence)
        for change in changes:
            if change.reason in ("eased", "resolved"):
                self._leave_out(change.part.onset, change.at)
        return changes

    def _build(self) -> Strip:
        length = (self._hour - self._first + 1) * 12
        age = (self._hour - self.since) / 24
        self._strip = self._almanac.strip(
            self._first, {name: each[:length].copy() for name, each in self._bins.items()}, age
        )
        return self._strip

    def _turn(self, hour: int) -> None:
        """The hours before this one are over: they enter the almanac, and each local midnight closes a day."""
        while self._hour < hour:
            self._hour += 1
            self._strip = None
            self._almanac.expose(self._hour - 1, self._hour)
            young = self._hour - self.since <= 7 * 24
            if self._almanac.calendar.local(np.array([self._hour]))[0] % 24 == 0 or (young and self._hour % 6 == 0):
                self._record()
                for part in self.life.open.values():
                    self._leave_out(part.onset, self._hour * HOUR)
                self._almanac.night(self._hour)
            elif self._hour == hour:
                self._record()
            if self._hour - self._first > BACK + AHEAD - 2:
                self._slide(self._hour - BACK)

    def _record(self) -> None:
        """Tell the almanac the counts of the hours that the bins hold; late events change the past, too."""
        begin = max(self._first, self.since)
        rows = slice((begin - self._first) * 12, (self._hour - self._first) * 12)
        for name in catalogue.LINES:
            hours = self._bins[name][rows].reshape(-1, 12)
            self._almanac.count(name, begin, hours.sum(1), (hours**2).sum(1))

    def _slide(self, first: int) -> None:
        by = (first - self._first) * 12
        for counts in self._bins.values():
            counts[:-by] = counts[by:].copy()
            counts[-by:] = 0.0
        self._first = first
        hidden = tuple(span for span in self.life.hidden if span[1] >= first * HOUR)
        self.life = msgspec.structs.replace(self.life, hidden=hidden)

    def _leave_out(self, onset: int, end: int) -> None:
        begin = onset // HOUR
        if begin < self.since + NEW:
            return  # of an account's first week everything is needed, or what it mistakes for an incident stays one
        self._almanac.expose(begin, min(-(-end // HOUR), begin + LEARN), 0.0)


def _lines_of() -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    every = {
        metric: [n for n, s in catalogue.LINES.items() if metric in s.metrics and not s.strata] for metric in _METRICS
    }
    for metric in _METRICS:
        found[metric, "*"] = tuple(every[metric])
        for name, source in catalogue.LINES.items():
            for stratum in source.strata if metric in source.metrics else ():
                found[metric, stratum] = (*found.get((metric, stratum), tuple(every[metric])), name)
    return found


_METRICS = {metric for source in catalogue.LINES.values() for metric in source.metrics}
_LINES_OF = _lines_of()
