"""The three queues, the job names that travel on them, and how a job looks on the wire.

Job names are wire format: an old name stays one release. MessagePack carries them, not pickle, so whoever can
write to Redis can run nothing in a worker but the functions named here.
"""

import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol

import msgspec
from redis import Redis
from rq import Queue as RQQueue
from rq import Retry
from rq.job import Job as RQJob
from rq.utils import as_text, import_attribute, str_to_date

from billingwatch.model import Tenant

EVENTS = "events"
EVALUATE = "evaluate"
ALERTS = "alerts"
QUEUES = (EVENTS, EVALUATE, ALERTS)

RECORD_JOB = "worker.jobs.record"
EVALUATE_JOB = "worker.jobs.evaluate"
SEND_JOB = "worker.jobs.send"
DELIVER_JOB = "worker.jobs.deliver"  # of the release before: one alert
LEARN_JOB = "worker.jobs.learn"
JOBS = frozenset({RECORD_JOB, EVALUATE_JOB, LEARN_JOB, SEND_JOB, DELIVER_JOB})

TIMEOUT = {EVENTS: 30, EVALUATE: 30, ALERTS: 60}  # seconds a job may run
RETRIES = 10  # crashes a job survives; without Retry RQ fails a job whose worker was killed once
FAILURE_TTL = 7 * 24 * 3600  # RQ's default keeps failed jobs, payloads included, for a year
MARK = "billingwatch:{verb}:{account}:{mode}"  # of a tenant's job that waits
SENDING = "billingwatch:send:{channel}"  # of a channel's job that waits
MARK_TTL = 60  # seconds; after a crash between mark and job, the clock marks anew
LESSON_TTL = 600  # seconds, of a lesson's mark: it may wait behind many evaluations


class Received(msgspec.Struct, frozen=True, array_like=True):
    """A verified event as it travels from the receiver to the worker.

    Its limits hold where it is read: what the receiver never writes is an unreadable job, and no fault of the store.
    """

    source: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9-]+\Z")]
    received_at: Annotated[float, msgspec.Meta(ge=0, lt=1 << 36)]  # epoch seconds
    body: bytes


class MessagePack:
    """RQ's serializer (an object with `dumps` and `loads`); give it to every Queue, Worker and dashboard."""

    @staticmethod
    def dumps(obj: Any) -> bytes:
        return msgspec.msgpack.encode(obj)

    @staticmethod
    def loads(data: bytes) -> Any:
        return msgspec.msgpack.decode(data)


class ForbiddenJobError(Exception):
    """Redis holds a job whose function is not on the list of this program's jobs."""


class Job(RQJob):
    """A job that runs only the functions named in `JOBS`, and is compressed fast."""

    @property
    def func(self) -> Callable[..., Any]:
        if self.instance is not None or self.func_name not in JOBS:
            raise ForbiddenJobError("not one of BillingWatch's jobs")
        function: Callable[..., Any] = import_attribute(self.func_name)
        return function

    def restore(self, raw_data: Any) -> None:
        super().restore(raw_data)
        # RQ would import and call what Redis names as callbacks, and ask the URLs it names as webhooks. No job of
        # ours has any.
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks = []

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        # RQ compresses at zlib's level 6, which costs the receiver 20 us an event; level 1 costs half of that for
        # a third more bytes, and reads back the same.
        data, self._data = self.data, b""
        fields: dict[str, Any] = super().to_dict(include_meta, include_result)
        self._data = data
        fields["data"] = zlib.compress(data, 1)
        return fields


class Queue(RQQueue):
    """RQ's queue with our job class, serializer and a maintenance lock that a killed worker cannot hold long."""

    job_class = Job

    def __init__(self, name: str = EVENTS, connection: Redis | None = None, **options: Any) -> None:
        # RQ makes queues itself, with options of its own.
        options |= {"serializer": MessagePack, "job_class": Job, "default_timeout": TIMEOUT.get(name, 30)}
        super().__init__(name, connection=connection, **options)

    def acquire_maintenance_lock(self) -> bool:
        # RQ holds it for 899 s; a worker killed inside maintenance would stop all recovery for 15 minutes.
        return bool(self.connection.set(self.registry_cleaning_key, 1, nx=True, ex=30))


class Pipeline(Protocol):
    """What buffers commands: redis-py's pipeline, or redis.asyncio's, whose commands buffer in the same way."""

    def hset(self, *args: Any, **kwargs: Any) -> Any: ...


def enqueue_events(queue: Queue, batch: Sequence[Received], pipeline: Pipeline | None = None) -> None:
    """One job for the whole batch. The description says how many and nothing of what is in them."""
    queue.enqueue_call(
        RECORD_JOB,
        args=(batch,),
        description=f"record {len(batch)} events",
        result_ttl=0,
        failure_ttl=FAILURE_TTL,
        retry=Retry(max=RETRIES, enqueue_at_front=True),
        pipeline=pipeline,  # type: ignore[arg-type]
    )


def enqueue_evaluation(queue: Queue, tenant: Tenant) -> bool:
    """A job that evaluates the tenant's detectors, unless one is waiting already; True if it was enqueued.

    The job takes the mark away before it reads (`begin_evaluation`), so what is committed after that
    enqueues the next one and no change is ever left unjudged.
    """
    return _enqueue_once(queue, EVALUATE_JOB, tenant, MARK_TTL)


def enqueue_lesson(queue: Queue, tenant: Tenant) -> bool:
    """A job that learns the tenant's baselines anew, in the evaluations' queue; True unless one was just enqueued."""
    return _enqueue_once(queue, LEARN_JOB, tenant, LESSON_TTL)


def begin_lesson(connection: Redis, tenant: Tenant) -> None:
    """Take the mark away."""
    connection.delete(_mark(LEARN_JOB, tenant))


def oldest_waiting(queue: Queue) -> datetime | None:
    """When the oldest job that is queued or being worked on was made; None where nothing waits.

    A retried job comes back to the head of its queue, so the head is the oldest.
    """
    redis = queue.connection
    head = map(as_text, redis.lrange(queue.key, 0, 0))
    taken = map(as_text, redis.lrange(queue.intermediate_queue_key, 0, -1))
    working = queue.started_job_registry.get_job_ids(cleanup=False)
    with redis.pipeline(transaction=False) as pipe:
        for job_id in {*head, *taken, *working}:
            pipe.hget(Job.key_for(job_id), "created_at")
        moments = [str_to_date(value) for value in pipe.execute() if value]
    return min(moments, default=None)


def begin_evaluation(connection: Redis, tenant: Tenant) -> None:
    """Take the mark away: what is committed from now on needs another evaluation."""
    connection.delete(_mark(EVALUATE_JOB, tenant))


def enqueue_sending(queue: Queue, channel: str) -> bool:
    """A job that sends what is due for the channel, unless one is waiting already; True if it was enqueued."""
    if not queue.connection.set(SENDING.format(channel=channel), 1, nx=True, ex=MARK_TTL):
        return False
    queue.enqueue_call(
        SEND_JOB,
        args=(channel,),
        description=f"send to {channel}",
        result_ttl=0,
        failure_ttl=FAILURE_TTL,
        retry=Retry(max=RETRIES),
    )
    return True


def begin_sending(connection: Redis, channel: str) -> None:
    """Take the mark away."""
    connection.delete(SENDING.format(channel=channel))


def _enqueue_once(queue: Queue, job: str, tenant: Tenant, ttl: int) -> bool:
    """Enqueue the tenant's job unless its mark stands, which it does for `ttl` seconds at most."""
    if not queue.connection.set(_mark(job, tenant), 1, nx=True, ex=ttl):
        return False
    queue.enqueue_call(
        job,
        args=(tenant.account, tenant.livemode),
        description=f"{_verb(job)} {tenant.account} {_mode(tenant)}",
        result_ttl=0,
        failure_ttl=FAILURE_TTL,
        retry=Retry(max=RETRIES),
    )
    return True


def _mark(job: str, tenant: Tenant) -> str:
    return MARK.format(verb=_verb(job), account=tenant.account, mode=_mode(tenant))


def _verb(job: str) -> str:
    return job.rpartition(".")[2]


def _mode(tenant: Tenant) -> str:
    return "live" if tenant.livemode else "test"
