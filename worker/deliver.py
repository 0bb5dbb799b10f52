"""Tell one channel what waits for it: decide and claim in one transaction, send, write down what became of it.

Whoever dies between sending and marking leaves a message in doubt: it is sent once more, and says so.
"""

import random
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from msgspec import Struct
from psycopg import Connection

from billingwatch.model import DRILL, OWN, Alert
from billingwatch.picture import Hours, draw
from billingwatch.store import deliveries, incidents, links, outbox, silences
from billingwatch.store.deliveries import Kind
from billingwatch.store.deliveries import Outcome as Ended
from notify import digest
from notify.breaker import Outcome, broken, opened
from notify.decision import HOUR, Hold, Pending, Scene, decide
from notify.link import linker
from notify.message import compose, sample, summarise
from notify.payload import payload
from notify.retry import delay
from notify.route import Routed, labels, route
from notify.send import Delivery, send, takes_pictures
from notify.telling import Linker, Message, Telling
from worker.desk import Desk
from worker.digest_picture import digest_picture
from worker.health import end_own, raise_own
from worker.picture import read_hours
from worker.process import Process

log = structlog.get_logger(__name__)

UNCONFIGURED = "the channel is not configured any more"
BROKEN = "channel_broken"
REMEMBERED = timedelta(days=2)  # longer than any interval between updates


class Claimed(Struct, frozen=True, kw_only=True):
    """A message that is ours to send. `root` is its id for whoever receives it twice."""

    delivery: int
    root: int
    kind: Kind
    alerts: tuple[Alert, ...]
    tellings: tuple[Telling, ...]
    message: Message
    at: datetime

    @property
    def attempts(self) -> int:
        return max(each.attempts for each in self.alerts) + 1

    @property
    def waited(self) -> timedelta:
        return self.at - min(each.first_try or self.at for each in self.alerts)


def drain(process: Process, name: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
    """Send everything that is due for the channel, message by message; how many were tried."""
    desk, tried = Desk.of(process), 0
    while True:
        now = clock()
        claimed = process.store(lambda conn: take(conn, name, desk, now))  # noqa: B023 - done before it changes
        if claimed is None:
            return tried
        drawn = picture(process, name, claimed, desk)
        delivery = dispatch(name, claimed, desk, drawn)
        ended = clock()
        process.store(lambda conn: finish(conn, name, claimed, delivery, desk, ended))  # noqa: B023
        for template, fault in desk.templates.take_faults().items():
            log.warning("template_failed", template=template, why=fault, hint="the shipped one stood in")
        tried += 1


def take(conn: Connection, name: str, desk: Desk, now: datetime) -> Claimed | None:
    """Decide about all that is due for the channel, and claim the first message; None where nothing is to be sent."""
    with conn.transaction():
        outbox.lock(conn, name)
        doubt = outbox.doubt(conn, name, now)
        if doubt:
            deliveries.end(conn, doubt.delivery, "unknown", "its sender was interrupted", now)
            kind, root = deliveries.root(conn, doubt.delivery)
            return _claim(
                conn, name, kind, _pending(conn, name, doubt.alerts, desk, now), doubt.alerts, desk, now, root
            )
        waiting = outbox.waiting(conn, name, now)
        if desk.channel(name) is None:
            outbox.drop(conn, waiting, UNCONFIGURED)
            return None
        alone = next((each for each in waiting if each.incident is None), None)
        if alone is not None:
            kind_: Kind = "test" if alone.reason == "test" else "digest"
            return _claim(conn, name, kind_, [], [alone], desk, now)
        verdicts = decide(_pending(conn, name, waiting, desk, now), _scene(conn, name, waiting, desk, now))
        if verdicts.bundles and verdicts.bundles[0].kind == "summary":
            # It is the hour's only one, so what is new of others is told in it, too.
            waiting = outbox.waiting(conn, name, now, everyone=True)
            verdicts = decide(_pending(conn, name, waiting, desk, now), _scene(conn, name, waiting, desk, now))
        for pending, answer in verdicts.others:
            if isinstance(answer, Hold):
                outbox.hold(conn, pending.alerts, answer.until, answer.why, answer.cause)
            else:
                outbox.drop(conn, pending.alerts, answer.why)
        if not verdicts.bundles:
            return None
        bundle = verdicts.bundles[0]
        alerts = [alert for pending in bundle.pending for alert in pending.alerts]
        return _claim(conn, name, bundle.kind, bundle.pending, alerts, desk, now, why=bundle.why)


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
    body = payload(channel.format, claimed.tellings, claimed.message, claimed.at, id_, desk.base_url)
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
    known = _outcomes(conn, name)
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


def _outcomes(conn: Connection, name: str) -> list[Outcome]:
    return [Outcome(each.ended_at, each.outcome, each.error) for each in deliveries.ended(conn, name)]


def _pending(conn: Connection, name: str, alerts: Iterable[Alert], desk: Desk, now: datetime) -> list[Pending]:
    """What is staged of each incident, with the incident as it is now."""
    by_incident: dict[int, list[Alert]] = defaultdict(list)
    for alert in alerts:
        if alert.incident is not None:
            by_incident[alert.incident].append(alert)
    told = outbox.told(conn, name, by_incident)
    found = []
    for incident in incidents.read_some(conn, by_incident):
        routed = route(labels(incident), desk.policy.routes, now, desk.zone(incident.tenant))
        own = next((each for each in routed if each.channel == name), Routed(name, "", desk.policy.default))
        alerts_ = tuple(by_incident[incident.id])
        found.append(Pending(alerts=alerts_, incident=incident, route=own.route, told=told.get(incident.id)))
    return found


def _scene(conn: Connection, name: str, waiting: Sequence[Alert], desk: Desk, now: datetime) -> Scene:
    load = deliveries.load(conn, name, now - HOUR)
    channel = desk.channel(name)
    until = opened(_outcomes(conn, name), now)
    causes = {detector for each in desk.policy.inhibitions for detector in each.by}
    return Scene(
        at=now,
        zone=desk.zone,
        inhibitions=desk.policy.inhibitions,
        causes=incidents.read_causes(conn, [each.incident for each in waiting if each.incident], causes),
        silences=silences.read_current(conn, now),
        updated=deliveries.updated(conn, name, now - REMEMBERED),
        sent=load.sent,
        summaries=load.summaries,
        budget=(channel.budget if channel else None) or desk.policy.budget,
        blocked=(until, "the channel failed too often; it is tried again in a minute") if until else None,
    )


def _claim(
    conn: Connection,
    name: str,
    kind: Kind,
    pending: Sequence[Pending],
    alerts: Sequence[Alert],
    desk: Desk,
    now: datetime,
    root: int | None = None,
    why: str = "",
) -> Claimed | None:
    """Compose the message and take its alerts. What is stored of it holds no links: they let whoever has them act."""
    tellings = _tellings(conn, name, pending)
    tenants = {each.incident.tenant for each in pending}
    tenant = next(iter(tenants)) if len(tenants) == 1 and kind == "alert" else None

    def words(links_: Linker | None) -> Message:
        try:
            return _words(kind, alerts[0], tellings, now, desk, links_, repeated=root is not None)
        except Exception as error:  # noqa: BLE001 - a message without a word of ours is better than none
            log.error("no_words", alert=alerts[0].id, error=type(error).__name__)
            return _bare(kind, tellings)

    plain = words(None)
    delivery = deliveries.begin(
        conn,
        deliveries.Delivery(
            channel=name,
            kind=kind,
            tenant=tenant,
            urgent=any(each.urgent for each in pending),
            alerts=tuple(each.id for each in alerts),
            title=plain.title,
            body=plain.text,
            repeats=root,
        ),
        now,
    )
    if not outbox.claim(conn, alerts, delivery, f"sent: {why or kind}", now):
        raise RuntimeError("alerts were claimed past the channel's lock")
    return Claimed(
        delivery=delivery,
        root=root or delivery,
        kind=kind,
        alerts=tuple(alerts),
        tellings=tuple(tellings),
        message=words(_linker(conn, desk, now)) if desk.base_url and tellings else plain,
        at=now,
    )


def _linker(conn: Connection, desk: Desk, now: datetime) -> Linker:
    """Links of one message, with a nonce of its own."""
    return linker(desk.base_url, links.key(conn), secrets.token_urlsafe(9), now, desk.policy.links)


def _tellings(conn: Connection, name: str, pending: Sequence[Pending]) -> list[Telling]:
    attached = outbox.attached(conn, name, [each.incident.id for each in pending])
    explained = {each.id: each for each in incidents.read_some(conn, {id_ for ids in attached.values() for id_ in ids})}
    return [
        Telling(
            incident=each.incident,
            reason=each.reason,
            told=_told(each),
            attached=tuple(explained[id_] for id_ in attached.get(each.incident.id, ()) if id_ in explained),
        )
        for each in pending
    ]


def _told(each: Pending) -> float | None:
    """The observed value that the channel was last told, as it was when the oldest of these was staged."""
    content = each.alerts[0].content
    return content.get("told") if each.told and content else None


def _bare(kind: Kind, tellings: Sequence[Telling]) -> Message:
    """What can be said of anything."""
    told = [
        f"{each.incident.severity.upper()}: {each.incident.detector}, incident {each.incident.id}" for each in tellings
    ]
    return Message(
        told[0] if told else f"BillingWatch: {kind}", "\n".join([*told, "billingwatch incidents list --open"])
    )


def _words(
    kind: Kind,
    alert: Alert,
    tellings: Sequence[Telling],
    now: datetime,
    desk: Desk,
    links_: Linker | None,
    *,
    repeated: bool,
) -> Message:
    if kind == "test":
        return sample()
    if kind == "digest":
        return digest.words(digest.read(alert.content or {}), desk.templates)
    if kind == "summary":
        return summarise(tellings, now, desk.zone(OWN), linker=links_, templates=desk.templates)
    tenant = tellings[0].incident.tenant
    return compose(
        tellings,
        now,
        desk.zone(tenant),
        linker=links_,
        repeated=repeated,
        drill=tenant.account.startswith(DRILL),
        templates=desk.templates,
    )
