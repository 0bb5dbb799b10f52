"""What a job looks like in Redis, and what the queues answer; on fakeredis, since no worker runs here."""

import pytest
from fakeredis import FakeRedis

from billingwatch import queues
from billingwatch.model import Tenant
from billingwatch.queues import ALERTS, EVALUATE, EVENTS, Job, MessagePack, Queue, Received

TENANT = Tenant("acct_1", True)
BATCH = [Received("default", 1_790_000_000.5, b'{"id": "evt_1", "email": "jo@shop.example"}')] * 37


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


def first_job(redis: FakeRedis, name: str) -> Job:
    """The job at the head of the queue, as a worker would read it."""
    job = Job.fetch(Queue(name, redis).get_job_ids()[0], connection=redis, serializer=MessagePack)
    assert isinstance(job, Job)
    return job


def test_a_batch_is_one_job_that_comes_back_as_it_was_and_says_nothing_of_it(redis: FakeRedis) -> None:
    queues.enqueue_events(Queue(EVENTS, redis), BATCH)
    job = first_job(redis, EVENTS)
    assert job.func_name == queues.RECORD_JOB
    assert job.args[0] == [["default", 1_790_000_000.5, BATCH[0].body]] * 37
    assert job.description == "record 37 events"
    assert job.retries_left == queues.RETRIES
    assert (job.result_ttl, job.failure_ttl) == (0, 7 * 24 * 3600)


def test_what_lies_in_redis_is_no_pickle(redis: FakeRedis) -> None:
    queues.enqueue_sending(Queue(ALERTS, redis), "ops")
    job = first_job(redis, ALERTS)
    assert MessagePack.loads(job.data) == [queues.SEND_JOB, None, ["ops"], {}]


def test_evaluations_of_a_tenant_are_one_until_it_begins(redis: FakeRedis) -> None:
    queue = Queue(EVALUATE, redis)
    assert queues.enqueue_evaluation(queue, TENANT)
    assert not queues.enqueue_evaluation(queue, TENANT)
    assert queues.enqueue_evaluation(queue, Tenant("acct_1", False))  # the test mode is another tenant
    queues.begin_evaluation(redis, TENANT)
    assert queues.enqueue_evaluation(queue, TENANT)
    assert len(queue) == 3


def test_a_channels_jobs_are_one_until_it_begins(redis: FakeRedis) -> None:
    queue = Queue(ALERTS, redis)
    assert [queues.enqueue_sending(queue, name) for name in ("ops", "ops", "mail")] == [True, False, True]
    queues.begin_sending(redis, "ops")
    assert queues.enqueue_sending(queue, "ops")


def test_the_oldest_job_is_known_wherever_it_is(redis: FakeRedis) -> None:
    queue = Queue(EVENTS, redis)
    assert queues.oldest_waiting(queue) is None
    for _ in range(3):
        queues.enqueue_events(queue, BATCH)
    first = first_job(redis, EVENTS)
    assert queues.oldest_waiting(queue) == first.created_at
    redis.lmove(queue.key, queue.intermediate_queue_key, "LEFT", "RIGHT")  # as a worker takes it
    assert queues.oldest_waiting(queue) == first.created_at
