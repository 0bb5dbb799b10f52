"""The functions that RQ calls, by the names in `billingwatch.queues`. Each may run twice."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec
import psycopg
import structlog
from psycopg import Connection
from rq import get_current_job
from rq.job import Job

from billingwatch import queues
from billingwatch.model import Tenant
from billingwatch.queues import ALERTS, EVALUATE, EVENTS, RETRIES, Received
from billingwatch.store.connection import RefusedError, StoreAwayError, away, refused
from worker.company import company
from worker.deliver import deliver as deliver_alert
from worker.evaluate import evaluate as evaluate_tenant
from worker.learn import learn as learn_tenant
from worker.process import PATIENCE, Process, current
from worker.record import record as record_batch
from worker.record import record_each

log = structlog.get_logger(__name__)

T = TypeVar("T")
BEHIND = timedelta(minutes=1)  # that our own queue may be, before absence means nothing
DEADLOCKED = "40P01"
TRIES = 5  # of a transaction that Postgres sacrificed to another


def record(batch: Sequence[object]) -> None:
    """Store a batch of verified events and those of the jobs behind it, then have their tenants judged.

    When that failed the job comes again, and then alone and event by event: whatever made it fail, be it in
    another job's events, is told apart from what is well.
    """
    process = current()
    filters = process.plans.filters
    own = [msgspec.convert(each, Received) for each in batch]
    if _tried_before(get_current_job()):
        recorded = _with_store(process, lambda conn: record_each(conn, own, datetime.now(UTC), filters))
    else:
        with company(process.queue(EVENTS), len(own)) as others:
            received = [*own, *others]
            recorded = _with_store(process, lambda conn: record_batch(conn, received, datetime.now(UTC), filters))
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
    plan, channels = process.plans.of(account, livemode), process.rules.route.channels
    behind = now - at > BEHIND
    staged = _with_store(process, lambda conn: evaluate_tenant(conn, tenant, at, plan, channels, backlog=behind))
    alerts = process.queue(ALERTS)
    for alert in staged:
        queues.enqueue_delivery(alerts, alert)


def learn(account: str, livemode: bool) -> None:
    """Learn one tenant's baselines, if it is time to."""
    process = current()
    tenant = Tenant(account, livemode)
    queues.begin_lesson(process.redis, tenant)
    plan = process.plans.of(account, livemode)
    if _with_store(process, lambda conn: learn_tenant(conn, tenant, datetime.now(UTC), plan)):
        log.info("learned", account=account, livemode=livemode)
        queues.enqueue_evaluation(process.queue(EVALUATE), tenant)


def deliver(alert: int) -> None:
    """Send one alert of the outbox, if it is due."""
    process = current()
    _with_store(process, lambda conn: deliver_alert(conn, alert, process.rules.channels, datetime.now(UTC)))


def _with_store(process: Process, work: Callable[[Connection], T]) -> T:
    """Do `work` on the connection. Where Postgres went away, wait for it once.

    Raises StoreAwayError or RefusedError, without the row's contents that Postgres quotes.
    """
    for attempt in range(TRIES):
        try:
            return work(process.conn())
        except (psycopg.Error, StoreAwayError) as error:
            process.drop()
            if isinstance(error, psycopg.Error) and refused(error):
                raise RefusedError(type(error).__name__) from None
            reason = error if isinstance(error, StoreAwayError) else away(error)
            if attempt and DEADLOCKED not in str(reason):
                raise reason from None
            log.warning("store_error", error=str(reason))
            process.wait(PATIENCE.total_seconds())
    raise StoreAwayError(f"deadlocked {TRIES} times")
