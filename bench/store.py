"""How fast one worker stores what waits in Redis, against RQ's own workers with a job for each event."""

import time
from collections.abc import Callable

from redis import Redis
from rq import Queue as NaiveQueue

from bench import naive, traffic
from bench.report import Report, Row, at_least, show
from bench.rig import READY, Rig, expect, number, rig
from billingwatch.queues import EVENTS, Queue, Received, enqueue_events

LIMIT = 120.0  # seconds
_WORKERS = {"RQ's default worker": "rq.Worker", "RQ's SimpleWorker": "rq.SimpleWorker"}


def run(quick: bool) -> Report:
    # (events a job, events): enough for some seconds each
    batches = ((1, 1_000), (20, 4_000), (200, 6_000)) if quick else ((1, 10_000), (20, 40_000), (200, 60_000))
    counts = {"rq.Worker": 40, "rq.SimpleWorker": 300} if quick else {"rq.Worker": 400, "rq.SimpleWorker": 3_000}
    with rig(postgres={}) as servers:
        servers.make(max(count for _, count in batches))
        bodies = traffic.bodies(servers.traffic)
        ours = {size: _ours(servers, bodies[:count], size) for size, count in batches}
        theirs = {name: _theirs(servers, bodies[: counts[kind]], kind) for name, kind in _WORKERS.items()}
    best = ours[max(ours)]
    rows = [Row(f"one worker, {size} events a job", show(rate, "ev/s")) for size, rate in ours.items()]
    rows += [Row(f"{name}, an event a job", show(rate, "ev/s", 1)) for name, rate in theirs.items()]
    default, simple = theirs.values()
    rows += [
        at_least(f"{max(ours)} events a job", best, 5_000, "ev/s"),
        at_least("to RQ's default worker", best / default, 30, "x", 0),
        Row("to RQ's SimpleWorker", show(best / simple, "x", 0)),
    ]
    return Report(
        about="Everything waits in Redis before the worker starts; from the first job taken to the last row there. Ours"
        " also counts into the rollups; the plain job opens a connection and inserts one row.",
        rows=tuple(rows),
    )


def _ours(servers: Rig, bodies: list[bytes], size: int) -> float:
    """Events a second that `billingwatch worker events` stores."""
    with servers.connect() as conn:
        conn.execute("TRUNCATE events, claims, rollups, charges, payers, accounts")
    servers.redis.flushall()
    queue = Queue(EVENTS, servers.redis)
    for first in range(0, len(bodies), size):
        enqueue_events(queue, [Received("default", time.time(), body) for body in bodies[first : first + size]])
    return _drain(servers, queue, "events", len(bodies), lambda: servers.start("events"))


def _theirs(servers: Rig, bodies: list[bytes], kind: str) -> float:
    """Events a second that `rq worker` stores."""
    with servers.connect() as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS naive_events (id text PRIMARY KEY, payload jsonb NOT NULL)")
        conn.execute("TRUNCATE naive_events")
    servers.redis.flushall()
    queue = NaiveQueue(naive.QUEUE, connection=Redis.from_url(servers.redis_url))
    for body in bodies:
        queue.enqueue(naive.insert_event, body, result_ttl=0)
    # The job's module as configuration: RQ then imports it once, and not in every fork.
    options = ("--quiet", "--url", servers.redis_url, "--worker-class", kind, "--config", naive.__name__)
    command = ("rq.cli", "worker", *options, naive.QUEUE)
    return _drain(servers, queue, "naive_events", len(bodies), lambda: servers.run("naive", *command))


def _drain(servers: Rig, queue: NaiveQueue, table: str, count: int, start: Callable[[], int]) -> float:
    waiting = len(queue)
    start()
    expect(lambda: len(queue) < waiting, READY, "the worker to take a job")
    began = time.perf_counter()
    expect(lambda: not len(queue), LIMIT, "the queue to be empty")
    with servers.connect() as conn:
        expect(lambda: number(conn, f"SELECT count(*) FROM {table}") >= count, LIMIT, "every row")  # noqa: S608
    rate = count / (time.perf_counter() - began)
    servers.stop()
    return rate
