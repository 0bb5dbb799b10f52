"""Tell one channel what waits for it: claim, send, write down what became of it, and tell others where it is broken."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog
from psycopg import Connection

from billingwatch.model import OWN
from billingwatch.picture import Hours, draw
from billingwatch.store import deliveries, incidents, outbox
from billingwatch.store.deliveries import Outcome as Ended
from notify import digest
from notify.breaker import broken
from notify.decision import HOUR
from notify.payload import payload
from notify.retry import LIMIT, delay
from notify.send import Delivery, send, takes_pictures
from worker.claim import UNCONFIGURED, Claimed, Decided, outcomes, take
from worker.desk import Desk
from worker.digest_picture import digest_picture
from worker.health import end_own, raise_own
from worker.picture import read_hours
from worker.process import Process

log = structlog.get_logger(__name__)

BROKEN = "channel_broken"


def drain(process: Process, name: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
    """Send all that is due for the channel, message by message, until it is told to stop; how many were tried."""
    desk, tried, decided = Desk.of(process), 0, Decided()
    while not process.stopping.is_set():
        now = clock()
        claimed = process.store(lambda conn: take(conn, name, desk, now, decided))  # noqa: B023 - done before it changes
        if claimed is None:
            break
        drawn = picture(process, name, claimed, desk)
        delivery = dispatch(name, claimed, desk, drawn)
        ended = clock()
        process.store(lambda conn: finish(conn, name, claimed, delivery, desk, ended))  # noqa: B023
        for template, fault in desk.templates.take_faults().items():
            log.warning("template_failed", template=template, why=fault, hint="the shipped one stood in")
        if not delivery.ok:
            decided.keep([], ended)  # the channel may be left alone now
        tried += 1
    return tried


def hours_of(conn: Connection, name: str, claimed: Claimed, desk: Desk) -> Hours | None:
    """What a picture of the incident is drawn from; None where there is none, or the channel takes none."""
    channel = desk.channel(name)
    if channel is None or len(claimed.tellings) != 1 or not takes_pictures(channel):
        return None
    incident = claimed.tellings[0].incident
    plan = desk.plans.of(incident.tenant.account, incident.tenant.livemode)
    return None if incident.tenant == OWN else read_hours(conn, incident, plan, claimed.at)


def picture(process: Process, name: str, claimed: Claimed, desk: Desk) -> bytes | None:
    """The PNG that goes with the message; None where it has none. It never costs the message."""
    try:
        if claimed.kind == "digest":
            return digest_picture(digest.read(claimed.alerts[0].content or {}))
        hours = process.store(lambda conn: hours_of(conn, name, claimed, desk))
        incident = claimed.tellings[0].incident if hours else None
        return draw(incident, hours, desk.zone(incident.tenant)) if hours and incident else None
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a picture, the words must go out
        log.error("no_picture", delivery=claimed.delivery, error=type(error).__name__)
        return None


def dispatch(name: str, claimed: Claimed, desk: Desk, picture: bytes | None = None) -> Delivery:
    """Send it; never raises on account of the channel."""
    channel = desk.channel(name)
    if channel is None:
        return Delivery(ok=False, permanent=True, error=UNCONFIGURED)
    id_ = f"msg_{claimed.root}"
    try:
        body = payload(channel.format, claimed.tellings, claimed.message, claimed.at, id_, desk.base_url)
    except Exception as error:  # noqa: BLE001 - as with words: what is left is a bare notice
        log.error("no_words", delivery=claimed.delivery, error=type(error).__name__)
        body = None
    return send(channel, claimed.message, picture=picture, payload=body, id=id_)


def finish(conn: Connection, name: str, claimed: Claimed, delivery: Delivery, desk: Desk, now: datetime) -> None:
    """Write down what became of it. The outbox is the only retry engine: a failure writes the next try.

    A channel that is broken is told on the others; one that works again, too.
    """
    told = {"delivery": claimed.delivery, "channel": name, "alerts": len(claimed.alerts), "kind": claimed.kind}
    with conn.transaction():
        outcome: Ended = "sent" if delivery.ok else "refused" if delivery.permanent else "failed"
        deliveries.end(conn, claimed.delivery, outcome, delivery.error, now)
        if delivery.ok:
            outbox.sent(conn, claimed.delivery, now)
            log.info("alert_sent", **told, attempts=claimed.attempts)
        elif (wait := _wait(claimed, delivery, now)) is None:
            outbox.give_up(conn, claimed.delivery, delivery.error)
            log.error("alert_given_up", **told, why=delivery.error)
        else:
            outbox.give_up(conn, claimed.delivery, delivery.error, before=now - LIMIT)
            outbox.again(conn, claimed.delivery, now + wait, delivery.error)
            log.warning("alert_failed", **told, why=delivery.error, next_try_in=str(wait))
        _judge(conn, name, desk, now)


def _wait(claimed: Claimed, delivery: Delivery, now: datetime) -> timedelta | None:
    """Until the next try; None where there is none. A test is told as it went."""
    if delivery.permanent or claimed.kind == "test":
        return None
    waited = now - claimed.at + claimed.waited
    wait = delay(claimed.attempts, random.random(), waited)  # noqa: S311 - jitter is no secret
    if wait is not None and delivery.retry_after is not None:
        return max(wait, min(timedelta(seconds=delivery.retry_after), HOUR))
    return wait


def _judge(conn: Connection, name: str, desk: Desk, now: datetime) -> None:
    """Open or end the incident about the channel."""
    known = outcomes(conn, name)
    why = broken(known, now)
    if why:
        count, titles = deliveries.undelivered(conn, name)
        missing = f" Not delivered there: {'; '.join(titles)}" if titles else ""
        more = f" and {count - len(titles)} more" if count > len(titles) else ""
        raise_own(
            conn,
            detector=BROKEN,
            scope=name,
            severity="high",
            observed=float(sum(each.result != "sent" for each in known)),
            limit=1.0,
            why=f"channel {name}: {why}.{missing}{more}",
            at=now,
            policy=desk.policy,
        )
    elif known and known[-1].result == "sent":
        end_own(conn, detector=BROKEN, scope=name, at=now, policy=desk.policy)


def retire(conn: Connection, desk: Desk, now: datetime) -> int:
    """End the incidents of channels that are not configured any more; how many."""
    gone = [name for name in incidents.scopes(conn, OWN, BROKEN) if desk.channel(name) is None]
    with conn.transaction():
        return sum(end_own(conn, detector=BROKEN, scope=name, at=now, policy=desk.policy) for name in gone)
