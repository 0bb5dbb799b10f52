"""Drills as they are played: the past into the store, the incident through the receiver, then the wait for messages."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from zoneinfo import ZoneInfo

from msgspec import Struct
from psycopg import Connection
from redis import Redis

from billingwatch import queues
from billingwatch.drill import Drill
from billingwatch.queues import EVALUATE, EVENTS, Queue, Received
from billingwatch.replay import Sent, send
from billingwatch.settings import DEFAULT_SOURCE
from billingwatch.store import baselines, incidents
from billingwatch.store import drill as store
from billingwatch.store.drill import Found, Told
from detectors.registry import Plans
from notify.policy import Policy
from notify.route import labels, route
from worker.record import record

BATCH = 1000  # events of the past a transaction
LOOK = 0.1  # seconds between two looks
ASK = 1.0  # seconds between two requests to judge or to learn
DRAINED = 30.0  # seconds for the queue to take what was sent
TRIES = 4  # of an event that the receiver does not take

REFUSED = "the receiver refuses the events: does STRIPE_WEBHOOK_SECRET sign them as it wants?"
AWAY = "the receiver does not take the events"
UNLEARNT = "its past was not learnt"
UNSEEN = "no incident"
STOPPED = "stopped"


class Stage(Struct, frozen=True):
    """Where drills are played: the live pipeline's stores, its receiver's address, what it goes by."""

    conn: Connection
    redis: Redis
    url: str
    secret: str
    plans: Plans
    policy: Policy


class Heard(Struct, frozen=True):
    """When a channel heard of it, seconds after the first event; None where it did not, and why."""

    channel: str
    seconds: float | None
    group_wait: float  # seconds of it that the route asks to wait for others
    state: str
    why: str = ""


class Result(Struct, frozen=True):
    """What became of a drill. `seconds` are from its first event to the incident."""

    detector: str
    account: str
    planted: str
    detected_by: tuple[str, ...] = ()
    incident: int = 0
    seconds: float | None = None
    heard: tuple[Heard, ...] = ()
    fault: str = ""

    @property
    def good(self) -> bool:
        """Whether it was detected, and told on every channel that was to hear of it."""
        return not self.fault and bool(self.heard) and all(each.seconds is not None for each in self.heard)


class Course(Struct):
    """How far a drill has come."""

    drill: Drill
    planting: Future[None] | None = None
    posted: float = 0.0  # epoch seconds: the first event of the incident
    since: float = 0.0  # monotonic: from then on patience runs out
    asked: float = 0.0  # monotonic
    found: Found | None = None
    seen: float = 0.0  # epoch seconds
    told: tuple[Told, ...] = ()
    fault: str = ""
    over: bool = False

    @property
    def name(self) -> str:
        return self.drill.tenant.account


def play(
    drills: Sequence[Drill], stage: Stage, seconds: float, stop: Event, watch: Callable[[Drill, str], None]
) -> list[Result]:
    """Play them side by side, each for so many seconds at most after its first event; what became of each.

    `watch(drill, words)` hears how far each has come. It cleans nothing up.
    """
    courses = [Course(drill) for drill in drills]
    for course in courses:
        watch(course.drill, "the past")
        _write_past(course, stage, stop)
    with ThreadPoolExecutor(len(courses) or 1, thread_name_prefix="drill") as threads:
        while not stop.is_set() and not all(course.over for course in courses):
            for course in courses:
                if not course.over and not stop.is_set():
                    _advance(course, stage, seconds, watch, threads)
            stop.wait(LOOK)
    return [_result(course, stage, stop) for course in courses]


def clean(stage: Stage, names: Sequence[str], sent: bool = True) -> bool:
    """Delete all of these accounts; False where events of theirs may still wait in the queue and come back."""
    drained = not sent or _drained(stage.redis)
    store.clean(stage.conn, names)
    return drained


def _drained(redis: Redis) -> bool:
    """Wait until all that the queue holds now was taken, and what was being worked on is done."""
    queue, before = Queue(EVENTS, redis), datetime.now(UTC)
    end = time.monotonic() + DRAINED
    while (oldest := queues.oldest_waiting(queue)) is not None and oldest <= before:
        if time.monotonic() > end:
            return False
        time.sleep(LOOK)
    return True


def _write_past(course: Course, stage: Stage, stop: Event) -> None:
    """An import, straight into the store: it is not what is measured, and the queue is for real events."""
    now = datetime.now(UTC)
    batch: list[Received] = []

    def write() -> None:
        record(stage.conn, batch, now, stage.plans.filters)
        batch.clear()

    for body in course.drill.past(int(now.timestamp())):
        batch.append(Received(DEFAULT_SOURCE, now.timestamp(), body))
        if len(batch) == BATCH:
            write()
        if stop.is_set():
            return
    if batch:
        write()


def _advance(
    course: Course, stage: Stage, seconds: float, watch: Callable[[Drill, str], None], threads: ThreadPoolExecutor
) -> None:
    """Look at one drill, and do what it waits for."""
    drill, now = course.drill, time.monotonic()
    learnt = drill.quick or baselines.read_forecast(stage.conn, drill.tenant) is not None
    if course.planting is None:
        if learnt or not drill.learnt:
            watch(drill, "events on their way")
            course.planting = threads.submit(_plant, course, stage)
        else:
            _have_learnt(course, stage, seconds, now, watch)
        return
    if not course.planting.done():
        return
    course.planting.result()
    if course.found is None:
        seen = (each for each in store.incidents(stage.conn, [course.name]) if drill.detector in each.detectors)
        course.found, course.seen = next(seen, None), time.time()
    if course.found is None and _may_ask(course, now):
        watch(drill, "not seen yet")
        queue = Queue(EVALUATE, stage.redis)
        if not learnt:
            queues.enqueue_lesson(queue, drill.tenant)
        queues.enqueue_evaluation(queue, drill.tenant)
    last = now - course.since > seconds
    if course.found is not None:
        course.told = tuple(store.told(stage.conn, course.found.id))
        waiting = [each for each in course.told if not each.over]
        watch(drill, f"seen; {', '.join(each.channel for each in waiting)} not told yet" if waiting else "told")
        end = datetime.now(UTC) + timedelta(seconds=seconds - (now - course.since))
        last = last or (bool(course.told) and all(each.next_try > end for each in waiting))
    course.over = course.over or last


def _have_learnt(course: Course, stage: Stage, seconds: float, now: float, watch: Callable[[Drill, str], None]) -> None:
    if not _may_ask(course, now):
        return
    course.since = course.since or now
    queues.enqueue_lesson(Queue(EVALUATE, stage.redis), course.drill.tenant)
    watch(course.drill, "its past is learnt")
    if now - course.since > seconds:
        course.fault, course.over = UNLEARNT, True


def _may_ask(course: Course, now: float) -> bool:
    """Whether to ask again; jobs of one account are one job anyway."""
    if now - course.asked < ASK:
        return False
    course.asked = now
    return True


def _plant(course: Course, stage: Stage) -> None:
    """Send what goes wrong."""
    course.posted = time.time()
    lines = course.drill.plant(int(course.posted))
    sent = send(lines, stage.url, stage.secret, tries=TRIES)
    course.since = time.monotonic()
    if course.drill.timed_from == "last":
        course.posted = time.time()
    if sent.failed or sent.stopped:
        course.fault, course.over = _refusal(sent), True


def _refusal(sent: Sent) -> str:
    if sent.statuses.keys() == {"400"}:
        return REFUSED
    said = ", ".join(f"{status} ({count})" for status, count in sent.statuses.items())
    return f"{AWAY}: {said}"


def _result(course: Course, stage: Stage, stop: Event) -> Result:
    drill, found = course.drill, course.found
    fault = course.fault or ("" if found else STOPPED if stop.is_set() else UNSEEN)
    waits = _waits(found, stage) if found else {}
    return Result(
        detector=drill.detector,
        account=course.name,
        planted=drill.words,
        detected_by=tuple(sorted(found.detectors)) if found else (),
        incident=found.id if found else 0,
        seconds=_after(course, course.seen) if found else None,
        heard=tuple(_heard(each, course, waits.get(each.channel, timedelta())) for each in course.told),
        fault=fault,
    )


def _heard(told: Told, course: Course, wait: timedelta) -> Heard:
    if told.state == "sent" and told.sent_at:
        return Heard(told.channel, _after(course, told.sent_at.timestamp()), wait.total_seconds(), told.state)
    due = "since" if told.next_try < datetime.now(UTC) else "not before"
    why = told.error or told.verdict or f"due {due} {told.next_try:%H:%M:%S} UTC, and not sent"
    return Heard(told.channel, None, wait.total_seconds(), told.state, why)


def _after(course: Course, moment: float) -> float:
    """Seconds from the first event; of a message by two clocks, where workers run on another machine."""
    return max(0.0, round(moment - course.posted, 2))


def _waits(found: Found, stage: Stage) -> Mapping[str, timedelta]:
    """By channel, how long its route waits for more of the same account."""
    incident = incidents.read_one(stage.conn, found.id)
    if incident is None:
        return {}
    tenant = incident.tenant
    zone = ZoneInfo(stage.plans.of(tenant.account, tenant.livemode).calendar.zone)
    routed = route(labels(incident), stage.policy.routes, found.opened_at, zone)
    return {each.channel: each.route.group_wait for each in routed}
