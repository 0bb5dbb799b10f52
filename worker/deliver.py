"""Send one alert of the outbox: claim it, send it to its channel, write down what became of it."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime

import structlog
from psycopg import Connection

from billingwatch.store import outbox
from notify.retry import delay
from notify.route import CONSOLE
from notify.send import CONSOLE as CONSOLE_URL
from notify.send import Delivery, send

log = structlog.get_logger(__name__)

UNCONFIGURED = Delivery(ok=False, permanent=True, error="the channel is not configured any more")


def deliver(conn: Connection, alert_id: int, channels: Mapping[str, str], now: datetime) -> bool | None:
    """True when the alert arrived, False when it did not, None when it was not ours to send.

    The row is the only retry engine: a failure writes the next try, and the clock comes back for it.
    """
    alert = outbox.claim(conn, alert_id, now)
    if alert is None:
        return None
    url = channels.get(alert.channel, CONSOLE_URL if alert.channel == CONSOLE else "")
    delivery = send(url, alert.title, alert.body) if url else UNCONFIGURED
    finished, jitter = datetime.now(UTC), random.random()  # noqa: S311 - jitter is no secret
    if delivery.ok:
        outbox.mark_sent(conn, alert, finished)
        log.info("alert_sent", alert=alert.id, channel=alert.channel, reason=alert.reason, attempts=alert.attempts)
        return True
    wait = None if delivery.permanent else delay(alert.attempts, jitter, finished - alert.staged_at)
    if wait is None:
        outbox.mark_given_up(conn, alert, finished, delivery.error)
        log.error("alert_given_up", alert=alert.id, channel=alert.channel, why=delivery.error)
    else:
        outbox.mark_retry(conn, alert, finished + wait, delivery.error)
        log.warning("alert_failed", alert=alert.id, channel=alert.channel, why=delivery.error, next_try_in=str(wait))
    return False
