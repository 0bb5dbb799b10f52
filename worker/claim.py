"""What of all that is due for a channel is told now: decided and claimed in one transaction, and put into words.

Sends nothing. What is claimed and not marked within two minutes is in doubt: it is claimed once more, and says so.
"""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from msgspec import Struct
from psycopg import Connection

from billingwatch.model import DRILL, OWN, Alert
from billingwatch.store import deliveries, incidents, links, outbox, silences
from billingwatch.store.deliveries import Kind
from notify import digest
from notify.breaker import Outcome, opened
from notify.decision import HOUR, Bundle, Hold, Pending, Scene, decide
from notify.link import linker
from notify.message import again, compose, sample, summarise
from notify.route import Routed, labels, route
from notify.telling import Linker, Message, Telling
from worker.desk import Desk

log = structlog.get_logger(__name__)

UNCONFIGURED = "the channel is not configured any more"
REMEMBERED = timedelta(days=31)  # longer than any interval between updates
FRESH = timedelta(seconds=5)  # so long a decision holds for what it has put behind other messages
UNKNOWN = timedelta(minutes=1)  # until a channel that is not configured here is looked for again
PATIENCE = timedelta(days=1)  # with a channel that is not configured


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
        """Of the alert that was tried least: what is new is not held up by what failed for hours."""
        return min(each.attempts for each in self.alerts) + 1

    @property
    def waited(self) -> timedelta:
        """Since that one's first try."""
        return self.at - max(each.first_try or self.at for each in self.alerts)


class Decided:
    """What one decision has put behind its first message, for as long as it is fresh."""

    def __init__(self) -> None:
        self._at = datetime(1, 1, 1, tzinfo=UTC)
        self._bundles: list[Bundle] = []

    def keep(self, bundles: Iterable[Bundle], at: datetime) -> None:
        self._at, self._bundles = at, list(bundles)

    def next(self, at: datetime) -> Bundle | None:
        """The next one, None where there is none or it was decided too long ago."""
        if at - self._at > FRESH:
            self._bundles.clear()
        return self._bundles.pop(0) if self._bundles else None


def take(conn: Connection, name: str, desk: Desk, now: datetime, decided: Decided | None = None) -> Claimed | None:
    """Decide about all that is due for the channel, and claim the first message; None where nothing is to be sent.

    The other messages of the decision are kept in `decided`, and claimed from there as long as they are as they were.
    """
    decided = decided or Decided()
    with conn.transaction():
        outbox.lock(conn, name)
        if desk.channel(name) is None:
            outbox.hold_unknown(conn, name, now, now + UNKNOWN, now - PATIENCE, UNCONFIGURED)
            return None
        doubt = outbox.doubt(conn, name, now)
        if doubt:
            return _doubtful(conn, name, doubt, desk, now)
        kept = _kept(conn, name, decided, desk, now)
        if kept:
            return kept
        waiting = outbox.waiting(conn, name, now)
        alone = next((each for each in waiting if each.incident is None), None)
        if alone is not None:
            kind: Kind = "test" if alone.reason == "test" else "digest"
            return _claim(conn, name, kind, [], [alone], desk, now)
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
        first, *later = verdicts.bundles
        decided.keep([each for each in later if each.kind == "alert"], now)
        return _claim(conn, name, first.kind, first.pending, _alerts(first), desk, now, why=first.why)


def _doubtful(conn: Connection, name: str, doubt: outbox.Doubt, desk: Desk, now: datetime) -> Claimed | None:
    """The message whose sender is gone, once more; with what was staged meanwhile it is another one."""
    deliveries.end(conn, doubt.delivery, "unknown", "its sender was interrupted", now)
    kind, root = deliveries.root(conn, doubt.delivery)
    since = outbox.staged_of(conn, name, [each.incident for each in doubt.alerts if each.incident is not None])
    alerts = sorted((*doubt.alerts, *since), key=lambda each: each.id)
    pending = _pending(conn, name, alerts, desk, now)
    return _claim(conn, name, kind, pending, alerts, desk, now, doubtful=root, why="its sender was interrupted")


def _kept(conn: Connection, name: str, decided: Decided, desk: Desk, now: datetime) -> Claimed | None:
    """The next message of the last decision, if nothing has changed what it is about, and the hour has room for it."""
    bundle = decided.next(now)
    if bundle is None:
        return None
    alerts = _alerts(bundle)
    full = len(deliveries.load(conn, name, now - HOUR).sent) >= _budget(desk, name) and not bundle.urgent
    if full or not outbox.unchanged(conn, name, alerts):
        decided.keep([], now)
        return None
    pending = _pending(conn, name, alerts, desk, now)
    return _claim(conn, name, bundle.kind, pending, alerts, desk, now, why=bundle.why)


def _alerts(bundle: Bundle) -> list[Alert]:
    return [alert for pending in bundle.pending for alert in pending.alerts]


def _budget(desk: Desk, name: str) -> int:
    channel = desk.channel(name)
    return (channel.budget if channel else None) or desk.policy.budget


def outcomes(conn: Connection, name: str) -> list[Outcome]:
    """How the channel's newest deliveries ended, in order."""
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
    until = opened(outcomes(conn, name), now)
    by = {detector for each in desk.policy.inhibitions for detector in each.by}
    causes = incidents.read_causes(conn, [each.incident for each in waiting if each.incident], by)
    # What the channel does not hear of explains nothing to it.
    heard = outbox.heard(conn, name, [each.id for each in causes])
    return Scene(
        at=now,
        zone=desk.zone,
        inhibitions=desk.policy.inhibitions,
        causes=[each for each in causes if each.id in heard],
        silences=silences.read_current(conn, now),
        updated=deliveries.updated(conn, name, now - REMEMBERED),
        sent=load.sent,
        summaries=load.summaries,
        budget=_budget(desk, name),
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
    *,
    doubtful: int | None = None,
    why: str = "",
) -> Claimed:
    """Compose the message and take its alerts. What is stored of it holds no links: they let whoever has them act.

    A message of the same alerts as an earlier one is that message, with its id; where that may have arrived, as
    `doubtful` may, it says so.
    """
    ids = sorted(each.id for each in alerts)
    earlier = deliveries.earlier(conn, name, ids)
    root, doubt = (earlier.root, earlier.doubt) if earlier else (None, None)
    doubt = doubtful or doubt
    tellings = _tellings(conn, name, pending)
    tenants = {each.incident.tenant for each in pending}
    tenant = next(iter(tenants)) if len(tenants) == 1 and kind == "alert" else None

    def words(links_: Linker | None) -> Message:
        try:
            return _words(kind, alerts[0], tellings, now, desk, links_, repeated=doubt is not None)
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
            alerts=tuple(ids),
            title=plain.title,
            body=plain.text,
            message=root,
            repeats=doubt,
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
    if kind == "alert":
        return _alert(tellings, now, desk, links_, repeated=repeated)
    if kind == "test":
        message = sample()
    elif kind == "digest":
        message = digest.words(digest.read(alert.content or {}), desk.templates)
    else:
        message = summarise(tellings, now, desk.zone(OWN), linker=links_, templates=desk.templates)
    return again(message) if repeated else message


def _alert(tellings: Sequence[Telling], now: datetime, desk: Desk, links_: Linker | None, *, repeated: bool) -> Message:
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
