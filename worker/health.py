"""Look after BillingWatch itself: measure, open and end incidents of its own, stage what is told of them."""

import os
from datetime import datetime
from pathlib import Path

import structlog
from msgspec import Struct
from msgspec.structs import replace
from psycopg import Connection
from redis import Redis
from redis.exceptions import RedisError
from rq.utils import as_text, str_to_date

from billingwatch import queues
from billingwatch.model import OWN, Incident, Severity
from billingwatch.queues import EVENTS, Queue
from billingwatch.store import accounts, incidents
from billingwatch.store import vitals as store
from detectors import vitals as own
from detectors.vitals import MERGE, Change, ChannelVitals, Memory, Vitals
from notify import breaker
from notify.breaker import Outcome
from notify.policy import Policy
from worker.runner import WORKER_TTL
from worker.stage import stage

log = structlog.get_logger(__name__)

WHO = "billingwatch"  # in the incident log, where no person acted
CHANNEL_BROKEN = "channel_broken"
SILENT = 2 * WORKER_TTL  # seconds without a heartbeat; an idle worker sends one every half WORKER_TTL
_WORKERS = "rq:workers:{queue}"  # RQ's set of the keys of a queue's workers, the dead ones of the last minutes included


class Before(Struct, frozen=True):
    """What the last look left behind: when each queue last had a worker, Redis last answered, what it had evicted."""

    seen: dict[str, datetime] = {}
    answered: datetime | None = None
    evicted: int | None = None


class Health:
    """What the clock keeps between two rounds. When another clock takes over, every hold begins anew."""

    def __init__(self, redis: Redis, policy: Policy, folder: Path | None = None) -> None:
        self.redis = redis
        self.policy = policy
        self.folder = folder
        self.vitals = Vitals()
        self._memory = Memory()
        self._before = Before()

    def run_once(self, conn: Connection, now: datetime) -> int:
        """Measure and judge, and write what changes in one transaction; how many alerts were staged."""
        self.vitals, self._before = look(conn, self.redis, self.folder, now, self._before)
        with conn.transaction():
            accounts.lock(conn, OWN)
            known = incidents.read_recent(conn, OWN, now)
            memory, changes = own.step(known, own.judge(self.vitals), self._memory, now)
            staged = sum(_write(conn, change, now, self.policy) or 0 for change in changes)
        self._memory = memory
        return staged


def read_vitals(conn: Connection, redis: Redis, folder: Path | None, now: datetime) -> Vitals:
    """What can be measured in one look: a queue without a worker has had none for no time."""
    return look(conn, redis, folder, now, Before())[0]


def look(conn: Connection, redis: Redis, folder: Path | None, now: datetime, before: Before) -> tuple[Vitals, Before]:
    """Measure everything, and what to remember for the next look."""
    known = store.read(conn, now)
    vitals = Vitals(
        quarantined=known.quarantined,
        quarantined_lately=known.lately,
        disk=disk_used(folder),
        database=known.database,
        channels=channel_vitals(conn, now),
        undelivered=(now - known.overdue_since).total_seconds() if known.overdue_since else 0.0,
    )
    try:
        return _look_at_redis(redis, vitals, now, before)
    except (RedisError, OSError):
        answered = before.answered or now
        # Who could not be seen is not missing: the queues' workers count from when Redis answers again.
        after = Before(answered=answered, evicted=before.evicted)
        return replace(vitals, redis_away=max((now - answered).total_seconds(), 0.1)), after


def _look_at_redis(redis: Redis, vitals: Vitals, now: datetime, before: Before) -> tuple[Vitals, Before]:
    queue = Queue(EVENTS, redis)
    oldest, depth = queues.oldest_waiting(queue), len(queue)
    memory, stats = redis.info("memory"), redis.info("stats")
    workers = {name: live_workers(redis, name, now) for name in queues.QUEUES}
    seen = {name: now if count else before.seen.get(name, now) for name, count in workers.items()}
    limit, evicted = int(memory.get("maxmemory", 0)), int(stats.get("evicted_keys", 0))
    found = replace(
        vitals,
        waiting=max((now - oldest).total_seconds(), 0.0) if oldest else 0.0,
        depth=depth,
        workers=workers,
        gone={name: (now - moment).total_seconds() for name, moment in seen.items()},
        redis_memory=int(memory["used_memory"]) / limit if limit else None,
        # A Redis that was started anew counts from zero.
        redis_evicted=max(0, evicted - (evicted if before.evicted is None else before.evicted)),
    )
    return found, Before(seen, now, evicted)


def live_workers(redis: Redis, queue: str, now: datetime) -> int:
    """Workers of the queue that gave a sign of life lately, or are busy: those give none until their job is done.

    A busy one's entry lasts as long as its job may take, so that of one that was killed is gone soon after.
    """
    keys = sorted(map(as_text, redis.smembers(_WORKERS.format(queue=queue))))
    with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hmget(key, "last_heartbeat", "state")
        entries = pipe.execute()
    return sum(
        state == b"busy" or (now - str_to_date(heartbeat)).total_seconds() < SILENT
        for heartbeat, state in entries
        if heartbeat  # the set keeps names whose entry is gone
    )


def disk_used(folder: Path | None) -> float | None:
    """The used share of the folder's file system, as `df` reckons it; None where there is no such folder."""
    try:
        found = os.statvfs(folder) if folder else None
    except OSError:
        return None
    if found is None or not found.f_blocks:
        return None
    used = found.f_blocks - found.f_bfree
    return used / (used + found.f_bavail)


def channel_vitals(conn: Connection, now: datetime) -> dict[str, ChannelVitals]:
    """Of the channels that something was sent to lately."""
    found = {}
    for name, ended in store.deliveries(conn, now).items():
        outcomes = [Outcome(each.at, each.outcome, each.error) for each in ended]
        failing: list[Outcome] = []
        for each in outcomes:
            failing = [] if each.result == "sent" else [*failing, each]
        why = breaker.broken(outcomes, now) or ""
        found[name] = ChannelVitals(
            failing_since=failing[0].at if failing else None,
            permanent=bool(failing) and failing[-1].result == "refused",
            resting=breaker.opened(outcomes, now) is not None,
            broken=why,
        )
    return found


def raise_own(
    conn: Connection,
    *,
    detector: str,
    scope: str,
    severity: Severity,
    observed: float,
    limit: float,
    why: str,
    at: datetime,
    policy: Policy,
) -> bool:
    """Open an incident about BillingWatch itself, or keep the open one current; whether it opened, be it again.

    A broken channel (detector `channel_broken`, scope its name) is told on the others. In the caller's transaction.
    """
    made = own.incident(detector, scope, severity, observed, limit, why, at, began=at)
    before = _known(conn, detector, scope, at)
    if before is not None and before.state != "resolved":
        after = own.worsened(before, severity, observed, why, at)
        _write(conn, Change(before, after, "worse" if after.severity != before.severity else None), at, policy)
        return False
    change = own.opens(before, made)
    return change is not None and _write(conn, change, at, policy) is not None


def end_own(conn: Connection, *, detector: str, scope: str, at: datetime, policy: Policy) -> bool:
    """Resolve the incident; whether one was open. In the caller's transaction."""
    before = _known(conn, detector, scope, at)
    if before is None or before.state == "resolved":
        return False
    after = replace(before, state="resolved", clear_since=at, resolved_at=at)
    return _write(conn, Change(before, after, "resolved"), at, policy) is not None


def _known(conn: Connection, detector: str, scope: str, at: datetime) -> Incident | None:
    """The open incident, else the one that ended last and may come again."""
    accounts.lock(conn, OWN)
    found = [each for each in incidents.read_recent(conn, OWN, at) if (each.detector, each.scope) == (detector, scope)]
    unresolved = [each for each in found if each.state != "resolved"]
    ended = [each for each in found if each.resolved_at and at - each.resolved_at <= MERGE]
    return next(iter(unresolved), max(ended, key=lambda each: each.resolved_at or at, default=None))


def _write(conn: Connection, change: Change, at: datetime, policy: Policy) -> int | None:
    """Write the incident and stage what is told of it; how many alerts, None where it was changed by others."""
    before, incident, reason = change.before, change.incident, change.reason
    if before is None:
        id_ = incidents.open_incident(conn, incident)
        if id_ is None:
            return None
        incident = replace(incident, id=id_)
    elif not incidents.update(conn, incident, before.state):
        return None
    if reason is None:
        return 0
    incidents.log(conn, incident.id, at, before.state if before else None, incident.state, reason, WHO)
    told = {name: getattr(incident, name) for name in ("id", "detector", "scope", "severity", "why")}
    if reason == "resolved":
        log.info("own_incident", reason=reason, **told)
    else:
        log.error("own_incident", reason=reason, **told)
    apart = incident.scope if incident.detector == CHANNEL_BROKEN else ""
    return stage(conn, incident, reason, at, policy, apart=apart)
