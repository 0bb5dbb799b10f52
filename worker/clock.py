"""The one clock: it enqueues what time alone makes due, looks after BillingWatch itself, and keeps the house in order.

It judges no account and sends no message.
"""

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event

import psycopg
import structlog
from psycopg import Connection
from redis import Redis

from billingwatch import queues
from billingwatch.model import Tenant
from billingwatch.queues import ALERTS, EVALUATE, EVENTS, Queue
from billingwatch.rules import Rules
from billingwatch.store import accounts, events, links, outbox, payers, rollups
from billingwatch.store.connection import StoreAwayError, connect
from detectors.registry import Plans
from worker import digest, remind
from worker.deliver import retire
from worker.desk import Desk
from worker.health import Health
from worker.heartbeat import Heartbeat
from worker.learn import due
from worker.process import Process
from worker.rescue import quarantine_failed, requeue_orphans

log = structlog.get_logger(__name__)

LEADER_LOCK = 0x436C6F63  # "Cloc"; of several clocks the one that holds it ticks, the others stand by
AHEAD = 3  # months whose partitions exist before they begin
ACTIVE = timedelta(days=30)  # a tenant without an event for longer has nothing that time could change
CLAIMS_KEPT = timedelta(days=35)  # past Stripe's 30 days of replayable events
PAYERS_KEPT = timedelta(days=2)  # a payment made twice is told within minutes, or comes late
LINKS_KEPT = timedelta(days=31)  # a link is good for 30 days at most
SHORT = 2  # jobs; so many lessons are ahead of an evaluation that people wait for
STARVED = timedelta(seconds=2)  # so often a lesson is handed out however long the queue is
IMPATIENT = timedelta(seconds=1)  # news older than this that no evaluation saw is enqueued again

TICK = 0.25  # seconds; what is due is sent so much later at the most
STAND_BY = 1.0
DUE_EVERY = 1.0
HEALTH_EVERY = 10.0
REMIND_EVERY = 15.0
DIGEST_EVERY = 30.0
RETIRE_EVERY = 60.0
HEARTBEAT_EVERY = 60.0
EVALUATE_EVERY = 60.0
RESCUE_EVERY = 30.0
ORPHANS_EVERY = 300.0
HOUSEKEEPING_EVERY = 3600.0


def run_due(conn: Connection, redis: Redis, now: datetime) -> None:
    """Every second: judge news that no evaluation saw."""
    evaluate = Queue(EVALUATE, redis)
    for tenant in accounts.dirty(conn, now - IMPATIENT):
        queues.enqueue_evaluation(evaluate, tenant)


def run_channels(conn: Connection, redis: Redis, now: datetime) -> None:
    """Four times a second: wake the channels for which something is due."""
    alerts = Queue(ALERTS, redis)
    for channel in outbox.due_channels(conn, now):
        queues.enqueue_sending(alerts, channel)


def run_evaluations(conn: Connection, redis: Redis, now: datetime) -> None:
    """Every minute: judge every tenant that time alone can change (silence, drops, recovery)."""
    evaluate = Queue(EVALUATE, redis)
    for tenant in accounts.active(conn, now - ACTIVE):
        queues.enqueue_evaluation(evaluate, tenant)


class Lessons:
    """Those that are due, handed out a few at a time: evaluations stand in the same queue, and at midnight the lessons
    of all tenants are due at once.
    """

    def __init__(self, redis: Redis, plans: Plans) -> None:
        self._queue = Queue(EVALUATE, redis)
        self._plans = plans
        self._due: deque[tuple[str, bool]] = deque()  # account and livemode
        self._last = ("", False)
        self._handed_out = datetime(1, 1, 1, tzinfo=UTC)

    def look(self, conn: Connection, now: datetime) -> None:
        """Every minute: who has to be learnt, since the day is over or the past was told anew; first who comes after
        the one that was handed out last, so that each has its turn.
        """
        found = sorted(
            (each.account.tenant.account, each.account.tenant.livemode)
            for each in accounts.lessons(conn, now - ACTIVE)
            if due(each, self._plans.of(each.account.tenant.account, each.account.tenant.livemode), now)
        )
        turn = bisect_right(found, self._last)
        self._due = deque((*found[turn:], *found[:turn]))

    def run_once(self, now: datetime) -> None:
        """Four times a second: fill the queue up to a few jobs; where others fill it, one lesson every few seconds."""
        room = SHORT - self._queue.count if self._due else 0
        if room <= 0 and now - self._handed_out >= STARVED:
            room = 1
        while room > 0 and self._due:
            self._last = self._due.popleft()
            if queues.enqueue_lesson(self._queue, Tenant(*self._last)):
                self._handed_out = now
                room -= 1


def run_rescue(conn: Connection, redis: Redis, now: datetime) -> None:
    """Every half minute: copy the events of failed jobs into quarantine."""
    held = quarantine_failed(conn, Queue(EVENTS, redis))
    if held:
        log.error("quarantined", events=held, hint="billingwatch quarantine list")


def run_orphans(conn: Connection, redis: Redis, now: datetime) -> None:
    """Every five minutes: requeue jobs that say they are queued and stand in no queue."""
    for name in queues.QUEUES:
        found = requeue_orphans(Queue(name, redis), now)
        if found:
            log.error("orphans_requeued", queue=name, jobs=found)


def run_housekeeping(conn: Connection, rules: Rules, now: datetime) -> None:
    """Every hour: partitions ahead, retention behind."""
    month = now.date().replace(day=1)
    months = [month]
    for _ in range(AHEAD):
        months.append(events.next_month(months[-1]))
    events.ensure_months(conn, months)
    for name in events.drop_months_before(conn, now - timedelta(days=rules.retention_days)):
        log.info("dropped", partition=name)
    while rollups.forget_claims(conn, now - CLAIMS_KEPT) or payers.forget(conn, now - PAYERS_KEPT):
        pass
    links.forget(conn, now - LINKS_KEPT)


class Clock:
    """Runs each round when its time has come. A failing round is logged once and comes again; the others go on."""

    def __init__(self, process: Process, evaluate_every: float = EVALUATE_EVERY) -> None:
        redis, rules, desk = process.redis, process.rules, Desk.of(process)
        lessons = Lessons(redis, process.plans)
        health = Health(redis, process.policy, process.folder)
        heartbeat = Heartbeat(process.heartbeat_url)
        self._rounds: list[tuple[str, float, Callable[[Connection, datetime], object]]] = [
            ("housekeeping", HOUSEKEEPING_EVERY, lambda conn, now: run_housekeeping(conn, rules, now)),
            ("channels", TICK, lambda conn, now: run_channels(conn, redis, now)),
            ("due", DUE_EVERY, lambda conn, now: run_due(conn, redis, now)),
            ("lessons due", evaluate_every, lessons.look),
            ("lessons", TICK, lambda _, now: lessons.run_once(now)),
            ("evaluations", evaluate_every, lambda conn, now: run_evaluations(conn, redis, now)),
            ("health", HEALTH_EVERY, health.run_once),
            ("reminders", REMIND_EVERY, lambda conn, now: remind.run_once(conn, desk, now)),
            ("retired", RETIRE_EVERY, lambda conn, now: retire(conn, desk, now)),
            ("digests", DIGEST_EVERY, lambda conn, now: digest.run_once(conn, desk, now, redis)),
            ("heartbeat", HEARTBEAT_EVERY, heartbeat.run_once),
            ("rescue", RESCUE_EVERY, lambda conn, now: run_rescue(conn, redis, now)),
            ("orphans", ORPHANS_EVERY, lambda conn, now: run_orphans(conn, redis, now)),
        ]
        self._next = {name: 0.0 for name, _, _ in self._rounds}
        self._failing: dict[str, str] = {}  # why, by round; several a second would flood the log

    def run_once(self, conn: Connection, now: datetime, monotonic: float) -> None:
        """Run every round that is due at `monotonic` seconds. Raises StoreAwayError where Postgres went away."""
        for name, every, work in self._rounds:
            if monotonic < self._next[name]:
                continue
            self._next[name] = monotonic + every
            try:
                work(conn, now)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                raise StoreAwayError(type(error).__name__) from None
            except Exception as error:  # noqa: BLE001 - nothing that stands in Redis or Postgres may stop the clock
                why = type(error).__name__
                if self._failing.get(name) != why:
                    log.error("round_failed", round=name, error=why)
                self._failing[name] = why
            else:
                if self._failing.pop(name, None):
                    log.info("round_works_again", round=name)


def run(process: Process, stop: Event, *, evaluate_every: float = EVALUATE_EVERY) -> None:
    """Tick until `stop` is set. Of several clocks one ticks; when it dies another takes over within seconds."""
    clock = Clock(process, evaluate_every)
    while not stop.is_set():
        try:
            conn = connect(process.stores.database_url, process.name)
        except StoreAwayError as error:
            log.warning("store_away", error=str(error))
            stop.wait(2)
            continue
        try:
            with conn:
                _lead(conn, clock, stop)
        except (StoreAwayError, psycopg.Error) as error:
            log.warning("store_away", error=type(error).__name__)
            stop.wait(1)


def _lead(conn: Connection, clock: Clock, stop: Event) -> None:
    leading = False
    while not stop.is_set():
        if not leading:
            leading = conn.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,)).fetchone() == (True,)
            if leading:
                log.info("clock_leads")
        if leading:
            clock.run_once(conn, datetime.now(UTC), time.monotonic())
        stop.wait(TICK if leading else STAND_BY)
