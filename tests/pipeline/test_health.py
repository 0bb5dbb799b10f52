"""BillingWatch's own incidents on real servers: opened, told and over by the clock's arguments alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection
from redis import Redis

from billingwatch import queues
from billingwatch.model import OWN, Incident
from billingwatch.queues import EVENTS, QUEUES, Queue
from billingwatch.store import acts, incidents, outbox, quarantine
from billingwatch.store.quarantine import Refusal
from notify.policy import Policy
from notify.route import Route
from tests.factories import arrived, paid
from worker.health import Health, disk_used, end_own, live_workers, raise_own, read_vitals
from worker.process import Process
from worker.runner import WORKER_TTL, Runner

SECOND = timedelta(seconds=1)
POLICY = Policy(routes=(Route(channels=("ops", "mail")),))
BROKEN: dict[str, Any] = {"severity": "high", "observed": 3, "limit": 2, "why": "401; trying again is of no use"}


@contextmanager
def working(process: Process, *names: str) -> Iterator[dict[str, Runner]]:
    """Workers as RQ knows them, busy: the tests' clock runs ahead of the one that stamps heartbeats."""
    runners = {name: Runner(process.queue(name), process) for name in names}
    for runner in runners.values():
        runner.register_birth()  # type: ignore[no-untyped-call]
        runner.set_state("busy")
    try:
        yield runners
    finally:
        for runner in runners.values():
            runner.teardown()  # type: ignore[no-untyped-call]


@pytest.fixture
def workers(process: Process) -> Iterator[dict[str, Runner]]:
    """One of each queue."""
    with working(process, *QUEUES) as runners:
        yield runners


def play(health: Health, conn: Connection, start: datetime, seconds: int) -> int:
    """The clock's rounds of so many seconds from `start` on; the alerts staged."""
    return sum(health.run_once(conn, start + step * SECOND) for step in range(0, seconds + 1, 10))


def own(conn: Connection) -> list[Incident]:
    return sorted(incidents.read_all(conn), key=lambda each: each.id)


def told(conn: Connection, incident: Incident) -> list[tuple[str, str]]:
    return [(row["channel"], row["reason"]) for row in outbox.read_for(conn, incident.id)]


@pytest.mark.usefixtures("workers")
def test_all_is_well_where_workers_live_and_nothing_waits(conn: Connection, redis: Redis, now: datetime) -> None:
    health = Health(redis, POLICY)
    assert play(health, conn, now, 50) == 0
    assert own(conn) == []
    vitals = health.vitals
    assert (vitals.waiting, vitals.depth, vitals.redis_away) == (0, 0, 0)
    assert vitals.workers == dict.fromkeys(QUEUES, 1)
    assert vitals.gone == dict.fromkeys(QUEUES, 0)


@pytest.mark.usefixtures("workers")
def test_events_that_wait_are_told_and_told_to_be_over(conn: Connection, redis: Redis, now: datetime) -> None:
    queue = Queue(EVENTS, redis)
    for _ in range(3):
        queues.enqueue_events(queue, arrived([paid(int(now.timestamp()))]))
    health = Health(redis, POLICY)
    assert play(health, conn, now + 61 * SECOND, 50) == 0
    assert health.run_once(conn, now + 121 * SECOND) == 2
    (made,) = own(conn)
    assert (made.tenant, made.detector, made.metric, made.scope) == (OWN, "pipeline_lag", "pipeline_lag", "")
    assert (made.number, made.severity, made.limit) == (0, "medium", 60)
    assert made.observed == pytest.approx(121, abs=2)
    assert "(3 batches)" in made.why
    assert told(conn, made) == [("ops", "first"), ("mail", "first")]
    queue.empty()  # type: ignore[no-untyped-call]
    assert play(health, conn, now + 131 * SECOND, 110) == 0
    assert health.run_once(conn, now + 251 * SECOND) == 2
    (over,) = own(conn)
    assert (over.state, over.resolved_at) == ("resolved", now + 251 * SECOND)
    assert told(conn, over)[2:] == [("ops", "resolved"), ("mail", "resolved")]
    rows = [(row["from_state"], row["to_state"], row["reason"]) for row in incidents.read_log(conn, over.id)]
    assert rows == [("", "open", "first"), ("open", "resolved", "resolved")]


def test_queue_without_a_worker_is_told_by_its_name(
    conn: Connection, process: Process, redis: Redis, now: datetime
) -> None:
    health = Health(redis, POLICY)
    with working(process, "evaluate", "alerts"):
        assert play(health, conn, now, 60) == 0  # 30 s for a restart, then the hold
        assert health.run_once(conn, now + 70 * SECOND) == 2
    (made,) = own(conn)
    assert (made.detector, made.scope, made.severity) == ("worker_missing", "events", "high")
    assert "no `worker events` has run for 1 min" in made.why
    with working(process, *QUEUES):
        assert play(health, conn, now + 80 * SECOND, 60) == 2
    assert own(conn)[0].state == "resolved"


def test_worker_that_was_killed_is_missed_a_minute_after_its_last_heartbeat_and_a_busy_one_never(
    workers: dict[str, Runner], redis: Redis, now: datetime
) -> None:
    silent = 2 * WORKER_TTL
    workers[EVENTS].set_state("idle")
    assert live_workers(redis, EVENTS, now + (silent - 5) * SECOND) == 1
    assert live_workers(redis, EVENTS, now + (silent + 5) * SECOND) == 0
    workers[EVENTS].set_state("busy")
    assert live_workers(redis, EVENTS, now + 3600 * SECOND) == 1
    redis.delete(workers[EVENTS].key)  # a killed one's entry goes by itself, its name stays in the set
    assert live_workers(redis, EVENTS, now) == 0


@pytest.mark.usefixtures("workers")
def test_what_cannot_be_stored_is_told_at_once(conn: Connection, redis: Redis, now: datetime) -> None:
    health = Health(redis, POLICY)
    quarantine.hold(conn, [Refusal("default", 0.0, b"{", "no JSON")])
    assert health.run_once(conn, now + SECOND) == 2
    (made,) = own(conn)
    assert (made.detector, made.observed, made.severity) == ("quarantine_growing", 1, "low")


def test_redis_that_is_away_is_an_incident_and_missing_workers_are_none(
    conn: Connection, closed_port: int, now: datetime
) -> None:
    with Redis.from_url(f"redis://127.0.0.1:{closed_port}/0") as away:
        health = Health(away, POLICY)
        play(health, conn, now, 40)
    (made,) = own(conn)
    assert (made.detector, made.severity) == ("redis_away", "critical")
    assert (health.vitals.waiting, health.vitals.gone) == (None, {})


@pytest.mark.usefixtures("workers")
def test_redis_that_throws_keys_away_is_told(conn: Connection, redis: Redis, now: datetime) -> None:
    health = Health(redis, POLICY)
    health.run_once(conn, now)
    kept = {name: str(redis.config_get(name)[name]) for name in ("maxmemory", "maxmemory-policy")}
    used = int(redis.info("memory")["used_memory"])
    try:
        redis.config_set("maxmemory-policy", "allkeys-random")
        redis.config_set("maxmemory", used + 200_000)
        for n in range(400):
            redis.set(f"filler-{n}", b"x" * 1000)
    finally:
        for name, value in kept.items():
            redis.config_set(name, value)
    health.run_once(conn, now + 10 * SECOND)
    assert "redis_evicting" in {each.detector for each in own(conn)}
    assert health.vitals.redis_evicted > 0
    health.run_once(conn, now + 20 * SECOND)
    assert health.vitals.redis_evicted == 0


def test_memory_is_a_share_only_where_redis_has_a_limit(conn: Connection, redis: Redis, now: datetime) -> None:
    kept = str(redis.config_get("maxmemory")["maxmemory"])
    try:
        redis.config_set("maxmemory", 0)
        assert read_vitals(conn, redis, None, now).redis_memory is None
        redis.config_set("maxmemory", 2 * int(redis.info("memory")["used_memory"]))
        assert read_vitals(conn, redis, None, now).redis_memory == pytest.approx(0.5, abs=0.1)
    finally:
        redis.config_set("maxmemory", kept)


def test_disk_is_known_where_the_data_folder_is_here(tmp_path: Path) -> None:
    found = disk_used(tmp_path)
    assert found is not None
    assert 0 < found <= 1
    assert disk_used(tmp_path / "nowhere") is None
    assert disk_used(None) is None


def test_broken_channel_is_told_on_the_others_once_and_is_over_when_it_works(conn: Connection, now: datetime) -> None:
    def broken(at: datetime) -> bool:
        return raise_own(conn, detector="channel_broken", scope="mail", at=at, policy=POLICY, **BROKEN)

    assert broken(now)
    assert not broken(now + SECOND)
    (made,) = own(conn)
    assert (made.tenant, made.scope, made.last_breach_at) == (OWN, "mail", now + SECOND)
    assert told(conn, made) == [("ops", "first")]
    assert end_own(conn, detector="channel_broken", scope="mail", at=now + 9 * SECOND, policy=POLICY)
    assert not end_own(conn, detector="channel_broken", scope="mail", at=now + 9 * SECOND, policy=POLICY)
    assert told(conn, made)[1:] == [("ops", "resolved")]
    assert broken(now + 20 * SECOND)  # the same one again
    assert [each.state for each in own(conn)] == ["open"]
    assert end_own(conn, detector="channel_broken", scope="mail", at=now + 30 * SECOND, policy=POLICY)
    assert broken(now + 3600 * SECOND)
    assert len(own(conn)) == 2


def test_round_leaves_a_broken_channel_alone(conn: Connection, redis: Redis, workers: object, now: datetime) -> None:
    raise_own(conn, detector="channel_broken", scope="mail", at=now, policy=POLICY, **BROKEN)
    play(Health(redis, POLICY), conn, now, 50)
    assert [each.state for each in own(conn)] == ["open"]


def test_what_a_person_called_over_is_not_raised_again(conn: Connection, now: datetime) -> None:
    raise_own(conn, detector="channel_broken", scope="mail", at=now, policy=POLICY, **BROKEN)
    acts.resolve(conn, own(conn)[0].id, "ada", now + SECOND)
    later = now + 10 * SECOND
    assert not raise_own(conn, detector="channel_broken", scope="mail", at=later, policy=POLICY, **BROKEN)


def test_vitals_tell_how_each_channel_does(conn: Connection, redis: Redis, now: datetime) -> None:
    for channel, outcomes in {"ops": ["sent"], "mail": ["sent", "failed", "refused"]}.items():
        for n, outcome in enumerate(outcomes):
            at = now - (60 - n) * SECOND
            conn.execute(
                """
                INSERT INTO deliveries (channel, kind, alerts, title, body, claimed_at, ended_at, outcome, error)
                VALUES (%s, 'alert', '{1}', '', '', %s, %s, %s, '401')
                """,
                (channel, at, at, outcome),
            )
    found = read_vitals(conn, redis, None, now).channels
    assert (found["ops"].failing_since, found["ops"].broken) == (None, "")
    assert (found["mail"].failing_since, found["mail"].permanent) == (now - 59 * SECOND, True)
    assert found["mail"].broken.startswith("401")
