"""Whether BillingWatch itself is well: from what was measured to incidents of its own. Pure.

Each threshold has a second, easier one for recovery, and each of the two must last: nothing flaps. What could not be
measured is neither a breach nor a recovery.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from billingwatch.model import OWN, SEVERITIES, Incident, Reason, Severity
from detectors.words import span

MERGE = timedelta(minutes=15)  # a breach so soon after the end is the same incident again
GAP = timedelta(minutes=1)  # without a look; what was seen before proves nothing of the time between
WORSE = 2.0  # times what people were told
EVENTS = "events"

Key = tuple[str, str]  # detector, scope


class ChannelVitals(Struct, frozen=True, kw_only=True):
    """How a channel does: since when nothing arrived, whether trying again is of no use, whether it is left alone."""

    failing_since: datetime | None = None
    permanent: bool = False
    resting: bool = False  # its breaker is open
    broken: str = ""  # why people are told of it on the other channels


class Vitals(Struct, frozen=True, kw_only=True):
    """What was measured at one instant. None where nobody knows; of a Redis that is away nothing is known."""

    waiting: float | None = None  # seconds that the oldest queued event has waited; 0 where none waits
    depth: int = 0  # jobs in the events queue, each a batch of events
    workers: dict[str, int] = {}  # live ones by queue
    gone: dict[str, float] = {}  # seconds since each queue last had one; 0 while it has
    quarantined: int = 0  # rows
    quarantined_lately: int = 0  # of them added within the last hour
    disk: float | None = None  # used share of the file system of the data folder
    database: int = 0  # bytes
    redis_memory: float | None = None  # used share of maxmemory; None where no limit is set
    redis_evicted: int = 0  # keys since the last look
    redis_away: float = 0.0  # seconds since Redis last answered; 0 while it does
    channels: dict[str, ChannelVitals] = {}
    undelivered: float = 0.0  # seconds that the alert that is due for longest has been due; 0 where none is


class Reading(Struct, frozen=True):
    """One number that a threshold is held against, of the queue (or channel) `scope`, and a sentence to act on."""

    scope: str
    observed: float
    why: str


class Threshold(Struct, frozen=True, kw_only=True):
    """Breached above `limit`, over at `clear` or below; in between it goes on as it was."""

    read: Callable[[Vitals], Iterator[Reading]]
    limit: float
    clear: float
    hold: timedelta  # breached for so long on end, before it is told
    recovery: timedelta  # clear for so long on end, before it is over
    severities: tuple[tuple[float, Severity], ...]  # (from this number on, so severe), ascending
    step: float = float("inf")  # "worse" is the double, and by this much

    def severity(self, observed: float) -> Severity:
        return [name for least, name in self.severities if observed >= least][-1]


class Verdict(Struct, frozen=True):
    """One reading held against its threshold."""

    detector: str
    reading: Reading
    threshold: Threshold

    @property
    def key(self) -> Key:
        return self.detector, self.reading.scope

    @property
    def breached(self) -> bool:
        return self.reading.observed > self.threshold.limit

    @property
    def clear(self) -> bool:
        return self.reading.observed <= self.threshold.clear


def _pipeline_lag(vitals: Vitals) -> Iterator[Reading]:
    if vitals.waiting is None:
        return
    batches = f"{vitals.depth:,} batch{'' if vitals.depth == 1 else 'es'}"
    busy = vitals.workers.get(EVENTS, 0)
    do = (
        f"{busy} `worker events` {'is' if busy == 1 else 'are'} at it: start more, or look what slows Postgres down"
        if busy
        else "is `worker events` running?"
    )
    yield Reading("", vitals.waiting, f"events have waited for {_time(vitals.waiting)} in the queue ({batches}); {do}")


_IDLE = {
    EVENTS: "nothing is stored",
    "evaluate": "nothing is judged",
    "alerts": "nobody is told of anything",
}


def _worker_missing(vitals: Vitals) -> Iterator[Reading]:
    for queue, seconds in sorted(vitals.gone.items()):
        what = _IDLE.get(queue, "its jobs wait")
        yield Reading(queue, seconds, f"no `worker {queue}` has run for {_time(seconds)}, so {what}; start one")


def _quarantine_growing(vitals: Vitals) -> Iterator[Reading]:
    lately, held = vitals.quarantined_lately, vitals.quarantined
    what = f"{lately:,} event{'' if lately == 1 else 's'} could not be stored within the last hour"
    yield Reading("", lately, f"{what} ({held:,} held in all); `billingwatch quarantine list` says why")


def _disk_high(vitals: Vitals) -> Iterator[Reading]:
    if vitals.disk is not None:
        full = f"the disk of the data folder is {_percent(vitals.disk)} full"
        yield Reading("", vitals.disk, f"{full} (the database has {_bytes(vitals.database)}); make room or grow it")


def _redis_high(vitals: Vitals) -> Iterator[Reading]:
    if vitals.redis_memory is not None:
        full = f"Redis uses {_percent(vitals.redis_memory)} of maxmemory; at 70 % webhooks are refused"
        batches = f"{vitals.depth:,} batches wait"
        yield Reading("", vitals.redis_memory, f"{full} ({batches}): is `worker events` keeping up, or raise maxmemory")


def _redis_evicting(vitals: Vitals) -> Iterator[Reading]:
    if not vitals.redis_away:
        keys = f"Redis threw away {vitals.redis_evicted:,} keys to make room, which may be acknowledged events"
        yield Reading("", vitals.redis_evicted, f"{keys}; set maxmemory-policy noeviction")


def _redis_away(vitals: Vitals) -> Iterator[Reading]:
    seconds = vitals.redis_away
    yield Reading("", seconds, f"Redis has not answered for {_time(seconds)}: webhooks are refused; is it running?")


def _alerts_overdue(vitals: Vitals) -> Iterator[Reading]:
    seconds = vitals.undelivered
    do = "does `worker alerts` log `lane_failed`, or is one channel too slow for all it is sent?"
    yield Reading("", seconds, f"an alert has been due for {_time(seconds)}, and was neither sent nor put off; {do}")


# `channel_broken` is not here: who delivers sees it first, and raises it.
THRESHOLDS = {
    "pipeline_lag": Threshold(
        read=_pipeline_lag,
        limit=60,
        clear=15,
        hold=timedelta(seconds=60),
        recovery=timedelta(minutes=2),
        severities=((0, "medium"), (300, "high"), (1800, "critical")),
        step=120,
    ),
    "worker_missing": Threshold(
        read=_worker_missing,
        limit=30,
        clear=0,
        hold=timedelta(seconds=30),
        recovery=timedelta(minutes=1),
        severities=((0, "high"), (300, "critical")),
    ),
    "alerts_overdue": Threshold(
        read=_alerts_overdue,
        limit=300,
        clear=30,
        hold=timedelta(seconds=30),
        recovery=timedelta(minutes=2),
        severities=((0, "high"), (1800, "critical")),
    ),
    "quarantine_growing": Threshold(
        read=_quarantine_growing,
        limit=0,
        clear=0,
        hold=timedelta(),
        recovery=timedelta(minutes=10),
        severities=((0, "low"), (10, "medium"), (100, "high")),
        step=10,
    ),
    "disk_high": Threshold(
        read=_disk_high,
        limit=0.85,
        clear=0.80,
        hold=timedelta(minutes=1),
        recovery=timedelta(minutes=5),
        severities=((0, "high"), (0.95, "critical")),
    ),
    "redis_high": Threshold(
        read=_redis_high,
        limit=0.55,
        clear=0.45,
        hold=timedelta(seconds=30),
        recovery=timedelta(minutes=5),
        severities=((0, "high"), (0.70, "critical")),
    ),
    "redis_evicting": Threshold(
        read=_redis_evicting,
        limit=0,
        clear=0,
        hold=timedelta(),
        recovery=timedelta(minutes=10),
        severities=((0, "critical"),),
    ),
    "redis_away": Threshold(
        read=_redis_away,
        limit=10,
        clear=0,
        hold=timedelta(seconds=20),
        recovery=timedelta(minutes=1),
        severities=((0, "critical"),),
    ),
}


class Memory(Struct, frozen=True):
    """Since when what is not told yet is breached, and when that was last looked at."""

    since: dict[Key, datetime] = {}
    looked: datetime | None = None


class Change(Struct, frozen=True):
    """An incident as it is from now on, as it was `before`, None where it is new; `reason` is what is told of it."""

    before: Incident | None
    incident: Incident
    reason: Reason | None


def judge(vitals: Vitals) -> list[Verdict]:
    return [Verdict(name, each, threshold) for name, threshold in THRESHOLDS.items() for each in threshold.read(vitals)]


def step(
    known: Sequence[Incident], verdicts: Sequence[Verdict], memory: Memory, at: datetime
) -> tuple[Memory, list[Change]]:
    """What the verdicts of the instant `at` change in the incidents `known`: those open, and those that just ended."""
    fresh = memory.looked is not None and at - memory.looked <= GAP
    pending, since = (memory.since if fresh else {}), {}
    unresolved = {(each.detector, each.scope): each for each in known if each.state != "resolved"}
    ended = {
        (each.detector, each.scope): each
        for each in sorted(known, key=lambda each: each.resolved_at or at)
        if each.resolved_at is not None and at - each.resolved_at <= MERGE
    }
    changes = []
    for verdict in verdicts:
        before = unresolved.get(verdict.key)
        if before is not None:
            changes.append(_goes_on(before, verdict, at, fresh))
        elif verdict.breached:
            began = pending.get(verdict.key, at)
            change = _begins(ended.get(verdict.key), verdict, began, at)
            if at - began >= verdict.threshold.hold and change:
                changes.append(change)
            else:
                since[verdict.key] = began
    return Memory(since, at), [each for each in changes if each.incident != each.before]


def _begins(ended: Incident | None, verdict: Verdict, began: datetime, at: datetime) -> Change | None:
    made = incident(
        verdict.detector,
        verdict.reading.scope,
        verdict.threshold.severity(verdict.reading.observed),
        verdict.reading.observed,
        verdict.threshold.limit,
        verdict.reading.why,
        at,
        began=began,
        window=int(verdict.threshold.hold.total_seconds()),
    )
    return opens(ended, made)


def opens(ended: Incident | None, made: Incident) -> Change | None:
    """What begins, as the one that `ended` lately where there is one; None where a person said that it is over."""
    if ended is None:
        return Change(None, made, "first")
    if ended.clear_since is None and SEVERITIES.index(made.severity) <= SEVERITIES.index(ended.severity):
        return None
    kept = {"id": ended.id, "opened_at": ended.opened_at, "first_breach_at": ended.first_breach_at}
    return Change(ended, replace(made, peak=max(ended.peak, made.peak), **kept), "first")


def _goes_on(before: Incident, verdict: Verdict, at: datetime, fresh: bool) -> Change:
    threshold, observed = verdict.threshold, verdict.reading.observed
    if verdict.breached:
        after = worsened(before, threshold.severity(observed), observed, verdict.reading.why, at)
        told = before.told
        grown = observed >= WORSE * told and observed - told >= threshold.step
        if after.severity != before.severity or grown:
            return Change(before, replace(after, told=observed), "worse")
        return Change(before, after, None)
    # A recovery that nobody watched begins when somebody looks again.
    since = (before.clear_since if fresh else None) or at
    after = replace(before, observed=observed, clear_since=since if verdict.clear else None)
    if verdict.clear and at - since >= threshold.recovery:
        return Change(before, replace(after, state="resolved", resolved_at=at), "resolved")
    return Change(before, after, None)


def incident(
    detector: str,
    scope: str,
    severity: Severity,
    observed: float,
    limit: float,
    why: str,
    at: datetime,
    *,
    began: datetime,
    window: int = 0,
) -> Incident:
    """An incident about BillingWatch itself, that people are told of at `at`."""
    return Incident(
        tenant=OWN,
        detector=detector,
        metric=detector,
        scope=scope,
        severity=severity,
        opened_at=at,
        first_breach_at=began,
        last_breach_at=at,
        observed=observed,
        expected=0.0,
        limit=limit,
        peak=observed,
        told=observed,
        window=window,
        why=why,
    )


def worsened(before: Incident, severity: Severity, observed: float, why: str, at: datetime) -> Incident:
    """The incident that is breached at `at`: never less severe than it was."""
    return replace(
        before,
        severity=max(before.severity, severity, key=SEVERITIES.index),
        observed=observed,
        peak=max(before.peak, observed),
        last_breach_at=at,
        clear_since=None,
        why=why,
    )


def _time(seconds: float) -> str:
    return span(int(seconds))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
