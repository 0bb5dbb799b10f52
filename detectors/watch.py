"""One account as it is watched: its counts of the last days, what was learnt, what is open. Fed with buckets, asked by
the minute. It reads no clock, and memory does not grow with what it was fed.

Live, the same parts lie in the store between two evaluations; a backtest holds them here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import msgspec
import numpy as np
from msgspec import Struct

from billingwatch.model import Bucket, Incident, Reason, Tenant
from detectors.almanac import Almanac, nights
from detectors.catalogue import SILENCE
from detectors.forecast import DAY, HOUR, Forecast, draw
from detectors.incident import Scene, tell
from detectors.judgement import Spans, run
from detectors.life import TOGETHER, Change, Life, forget
from detectors.pulse import untold
from detectors.registry import Plan
from detectors.sheet import Sheet
from detectors.strip import BIN, Strip

MINUTE = 60
SPARE = 96  # hours of room: the sheet slides when it is used up
KEPT = 61 * 86_400  # seconds that spans are remembered: as long as an almanac reaches back


class Told(Struct, frozen=True):
    """An incident as it is from `at` on (epoch seconds); `reason` is what people are told, None where nothing."""

    at: int
    incident: Incident
    reason: Reason | None


class Watch:
    """`since` is the account's first UTC hour since the epoch; `expected` are spans that people announced.

    `affected(detector, start, end)` counts customers, where somebody knows them. `observe(hour, strip)` sees each
    hour as it was judged, when it is over.
    """

    def __init__(
        self,
        tenant: Tenant,
        plan: Plan,
        since: int,
        *,
        expected: Spans = (),
        affected: Callable[[str, int, int], int] = lambda detector, start, end: 0,
        observe: Callable[[int, Strip], None] | None = None,
    ) -> None:
        self.tenant = tenant
        self.plan = plan
        self.since = since
        self.life = Life()
        self.sheet = Sheet(plan.lines, since - plan.back, plan.back + SPARE)
        self.almanac = Almanac(plan.calendar, since)
        self.forecast = Forecast()
        self._expected = expected
        self._affected = affected
        self._observe = observe
        self._told: dict[int, Incident] = {}
        self._strip: Strip | None = None
        self._hour = since
        self._newest = self._received = since * HOUR

    def add(self, buckets: Iterable[Bucket]) -> None:
        """Count what 5-minute buckets grew by. What is older than the sheet is history that was judged already."""
        for bucket in buckets:
            if bucket.grain * MINUTE == BIN:
                self.sheet.add(
                    bucket.metric, bucket.stratum, bucket.currency, bucket.start, bucket.count, bucket.amount
                )

    def arrive(self, received: int, created: int) -> None:
        """An event was seen for the first time; epoch seconds."""
        self._newest = max(self._newest, min(created, received))
        self._received = max(self._received, received)

    def judge(self, first: int, last: int) -> list[Told]:
        """Judge at every full minute from `first` to `last`, epoch seconds, with what was counted so far."""
        told: list[Told] = []
        while first <= last:
            end = min(last, (first // HOUR + 1) * HOUR - MINUTE)
            self._turn(first // HOUR)
            settled = self._settled(first, end)
            if settled > first:
                told += self._minutes(first, settled - MINUTE, backlog=True)
            if settled <= end:
                told += self._minutes(settled, end)
            first = end + MINUTE
        return told

    def lasting(self, at: int) -> list[Told]:
        """What is open, as it is at this instant."""
        scene = self._scene()
        parts = {number: self.life.parts(number) for number in sorted(self._told)}
        return [
            Told(at, tell(self._told[number], here, [], at, scene)[0], None) for number, here in parts.items() if here
        ]

    def _settled(self, first: int, last: int) -> int:
        """The first minute from which on absence means something."""
        while first <= last and untold(first, self._newest, self._received, self.plan.settle):
            first += MINUTE
        return first

    def _minutes(self, first: int, last: int, backlog: bool = False) -> list[Told]:
        strip = self._strip = self._strip or self._draw()
        for name in self.sheet.changed:
            if name not in strip.lines:  # the first money in a currency
                strip = self._strip = self._draw()
                break
            strip.lines[name].put(self.sheet.bins[name][: len(strip.lines[name].counts)])
        self.sheet.changed.clear()
        ticks = np.arange(first, last + 1, MINUTE, dtype=np.int64)
        watermark = np.minimum(ticks, self._newest)
        silence = self.plan.silence if SILENCE.line in self.forecast.lines else None
        before = self.life
        self.life, changes = run(
            strip,
            ticks,
            watermark,
            self.life,
            self.plan.detectors,
            silence,
            backlog=backlog,
            expected=self._expected,
        )
        if self.life.spent != before.spent:
            self._strip = None
        return [told for at, each in _by_instant(changes).items() for told in self._tell(at, each)]

    def _tell(self, at: int, changes: list[Change]) -> list[Told]:
        """The incidents that these changes of one instant concern, as they are now."""
        scene, told = self._scene(), []
        for number in sorted({change.part.incident for change in changes}):
            here = [change for change in changes if change.part.incident == number]
            incident, reason = tell(self._told.get(number), here[-1].parts, here, at, scene)
            if reason in ("first", "worse"):
                customers = self._affected(incident.detector, int(incident.first_breach_at.timestamp()), at)
                incident = msgspec.structs.replace(incident, customers=max(incident.customers, customers))
            self._told[number] = incident
            told.append(Told(at, incident, reason))
        for number in [n for n, each in self._told.items() if _over(each, at)]:
            del self._told[number]
        return told

    def _scene(self) -> Scene:
        return Scene(self.tenant, self.plan.judges, self.plan.lines, self.sheet, self.forecast.units)

    def _draw(self) -> Strip:
        return draw(
            self.forecast, self.sheet, self.plan.calendar, self._hour, since=self.since, left_out=self.life.spent
        )

    def _turn(self, hour: int) -> None:
        """The hours before this one are over; each local midnight closes a day."""
        due = nights(self.plan.calendar, self.since, self._hour, hour)
        while self._hour < hour:
            if self._observe:
                self._observe(self._hour, self._strip or self._draw())
            self._hour += 1
            self._strip = None
            if self._hour in due:
                self.learn(self._hour)
            if self._hour - self.sheet.first >= self.plan.back + SPARE:
                self.sheet.slide(self._hour - self.plan.back - DAY)
                self.life = forget(self.life, self._hour * HOUR - KEPT)

    def learn(self, hour: int) -> None:
        """Learn from all that ended before `hour`; what is open now is left out."""
        running = tuple((part.onset, hour * HOUR) for part in self.life.open.values())
        self.forecast = self.almanac.close(hour, self.sheet, self.life.spent + running, self._expected)


def _by_instant(changes: Iterable[Change]) -> dict[int, list[Change]]:
    found: dict[int, list[Change]] = defaultdict(list)
    for change in changes:
        found[change.at].append(change)
    return found


def _over(incident: Incident, at: int) -> bool:
    """Whether nothing can open it again."""
    return incident.resolved_at is not None and at - incident.resolved_at.timestamp() > TOGETHER + HOUR
