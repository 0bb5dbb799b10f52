"""The functions that RQ calls, by the names in `billingwatch.queues`. Each may run twice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from rq import get_current_job
from rq.job import Job

from billingwatch import queues
from billingwatch.model import Tenant
from billingwatch.queues import ALERTS, EVALUATE, EVENTS, RETRIES, Received
from billingwatch.store import outbox
from notify.send import load
from worker.company import company
from worker.deliver import drain
from worker.evaluate import evaluate as evaluate_tenant
from worker.lanes import Lanes
from worker.learn import learn as learn_tenant
from worker.lookout import looking
from worker.process import Process, current
from worker.record import record as record_batch
from worker.record import record_each

log = structlog.get_logger(__name__)

BEHIND = timedelta(minutes=1)  # that our own queue may be, before absence means nothing


def record(batch: Sequence[object]) -> None:
    """Store a batch of verified events and those of the jobs behind it, then have their tenants judged.

    When that failed the job comes again, and then alone and event by event: whatever made it fail, be it in
    another job's events, is told apart from what is well.
    """
    process = current()
    filters = process.plans.filters
    own = [msgspec.convert(each, Received) for each in batch]
    if _tried_before(get_current_job()):
        recorded = process.store(lambda conn: record_each(conn, own, datetime.now(UTC), filters))
    else:
        with company(process.queue(EVENTS), len(own)) as others:
            received = [*own, *others]
            recorded = process.store(lambda conn: record_batch(conn, received, datetime.now(UTC), filters))
    log.info("recorded", new=recorded.new, seen=recorded.seen, refused=recorded.refused)
    evaluate_queue = process.queue(EVALUATE)
    for tenant in recorded.tenants:
        queues.enqueue_evaluation(evaluate_queue, tenant)


def _tried_before(job: Job | None) -> bool:
    return job is not None and job.retries_left is not None and job.retries_left < RETRIES


def evaluate(account: str, livemode: bool) -> None:
    """Judge one tenant as of now, or of the oldest event still queued: a backlog delays judgement."""
    process = current()
    tenant = Tenant(account, livemode)
    queues.begin_evaluation(process.redis, tenant)
    waiting = queues.oldest_waiting(process.queue(EVENTS))
    now = datetime.now(UTC)
    at = min(filter(None, (now, waiting)))
    plan, policy = process.plans.of(account, livemode), process.policy
    behind = now - at > BEHIND
    if process.store(lambda conn: evaluate_tenant(conn, tenant, at, plan, policy, backlog=behind)):
        for channel in process.store(lambda conn: outbox.due_channels(conn, now)):
            queues.enqueue_sending(process.queue(ALERTS), channel)


def learn(account: str, livemode: bool) -> None:
    """Learn one tenant's baselines, if it is time to."""
    process = current()
    tenant = Tenant(account, livemode)
    queues.begin_lesson(process.redis, tenant)
    plan = process.plans.of(account, livemode)
    if process.store(lambda conn: learn_tenant(conn, tenant, datetime.now(UTC), plan)):
        log.info("learned", account=account, livemode=livemode)
        queues.enqueue_evaluation(process.queue(EVALUATE), tenant)


def send(channel: str) -> None:
    """Send what is due for one channel; beside the jobs where the process has lanes, so that it holds up no other."""
    process = current()
    queues.begin_sending(process.redis, channel)
    if process.lanes is None:
        drain(process, channel)
    else:
        process.lanes.start(channel)


def deliver(alert: int) -> None:
    """The job of the release before: send what is due for the alert's channel."""
    channel = current().store(lambda conn: outbox.channel_of(conn, alert))
    if channel is not None:
        send(channel)


@contextmanager
def send_in_lanes(process: Process) -> Iterator[None]:
    """Inside, the process sends each channel's messages in a thread with a connection of its own; at the end all that
    is under way is done.
    """
    load()  # Apprise takes a second to import; the first alert shall not wait for it

    def work(channel: str) -> None:
        own = process.twin(f"{process.name} {channel}")
        try:
            drain(own, channel)
        finally:
            own.drop()

    process.lanes = Lanes(work)
    try:
        with looking(process, process.lanes):
            yield
    finally:
        process.lanes.close()
