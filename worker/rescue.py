"""What RQ alone would lose: failed jobs' events go to quarantine, orphaned jobs back into their queue."""

from datetime import datetime, timedelta

import msgspec
import structlog
from psycopg import Connection
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.utils import as_text, str_to_date

from billingwatch.queues import RECORD_JOB, Job, Queue, Received
from billingwatch.store import quarantine
from billingwatch.store.connection import StoreAwayError
from billingwatch.store.quarantine import Refusal

log = structlog.get_logger(__name__)

COPIED = "quarantined"  # in the job's meta, once its events are copied
ORPHANED = timedelta(minutes=5)  # a queued job that stands nowhere for so long was dropped between two commands


def quarantine_failed(conn: Connection, queue: Queue) -> int:
    """Copy the events of jobs that failed for good into quarantine; how many events.

    The failed job stays for its days, to be inspected. One that failed because Postgres was away goes back
    into the queue instead: nothing is wrong with its events.
    """
    held = 0
    for job_id in queue.failed_job_registry.get_job_ids():
        try:
            job = Job.fetch(job_id, connection=queue.connection, serializer=queue.serializer)
            if job.meta.get(COPIED) or job.func_name != RECORD_JOB:
                continue
            batch = [msgspec.convert(each, Received) for each in job.args[0]]
        except NoSuchJobError:
            continue
        except (DeserializationError, msgspec.ValidationError, AttributeError, LookupError, TypeError, ValueError):
            log.error("unreadable_job", job=job_id)
            continue
        reason = _reason(job)
        if StoreAwayError.__name__ in reason:
            queue.failed_job_registry.requeue(job_id)
            continue
        with conn.transaction():
            held += quarantine.hold(
                conn, [Refusal(each.source, each.received_at, each.body, f"its job failed: {reason}") for each in batch]
            )
        job.meta[COPIED] = True
        job.save_meta()  # type: ignore[no-untyped-call]
    return held


def requeue_orphans(queue: Queue, now: datetime) -> int:
    """Put jobs that are queued, by their own word, and stand in no queue, back into it; how many.

    BLMOVE leaves none, but a Redis restored from an older copy may, and so may the next RQ.
    """
    redis = queue.connection
    waiting: dict[str, datetime] = {}
    for key in redis.scan_iter(match=f"{Job.redis_job_namespace_prefix}*", count=1000, _type="hash"):
        status, origin, enqueued_at = redis.hmget(key, "status", "origin", "enqueued_at")
        if status == JobStatus.QUEUED.value.encode() and origin == queue.name.encode() and enqueued_at:
            waiting[key.decode().removeprefix(Job.redis_job_namespace_prefix)] = str_to_date(enqueued_at)
    overdue = {job_id for job_id, since in waiting.items() if now - since > ORPHANED}
    if not overdue:
        return 0
    known = {*map(as_text, redis.lrange(queue.key, 0, -1))}
    known |= {*map(as_text, redis.lrange(queue.intermediate_queue_key, 0, -1))}
    known |= set(queue.started_job_registry.get_job_ids(cleanup=False))
    for job_id in overdue - known:
        redis.rpush(queue.key, job_id)
    return len(overdue - known)


def _reason(job: RQJob) -> str:
    """The last line of the traceback that RQ kept: the error's name, and a message that holds no data by rule."""
    result = job.latest_result()
    lines = (result.exc_string or "").strip().splitlines() if result else []
    return lines[-1][:200] if lines else "unknown"
