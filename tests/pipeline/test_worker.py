"""Jobs on real queues: taken together, given back, refused, rescued; and one clock that has them made."""

import json
import os
import pickle
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from msgspec import DecodeError, msgpack
from psycopg import Connection
from redis import Redis

from billingwatch import queues
from billingwatch.model import Channel, Tenant
from billingwatch.queues import (
    ALERTS,
    EVALUATE,
    EVENTS,
    FAILURE_TTL,
    QUEUES,
    RETRIES,
    ForbiddenJobError,
    Job,
    MessagePack,
    Queue,
    Received,
    begin_sending,
    enqueue_evaluation,
    enqueue_events,
    enqueue_lesson,
    enqueue_sending,
)
from billingwatch.rules import Rules
from billingwatch.simulator.objects import Json
from billingwatch.store import baselines, incidents, outbox, quarantine
from billingwatch.store.connection import connect
from detectors.registry import configure
from notify.policy import Policy
from notify.route import Route
from tests.factories import LIVE, arrived, failed, incident, paid, received, refunded
from tests.pipeline.sink import listening
from tests.waiting import until
from worker.clock import LEADER_LOCK, Clock, Lessons, run, run_due, run_evaluations, run_orphans, run_rescue
from worker.company import MOST_EVENTS, company
from worker.process import Process, start
from worker.record import record
from worker.rescue import ORPHANED, quarantine_failed, requeue_orphans
from worker.runner import Runner

PLANS, _ = configure({})
ADDRESS = "ada@example.com"  # stands in payloads, and nowhere else


@pytest.fixture
def events(redis: Redis) -> Queue:
    return Queue(EVENTS, redis)


@pytest.fixture(autouse=True)
def working(process: Process) -> None:
    """Jobs of this test find this process."""
    start(process)


def work(process: Process, name: str) -> None:
    """Work on the queue until it is empty."""
    Runner(process.queue(name), process).work(burst=True, logging_level="WARNING")


def stored(conn: Connection) -> list[str]:
    return [id_ for (id_,) in conn.execute("SELECT id FROM events ORDER BY id")]


def told(now: datetime, count: int) -> list[Json]:
    return [paid(int(now.timestamp()) - n) for n in range(count)]


def ids(told: list[Json]) -> list[str]:
    return sorted(each["id"] for each in told)


def leftovers(redis: Redis) -> list[str]:
    """Redis keys of jobs that stand anywhere."""
    return sorted(
        key.decode() for pattern in ("rq:job:*", "rq:queue:*", "rq:wip:*") for key in redis.scan_iter(pattern)
    )


# --- the way through -------------------------------------------------------------------------------------------------


def test_event_goes_from_queue_to_message(process: Process, conn: Connection, now: datetime) -> None:
    with listening() as sink:
        process.rules = Rules(channels={"ops": Channel(sink.url)})
        process.policy = Policy(routes=(Route(channels=("ops",), group_wait=timedelta()),))
        at = int(now.timestamp())
        history = [refunded(at - day * 86_400) for day in range(1, 9)]
        enqueue_events(process.queue(EVENTS), arrived([*history, *(failed(at - n) for n in range(12))]))
        work(process, EVENTS)
        assert len(stored(conn)) == 20
        assert [list(job.args) for job in process.queue(EVALUATE).get_jobs()] == [["default", True]]
        assert [enqueue_lesson(process.queue(EVALUATE), LIVE) for _ in range(2)] == [True, False]
        work(process, EVALUATE)
        assert baselines.read_forecast(conn, LIVE)
        assert [each.detector for each in incidents.read_all(conn)] == ["failure_rate"]
        assert process.queue(ALERTS).count == 1
        work(process, ALERTS)
        assert len(sink.posted) == 1
    assert leftovers(process.redis) == []


def test_news_of_one_tenant_wait_in_one_evaluation(process: Process, now: datetime) -> None:
    evaluate = process.queue(EVALUATE)
    assert [enqueue_evaluation(evaluate, LIVE) for _ in range(3)] == [True, False, False]
    assert enqueue_evaluation(evaluate, Tenant("default", False))
    work(process, EVALUATE)
    assert enqueue_evaluation(evaluate, LIVE)


def test_job_that_finds_its_database_gone_waits_for_it_and_then_goes_on(
    process: Process, conn: Connection, events: Queue, now: datetime
) -> None:
    """Every connection of the worker is cut while it holds one; the job itself hardly notices."""
    process.check()
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    batch = told(now, 3)
    enqueue_events(events, arrived(batch))
    work(process, EVENTS)
    assert stored(conn) == ids(batch)
    assert events.failed_job_registry.count == 0


# --- jobs taken together ---------------------------------------------------------------------------------------------


def test_many_small_jobs_are_recorded_together(
    process: Process, conn: Connection, events: Queue, now: datetime
) -> None:
    batch = told(now, 120)
    for each in batch:
        enqueue_events(events, [received(each)])
    Runner(events, process).work(burst=True, max_jobs=1, logging_level="WARNING")
    assert stored(conn) == ids(batch)
    assert events.count == 0
    work(process, EVALUATE)
    assert leftovers(process.redis) == []


def test_no_more_is_taken_than_a_transaction_should_hold(events: Queue, now: datetime) -> None:
    each = received(paid(int(now.timestamp())))
    for _ in range(8):
        enqueue_events(events, [each] * 100)
    with company(events, 0) as others:
        assert MOST_EVENTS <= len(others) < MOST_EVENTS + 1000
    with company(events, MOST_EVENTS) as others:
        assert others == []


def test_full_batch_takes_nobody_along(process: Process, conn: Connection, events: Queue, now: datetime) -> None:
    each = received(paid(int(now.timestamp())))
    enqueue_events(events, [each])
    with company(events, MOST_EVENTS) as others:
        assert others == []
    assert events.count == 1


def test_what_was_taken_goes_back_to_the_head_in_order_when_recording_fails(events: Queue, now: datetime) -> None:
    for each in told(now, 25):
        enqueue_events(events, [received(each)])
    before = events.get_job_ids()

    def fail() -> None:
        with company(events, 1) as others:
            assert len(others) == 25
            assert events.count == 0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert events.get_job_ids() == before
    assert not events.connection.exists(events.intermediate_queue_key)


def test_jobs_enqueued_meanwhile_stay_in_the_queue(events: Queue, now: datetime) -> None:
    first, second = told(now, 2)
    enqueue_events(events, [received(first)])
    with company(events, 1) as others:
        enqueue_events(events, [received(second)])
    assert [each.body for each in others] == [received(first).body]
    assert events.count == 1
    assert not events.connection.exists(events.intermediate_queue_key)


@pytest.mark.parametrize("bad", [1, 15, 60])
def test_unreadable_jobs_among_good_ones_fail_alone(
    process: Process, conn: Connection, events: Queue, now: datetime, bad: int
) -> None:
    """Sixty of them fill every handful that is taken, and it must come to an end all the same."""
    batch = told(now, 20)
    for each in batch[:10]:
        enqueue_events(events, [received(each)])
    broken = [plant(events, b"\xc1 no MessagePack") for _ in range(bad)]
    for each in batch[10:]:
        enqueue_events(events, [received(each)])
    work(process, EVENTS)
    assert stored(conn) == ids(batch)
    assert sorted(events.failed_job_registry.get_job_ids()) == sorted(broken)
    assert (events.count, events.connection.llen(events.intermediate_queue_key)) == (0, 0)


def test_one_poisonous_job_fails_nobody_else(process: Process, conn: Connection, events: Queue, now: datetime) -> None:
    """A full bucket refuses what would overflow it: the event goes to quarantine, and the others are counted."""
    at = int(now.timestamp())
    record(conn, arrived([refunded(at, amount=1)]), now)
    conn.execute("UPDATE rollups SET amount = 9223372036854775807 WHERE metric = 'refund.created'")
    good = told(now, 30)
    for n, each in enumerate(good):
        if n == 15:
            enqueue_events(events, [received(refunded(at, amount=500))])
        enqueue_events(events, [received(each)])
    work(process, EVENTS)
    assert set(ids(good)) <= set(stored(conn))
    assert len(quarantine.read_all(conn)) == 1
    assert events.failed_job_registry.count == 0


# --- what may run -----------------------------------------------------------------------------------------------------


def plant(queue: Queue, data: bytes, **fields: str) -> str:
    """A job as anyone who may write to Redis could leave it there; its id."""
    job_id = f"planted-{os.urandom(8).hex()}"
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    plain = {"origin": queue.name, "status": "queued", "created_at": moment, "enqueued_at": moment, "timeout": "30"}
    whole: Any = {**plain, **fields, "data": zlib.compress(data)}
    queue.connection.hset(Job.key_for(job_id), mapping=whole)
    queue.connection.rpush(queue.key, job_id)
    return job_id


def failure(queue: Queue, job_id: str) -> str:
    """How the job failed, "" where it did not."""
    if job_id not in queue.failed_job_registry.get_job_ids():
        return ""
    result = Job.fetch(job_id, connection=queue.connection, serializer=MessagePack).latest_result()
    return (result.exc_string if result else "") or "?"


@pytest.mark.parametrize(
    "name", ["os.system", "subprocess.check_output", "builtins.eval", "worker.company.company", "worker.jobs.record.x"]
)
def test_job_that_is_not_ours_is_refused(process: Process, tmp_path: Path, name: str) -> None:
    """The list of names holds on every queue, whatever a job's arguments are."""
    for queue in map(process.queue, QUEUES):
        mark = tmp_path / f"{queue.name}.txt"
        job_id = plant(queue, msgpack.encode([name, None, [f"touch {mark}"], {}]))
        work(process, queue.name)
        assert ForbiddenJobError.__name__ in failure(queue, job_id)
        assert not mark.exists()


def test_method_of_an_instance_is_refused(process: Process, events: Queue) -> None:
    job_id = plant(events, msgpack.encode([queues.RECORD_JOB, "an instance", [[]], {}]))
    work(process, EVENTS)
    assert ForbiddenJobError.__name__ in failure(events, job_id)


class Explosive:
    """Pickled, it is a command that runs when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_pickled_job_never_runs(process: Process, events: Queue, tmp_path: Path) -> None:
    mark = tmp_path / "pickled.txt"
    explosive = pickle.dumps((queues.RECORD_JOB, None, (Explosive(mark),), {}))
    pickle.loads(explosive)  # noqa: S301 - it is dangerous: that is what is shown
    assert mark.exists()
    mark.unlink()
    job_id = plant(events, explosive)
    events.connection.hset(Job.key_for(job_id), mapping={"meta": explosive, "result": explosive})
    work(process, EVENTS)
    assert failure(events, job_id)
    assert not mark.exists()


def test_callbacks_and_webhooks_that_stand_in_a_job_are_never_called(
    process: Process, events: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: datetime
) -> None:
    """RQ imports and calls what the job's hash names, be the job's function allowed or not."""
    mark = tmp_path / "called.txt"
    (tmp_path / "planted.py").write_text(f"open({str(mark)!r}, 'w').close()\ndef hook(*args): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with listening() as sink:
        fields = {f"{kind}_callback_name": "planted.hook" for kind in ("success", "failure", "stopped")}
        address = f"http://127.0.0.1:{sink.port}/"
        webhooks = [{"url": address, "job_status": status, "method": "POST"} for status in ("failed", "finished")]
        fields["webhooks"] = json.dumps(webhooks)
        batch = msgpack.encode([queues.RECORD_JOB, None, [arrived(told(now, 1))], {}])
        plant(events, batch, **fields)
        failing = plant(events, msgpack.encode(["os.system", None, ["true"], {}]), **fields)
        work(process, EVENTS)
        assert ForbiddenJobError.__name__ in failure(events, failing)
        assert not mark.exists()
        assert sink.posted == []


def test_what_redis_shows_of_a_job_holds_nothing_of_its_events(
    process: Process, events: Queue, redis: Redis, now: datetime
) -> None:
    each = paid(int(now.timestamp()))
    each["data"]["object"]["receipt_email"] = ADDRESS
    enqueue_events(events, [received(each)] * 3)
    enqueue_evaluation(process.queue(EVALUATE), LIVE)
    enqueue_sending(process.queue(ALERTS), "ops")
    (batch,), (judge,), (send,) = (process.queue(name).get_jobs() for name in QUEUES)
    assert [job.description for job in (batch, judge, send)] == [
        "record 3 events",
        "evaluate default live",
        "send to ops",
    ]
    plain = str({name: value for name, value in redis.hgetall(Job.key_for(batch.id)).items() if name != b"data"})
    assert ADDRESS not in plain
    assert each["id"] not in plain


def test_jobs_are_kept_for_days_when_they_fail_and_not_at_all_when_they_are_done(
    process: Process, events: Queue, now: datetime
) -> None:
    enqueue_events(events, arrived(told(now, 1)))
    enqueue_evaluation(process.queue(EVALUATE), LIVE)
    enqueue_sending(process.queue(ALERTS), "ops")
    for name in QUEUES:
        (job,) = process.queue(name).get_jobs()
        assert (job.result_ttl, job.failure_ttl, job.ttl) == (0, FAILURE_TTL, None)
        assert (job.timeout, job.retries_left) == (queues.TIMEOUT[name], RETRIES)
    assert FAILURE_TTL == 7 * 24 * 3600


def test_failed_job_is_forgotten_after_its_days(process: Process, events: Queue, now: datetime) -> None:
    job_id = fail(process, arrived(told(now, 1)), "ValueError: x")
    assert 0 < int(events.connection.ttl(Job.key_for(job_id))) <= FAILURE_TTL
    job = Job.fetch(job_id, connection=events.connection, serializer=MessagePack)
    forgotten = events.failed_job_registry.get_expiration_time(job)
    assert abs(forgotten - now - timedelta(seconds=FAILURE_TTL)) < timedelta(hours=1)


@pytest.mark.parametrize(
    "value",
    [None, 0, -1, 2**63, 1.5, "é\0", b"\0\xff", [1, [2, [3]]], {"a": {"b": b"c"}}, ["f", None, [b"x", 1.0], {}]],
    ids=repr,
)
def test_whatever_a_job_may_carry_comes_back_from_messagepack(value: object) -> None:
    assert MessagePack.loads(MessagePack.dumps(value)) == value


def test_batch_comes_back_from_redis_byte_for_byte(events: Queue) -> None:
    batch = [Received("default", 1_788_000_000.25, bytes(range(256))), Received("shop", 0.0, b"")]
    enqueue_events(events, batch)
    (job,) = events.get_jobs()
    assert [Received(*each) for each in job.args[0]] == batch


def test_messagepack_reads_no_pickle() -> None:
    with pytest.raises(DecodeError):
        MessagePack.loads(pickle.dumps({"a": 1}))


# --- rescue -----------------------------------------------------------------------------------------------------------


def fail(process: Process, batch: list[Received], why: str) -> str:
    """A job that RQ gave up, as its worker does when no retry is left; its id."""
    queue = process.queue(EVENTS)
    enqueue_events(queue, batch)
    job = queue.get_jobs()[-1]
    queue.remove(job)
    job.retries_left = 0
    job.save()
    Runner(queue, process).handle_job_failure(job, queue, exc_string=f"Traceback (most recent call last):\n{why}\n")
    assert job.id in queue.failed_job_registry.get_job_ids()
    return str(job.id)


def test_events_of_a_failed_job_are_copied_into_quarantine_once(
    process: Process, conn: Connection, events: Queue, now: datetime
) -> None:
    batch = arrived(told(now, 3))
    fail(process, batch, "ZeroDivisionError: division by zero")
    assert [quarantine_failed(conn, events) for _ in range(3)] == [3, 0, 0]
    held = quarantine.read_all(conn)
    assert {row.reason for row in held} == {"its job failed: ZeroDivisionError: division by zero"}
    assert {row.body for row in quarantine.take(conn, [row.id for row in held])} == {each.body for each in batch}
    assert events.failed_job_registry.count == 1


def test_job_that_failed_because_postgres_was_away_goes_back_into_its_queue(
    process: Process, conn: Connection, events: Queue, now: datetime
) -> None:
    batch = told(now, 3)
    job_id = fail(process, arrived(batch), "billingwatch.store.connection.StoreAwayError: OperationalError")
    assert quarantine_failed(conn, events) == 0
    assert events.get_job_ids() == [job_id]
    assert quarantine.read_all(conn) == []
    work(process, EVENTS)
    assert stored(conn) == ids(batch)


def test_unreadable_failed_job_stops_the_rescue_of_no_other(
    process: Process, conn: Connection, events: Queue, now: datetime
) -> None:
    strange = (
        Received("default", float("inf"), b"{}"),
        Received("default", float("nan"), b"{}"),
        Received("\0", 1, b""),
    )
    jobs: list[Any] = [[queues.RECORD_JOB, None, [[each]], {}] for each in strange]
    jobs += [[queues.RECORD_JOB, None, [], {}], [queues.RECORD_JOB, None, [7], {}], "words", 7]
    for data in (b"\xc1", *map(msgpack.encode, jobs)):
        job_id = plant(events, data)
        events.connection.lrem(events.key, 1, job_id)
        events.connection.zadd(events.failed_job_registry.key, {job_id: now.timestamp() + FAILURE_TTL})
    events.connection.hset(Job.key_for(job_id), mapping={"meta": msgpack.encode("no mapping")})
    events.connection.zadd(events.failed_job_registry.key, {"vanished": now.timestamp() + FAILURE_TTL})
    fail(process, arrived(told(now, 2)), "ValueError: x")
    assert quarantine_failed(conn, events) == 2


def test_job_that_stands_in_no_queue_is_put_back_and_one_that_stands_anywhere_is_not(
    process: Process, conn: Connection, events: Queue, now: datetime
) -> None:
    batch = told(now, 4)
    for each in batch:
        enqueue_events(events, [received(each)])
    lost, waiting, taken, working = events.get_job_ids()
    for job_id in (lost, taken, working):
        events.connection.lrem(events.key, 1, job_id)
    events.connection.rpush(events.intermediate_queue_key, taken)
    events.connection.zadd(events.started_job_registry.key, {f"{working}:execution": now.timestamp() + 600})
    assert requeue_orphans(events, now) == 0  # too young: it may stand between two commands
    later = now + ORPHANED + timedelta(minutes=1)
    assert requeue_orphans(events, later) == 1
    assert events.get_job_ids() == [waiting, lost]
    assert requeue_orphans(events, later) == 0


def test_orphans_of_one_queue_are_not_put_into_another(process: Process, events: Queue, now: datetime) -> None:
    enqueue_events(events, arrived(told(now, 1)))
    events.connection.delete(events.key)
    later = now + ORPHANED + timedelta(minutes=1)
    assert [requeue_orphans(process.queue(name), later) for name in (EVALUATE, ALERTS, EVENTS)] == [0, 0, 1]


# --- the clock --------------------------------------------------------------------------------------------------------


def test_news_that_no_evaluation_saw_is_enqueued_again(
    process: Process, conn: Connection, redis: Redis, now: datetime
) -> None:
    """A worker was killed between its commit and the evaluation's job."""
    record(conn, arrived(told(now, 1)), now)
    run_due(conn, redis, now - timedelta(minutes=1))
    assert process.queue(EVALUATE).count == 0
    run_due(conn, redis, datetime.now(UTC) + timedelta(minutes=1))
    assert process.queue(EVALUATE).count == 1


def test_those_whose_day_is_over_are_learnt_and_nobody_else(
    process: Process, conn: Connection, redis: Redis, now: datetime
) -> None:
    record(conn, arrived([paid(int(now.timestamp()) - 3 * 86_400)], source="older"), now)
    record(conn, arrived([paid(int(now.timestamp()))], source="newcomer"), now)
    lessons = Lessons(redis, PLANS)
    lessons.look(conn, now)
    lessons.run_once(now)
    assert [list(job.args) for job in process.queue(EVALUATE).get_jobs()] == [["older", True]]
    work(process, EVALUATE)
    lessons.look(conn, now)
    lessons.run_once(now)
    assert process.queue(EVALUATE).count == 0


def test_lessons_are_handed_out_a_few_at_a_time_and_never_starve(
    process: Process, conn: Connection, redis: Redis, now: datetime
) -> None:
    before, queue = [paid(int(now.timestamp()) - 3 * 86_400)], process.queue(EVALUATE)
    for number in range(6):
        record(conn, arrived(before, source=f"shop-{number}"), now)
    lessons = Lessons(redis, PLANS)
    lessons.look(conn, now)
    for _ in range(3):  # an evaluation that comes now waits for two
        lessons.run_once(now)
        assert queue.count == 2
    for number in range(4):
        enqueue_evaluation(queue, Tenant(f"busy-{number}", True))
    for seconds, count in ((1, 6), (2, 7), (3, 7), (4, 8)):  # every two seconds, though the queue is full
        lessons.run_once(now + timedelta(seconds=seconds))
        assert queue.count == count
    redis.delete(queue.key)
    lessons.look(conn, now)  # all are due still, and first comes who had no turn; marks of the others stand
    lessons.run_once(now + timedelta(seconds=5))
    assert [job.args[0] for job in queue.get_jobs()] == ["shop-4", "shop-5"]
    lessons.run_once(now + timedelta(seconds=60))
    assert queue.count == 2


def test_every_minute_those_that_time_can_change_are_judged(
    process: Process, conn: Connection, redis: Redis, now: datetime
) -> None:
    record(conn, arrived(told(now, 1)), now)
    old = now - timedelta(days=40)
    record(conn, arrived([paid(int(old.timestamp()))], source="asleep"), now)
    record(conn, arrived([paid(int(old.timestamp()))], source="troubled"), now)
    incidents.open_incident(conn, incident(tenant=Tenant("troubled", True)))
    run_evaluations(conn, redis, now)
    judged = sorted(job.args[0] for job in process.queue(EVALUATE).get_jobs())
    assert judged == ["default", "troubled"]


def test_rescue_and_orphans_come_with_the_clock(
    process: Process, conn: Connection, redis: Redis, now: datetime
) -> None:
    events = process.queue(EVENTS)
    fail(process, arrived(told(now, 2)), "ValueError: x")
    enqueue_events(events, arrived(told(now, 1)))
    events.connection.delete(events.key)
    run_rescue(conn, redis, now)
    run_orphans(conn, redis, now + ORPHANED + timedelta(minutes=1))
    assert (len(quarantine.read_all(conn)), events.count) == (2, 1)


def test_round_comes_when_its_time_has_come_and_not_before(
    process: Process, conn: Connection, redis: Redis, now: datetime
) -> None:
    clock, alerts = Clock(process), process.queue(ALERTS)
    for monotonic, expected in ((100.0, 1), (100.1, 0), (100.25, 1)):
        outbox.stage(conn, None, "ops", "test", "", now, now)
        begin_sending(redis, "ops")
        redis.delete(alerts.key)
        clock.run_once(conn, now, monotonic)
        assert bool(alerts.count) == bool(expected)
    assert conn.execute("SELECT count(*) >= 4 FROM pg_inherits WHERE inhparent = 'events'::regclass").fetchone() == (
        True,
    )


def test_rounds_that_fail_do_not_stop_the_others_and_are_told_once(
    process: Process,
    conn: Connection,
    now: datetime,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def logged() -> list[str]:
        text = capsys.readouterr().out + caplog.text
        caplog.clear()
        return [word for word in ("round_failed", "round_works_again") if word in text]

    caplog.set_level("INFO")
    conn.execute("ALTER TABLE claims RENAME TO mislaid")  # housekeeping's
    plant(process.queue(EVENTS), b"", enqueued_at="yesterday")  # the orphans'
    outbox.stage(conn, None, "ops", "test", "", now, now)
    clock = Clock(process)
    clock.run_once(conn, now, 0.0)
    assert process.queue(ALERTS).count == 1
    assert logged() == ["round_failed"]
    clock.run_once(conn, now, 3600.0)
    assert logged() == []
    conn.execute("ALTER TABLE mislaid RENAME TO claims")
    clock.run_once(conn, now, 7200.0)
    assert logged() == ["round_works_again"]


def test_of_two_clocks_one_leads_and_the_other_takes_over_when_it_dies(conn: Connection, process: Process) -> None:
    def leaders() -> list[int]:
        return [
            pid
            for (pid,) in conn.execute(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = %s", (LEADER_LOCK,)
            )
        ]

    stop = Event()
    clocks = [Thread(target=run, args=(process.twin("clock"), stop)) for _ in range(2)]
    try:
        for clock in clocks:
            clock.start()
        (first,) = until(leaders)
        until(lambda: len(sessions(conn)) == 2)
        assert leaders() == [first]
        conn.execute("SELECT pg_terminate_backend(%s)", (first,))
        (second,) = until(lambda: [pid for pid in leaders() if pid != first])
        assert leaders() == [second]
    finally:
        stop.set()
        for clock in clocks:
            clock.join(20)
    until(lambda: not sessions(conn))


def sessions(conn: Connection) -> list[int]:
    rows = conn.execute(
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = 'billingwatch clock' AND datname = current_database()"
    )
    return [pid for (pid,) in rows]


def test_leader_lock_is_one_connections(conn: Connection, database_url: str) -> None:
    ask = "SELECT pg_try_advisory_lock(%s)"
    with connect(database_url, "tests") as other:
        assert conn.execute(ask, (LEADER_LOCK,)).fetchone() == (True,)
        assert other.execute(ask, (LEADER_LOCK,)).fetchone() == (False,)
