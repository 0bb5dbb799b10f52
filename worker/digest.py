"""Make the digests whose time has come: read a span, and stage one row of the outbox a channel that is told."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import structlog
from psycopg import Connection
from redis import Redis

from billingwatch.model import OWN, Money
from billingwatch.store import digests, outbox
from billingwatch.store.digests import Count
from detectors import facts
from detectors.vitals import Vitals
from notify.digest import (
    Digest,
    Due,
    Figure,
    Kind,
    Noise,
    Series,
    Told,
    Watch,
    channels,
    content,
    due,
    listed,
    slots,
    span,
    worth_telling,
)
from notify.policy import Policy
from worker.desk import Desk
from worker.health import channel_vitals, read_vitals

log = structlog.get_logger(__name__)

NOISE = timedelta(days=28)  # a day has too few incidents to call a detector noisy

# name -> (metric, strata; None for every one). A first attempt is one of these strata, a later one is a retry.
_FIRST = (facts.CHECKOUT, facts.RENEWAL)
COUNTED: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "payments": (facts.PAYMENT_SUCCEEDED, None),
    "refunds": (facts.REFUND, None),
    "disputes": (facts.DISPUTE, None),
    "cancellations": (facts.CANCELED, None),
    "MRR gained": (facts.MRR, (facts.GAINED,)),
    "MRR lost": (facts.MRR, (facts.LOST,)),
}
FAILURES = "failed first attempts"
_METRICS = sorted({metric for metric, _ in COUNTED.values()} | {facts.PAYMENT_FAILED})


def run_once(conn: Connection, desk: Desk, now: datetime, redis: Redis | None = None) -> int:
    """Stage every digest that is due and was not made; how many messages. Each in a transaction of its own."""
    times = desk.policy.digest
    if times.daily is None and times.weekly is None:
        return 0
    made = digests.made(conn, (now - timedelta(days=3)).date())
    staged = 0
    for account in ("", *times.accounts):
        zone = _zone(desk, account)
        for each in due(times, zone, now):
            if (account, each.kind, each.day) not in made:
                staged += _make(conn, desk, account, each, zone, now, redis)
    return staged


def _make(
    conn: Connection, desk: Desk, account: str, each: Due, zone: ZoneInfo, now: datetime, redis: Redis | None
) -> int:
    with conn.transaction():
        if not digests.begin(conn, account, each.kind, each.day, now):
            return 0
        digest = collect(conn, each.kind, each.day, account, zone, now, redis)
        if not (desk.policy.digest.always or worth_telling(digest)):
            log.info("digest_skipped", kind=each.kind, account=account)
            return 0
        told = stage(conn, desk.policy, digest, now)
        log.info("digest", kind=each.kind, account=account, channels=len(told))
        return len(told)


def stage(conn: Connection, policy: Policy, digest: Digest, now: datetime) -> list[str]:
    """Write down that it is to be told, to whom; the channels."""
    told = channels(policy, digest.account)
    for channel, why in told:
        outbox.stage(conn, None, channel, "digest", why, now, now, content=content(digest))
    return [channel for channel, _ in told]


def collect(
    conn: Connection,
    kind: Kind,
    day: date,
    account: str,
    zone: ZoneInfo,
    now: datetime,
    redis: Redis | None = None,
    *,
    livemode: bool = True,
) -> Digest:
    """Everything that the digest of the days before `day` says; `account` is "" for all together."""
    whole = span(kind, day, zone)
    everyone = [account] if account else digests.accounts(conn, livemode)
    concerned = digests.concerned(conn, [*everyone, *([] if account else [OWN.account])], livemode, whole.start)
    still = [each for each in concerned if each.state != "resolved"]
    over = [each for each in concerned if each.state == "resolved" and each.opened_at < whole.end]
    now_counts, before_counts = (
        digests.counts(conn, everyone, livemode, _METRICS, start, end, zone=zone.key, by_day=kind == "weekly")
        for start, end in ((whole.start, whole.end), (whole.before_start, whole.before_end))
    )
    parts = slots(kind, day)
    earlier = parts if kind == "daily" else slots(kind, day - timedelta(days=7))
    return Digest(
        kind=kind,
        account=account,
        livemode=livemode,
        zone=zone.key,
        span=whole,
        made_at=now,
        opened=sum(whole.start <= each.opened_at < whole.end for each in concerned),
        open=listed(still),
        over=listed(over),
        open_count=len(still),
        over_count=len(over),
        noise=tuple(Noise(*each) for each in digests.noise(conn, everyone, livemode, whole.end - NOISE, whole.end)),
        channels=_told(conn, whole.start, whole.end, account, now),
        figures=figures(now_counts, before_counts),
        watch=_watch(conn, everyone, livemode, whole.start, whole.end, now, redis),
        slots=parts,
        series=series(now_counts, before_counts, parts, earlier),
    )


def figures(now: Sequence[Count], before: Sequence[Count]) -> tuple[Figure, ...]:
    """What was counted, and what of the failures of first attempts."""
    found = []
    for name, (metric, strata) in COUNTED.items():
        (count, amounts), (count_before, amounts_before) = _sum(now, metric, strata), _sum(before, metric, strata)
        found.append(Figure(name, count, count_before, amounts, amounts_before))
    failed, failed_before = (_sum(counts, facts.PAYMENT_FAILED, _FIRST)[0] for counts in (now, before))
    paid, paid_before = (_sum(counts, facts.PAYMENT_SUCCEEDED, _FIRST)[0] for counts in (now, before))
    rate = Figure(FAILURES, failed, failed_before, out_of=failed + paid, out_of_before=failed_before + paid_before)
    return (found[0], rate, *found[1:])


def series(
    now: Sequence[Count], before: Sequence[Count], parts: Sequence[str], earlier: Sequence[str]
) -> tuple[Series, ...]:
    """Payments, the share of first attempts that failed, and refunds, part by part."""
    return (
        Series(
            "payments",
            _by_part(now, parts, facts.PAYMENT_SUCCEEDED),
            _by_part(before, earlier, facts.PAYMENT_SUCCEEDED),
        ),
        Series(FAILURES, _rate(now, parts), _rate(before, earlier)),
        Series("refunds", _by_part(now, parts, facts.REFUND), _by_part(before, earlier, facts.REFUND)),
    )


def _sum(counts: Sequence[Count], metric: str, strata: Sequence[str] | None) -> tuple[int, tuple[Money, ...]]:
    """How many, and how much of each currency, the currency with most counts first."""
    many: Counter[str] = Counter()
    much: Counter[str] = Counter()
    for each in counts:
        if each.metric == metric and (strata is None or each.stratum in strata):
            many[each.currency] += each.count
            much[each.currency] += each.amount
    order = sorted(many, key=lambda currency: (-many[currency], currency))
    return sum(many.values()), tuple(Money(much[each], each) for each in order if each and much[each])


def _by_part(
    counts: Sequence[Count], parts: Sequence[str], metric: str, strata: Sequence[str] | None = None
) -> tuple[float, ...]:
    found = Counter[str]()
    for each in counts:
        if each.metric == metric and (strata is None or each.stratum in strata):
            found[each.slot] += each.count
    return tuple(float(found[part]) for part in parts)


def _rate(counts: Sequence[Count], parts: Sequence[str]) -> tuple[float | None, ...]:
    failed = _by_part(counts, parts, facts.PAYMENT_FAILED, _FIRST)
    paid = _by_part(counts, parts, facts.PAYMENT_SUCCEEDED, _FIRST)
    return tuple(one / (one + other) if one + other else None for one, other in zip(failed, paid, strict=True))


def _told(conn: Connection, start: datetime, end: datetime, account: str, now: datetime) -> tuple[Told, ...]:
    """Each channel that something was sent to in the span, or that is broken now."""
    broken = {name: each.broken for name, each in channel_vitals(conn, now).items() if each.broken}
    found = {each.channel: each for each in digests.sent(conn, start, end, account)}
    names = sorted({*found, *({} if account else broken)})
    nothing = digests.Sent("", 0, 0, 0)
    return tuple(
        Told(name, each.sent, each.failed, each.given_up, broken.get(name, ""))
        for name in names
        for each in (found.get(name, nothing),)
    )


def _watch(
    conn: Connection,
    names: Sequence[str],
    livemode: bool,
    start: datetime,
    end: datetime,
    now: datetime,
    redis: Redis | None,
) -> Watch:
    stored = digests.stored(conn, names, livemode, start, end)
    vitals = read_vitals(conn, redis, None, now) if redis else Vitals()
    known = vitals.waiting is not None
    return Watch(
        stored=stored.events,
        last_event=stored.last,
        held=stored.held,
        held_new=stored.held_new,
        depth=vitals.depth if known else None,
        waiting=vitals.waiting,
        missing=tuple(sorted(name for name, count in vitals.workers.items() if not count)) if known else None,
        away=vitals.redis_away > 0,
    )


def _zone(desk: Desk, account: str) -> ZoneInfo:
    """The account's time zone; of all together the one that stands at the top of the file."""
    return ZoneInfo(desk.plans.of(account, True).calendar.zone)
