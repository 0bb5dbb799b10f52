"""Take the events of the jobs that wait behind a job into the same transaction.

RQ spends 63 commands on a job, so a backlog of small jobs, as a trickle during an outage leaves it, would drain more
slowly than it grew. The jobs are taken as RQ takes them, by LMOVE into the intermediate list, so that a worker that
is killed meanwhile leaves them where RQ's maintenance finds them; and recording is idempotent, so that none of this
needs a lock.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.utils import as_text

from billingwatch.queues import RECORD_JOB, Job, Queue, Received

log = structlog.get_logger(__name__)

MOST_EVENTS = 500  # a transaction, about; a job is taken whole
MOST_JOBS = 200  # taken beside the job itself
MOST_BYTES = 16 << 20  # of bodies, about; they stand in memory several times while they are stored


@contextmanager
def company(queue: Queue, events: int) -> Iterator[list[Received]]:
    """The events of waiting jobs, as long as fewer than MOST_EVENTS are together; `events` are there already.

    After the block those jobs are done; when it raises, they go back to the head of their queue.
    """
    taken: list[str] = []
    try:
        received = _take(queue, MOST_EVENTS - events, taken)
        yield received
    except BaseException:
        _give_back(queue, taken)
        raise
    _finish(queue, taken)


def _take(queue: Queue, room: int, taken: list[str]) -> list[Received]:
    """Move jobs out of the queue until `room` events are had; their ids are added to `taken` as they move."""
    received: list[Received] = []
    step, seen, size = 10, 0, 0  # what cannot be read goes back to the end, and may come by again
    while len(received) < room and seen < MOST_JOBS and size < MOST_BYTES:
        with queue.connection.pipeline(transaction=False) as pipe:
            for _ in range(step):
                pipe.lmove(queue.key, queue.intermediate_queue_key, "LEFT", "RIGHT")
            moved = [as_text(job_id) for job_id in pipe.execute() if job_id is not None]
        seen += len(moved)
        taken += moved
        news = [event for job_id in list(moved) for event in _events(queue, job_id, taken)]
        received += news
        size += sum(len(event.body) for event in news)
        if len(moved) < step:
            break
        step = min(2 * step, 50)
    return received


def _events(queue: Queue, job_id: str, taken: list[str]) -> list[Received]:
    """A job's events. One that cannot be read goes back, for a worker to take it alone and RQ to see it fail."""
    try:
        job = Job.fetch(job_id, connection=queue.connection, serializer=queue.serializer)
        if job.func_name != RECORD_JOB:
            raise LookupError(job.func_name)
        return [msgspec.convert(each, Received) for each in job.args[0]]
    except (NoSuchJobError, DeserializationError, msgspec.ValidationError, LookupError, TypeError, ValueError) as error:
        log.warning("job_not_joined", job=job_id, error=type(error).__name__)
        taken.remove(job_id)
        _give_back(queue, [job_id], at_front=False)
        return []


def _give_back(queue: Queue, job_ids: list[str], *, at_front: bool = True) -> None:
    with queue.connection.pipeline(transaction=True) as pipe:
        for job_id in reversed(job_ids):
            pipe.lrem(queue.intermediate_queue_key, 1, job_id)
            if at_front:
                pipe.lpush(queue.key, job_id)
            else:
                pipe.rpush(queue.key, job_id)
        pipe.execute()


def _finish(queue: Queue, job_ids: list[str]) -> None:
    with queue.connection.pipeline(transaction=True) as pipe:
        for job_id in job_ids:
            pipe.lrem(queue.intermediate_queue_key, 1, job_id)
            pipe.delete(Job.key_for(job_id))
        pipe.execute()
