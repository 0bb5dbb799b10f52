"""A day or a week in one message: when it is due, whether there is anything to say, and to whom. Pure.

A digest is of whole local days: what it counts is what Stripe's dashboard counts of the same days.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Literal

import msgspec
from msgspec import Struct

from billingwatch.model import Incident, Money, Severity, State
from notify.policy import DigestTimes, Policy
from notify.route import CONSOLE, UNROUTED, accepts
from notify.telling import Message
from notify.template import Templates

Kind = Literal["daily", "weekly"]
DAYS: dict[Kind, int] = {"daily": 1, "weekly": 7}
WEEK = timedelta(days=7)
LATE = timedelta(hours=12)  # a clock that stood until then makes up for it
LISTED = 20  # incidents of each kind; the rest are counted


class Due(Struct, frozen=True):
    """A digest to be made: on which local day it was due."""

    kind: Kind
    day: date


class Span(Struct, frozen=True):
    """What a digest is about, and the same days of the week before; instants in UTC, half open."""

    start: datetime
    end: datetime
    before_start: datetime
    before_end: datetime


class Listed(Struct, frozen=True, kw_only=True):
    """An incident of the span, as it was when the digest was made."""

    id: int
    account: str
    detector: str
    scope: str
    state: State
    severity: Severity
    opened_at: datetime
    resolved_at: datetime | None
    why: str
    at_risk: tuple[Money, ...]
    customers: int


class Noise(Struct, frozen=True):
    """How many incidents a detector opened lately, and how many of them people called false alarms."""

    detector: str
    incidents: int
    false_alarms: int


class Told(Struct, frozen=True):
    """What a channel was sent in the span; `broken` says why nothing arrives there now."""

    channel: str
    sent: int
    failed: int  # tries
    given_up: int  # things that were never told there
    broken: str = ""


class Figure(Struct, frozen=True):
    """What was counted in the span and in the one before, with the money of each currency.

    Of a rate `out_of` says of how many.
    """

    name: str
    count: int = 0
    before: int = 0
    amounts: tuple[Money, ...] = ()
    amounts_before: tuple[Money, ...] = ()
    out_of: int | None = None
    out_of_before: int | None = None


class Series(Struct, frozen=True):
    """A figure by hour or day: as many numbers as the digest has slots; None where there is nothing to divide by."""

    name: str
    values: tuple[float | None, ...]
    before: tuple[float | None, ...]


class Watch(Struct, frozen=True, kw_only=True):
    """How BillingWatch itself does. None where nobody asked Redis, or it was away."""

    stored: int  # events created in the span
    last_event: datetime | None  # when the newest one arrived
    held: int  # in quarantine
    held_new: int  # of them added in the span
    depth: int | None  # batches in the queue
    waiting: float | None  # seconds that the oldest has waited
    missing: tuple[str, ...] | None  # queues without a worker
    away: bool = False  # Redis did not answer


class Digest(Struct, frozen=True, kw_only=True):
    """Everything that a digest says. `account` is "" for all together; lists end after LISTED, counts do not."""

    kind: Kind
    account: str
    livemode: bool = True
    zone: str
    span: Span
    made_at: datetime
    opened: int  # in the span
    open: tuple[Listed, ...] = ()  # now
    over: tuple[Listed, ...] = ()  # open in the span, and over now
    open_count: int = 0
    over_count: int = 0
    noise: tuple[Noise, ...] = ()
    channels: tuple[Told, ...] = ()
    figures: tuple[Figure, ...] = ()
    watch: Watch
    slots: tuple[str, ...] = ()
    series: tuple[Series, ...] = ()


def due(times: DigestTimes, zone: tzinfo, at: datetime) -> list[Due]:
    """The digests whose time has come by the clocks of `zone`, and is not long past; each local day has its own.

    A time that the clock leaves out in spring comes an hour later, one that comes twice in autumn counts the first
    time.
    """
    today = at.astimezone(zone).date()
    found = []
    for day in (today - timedelta(days=1), today):
        if times.daily is not None and _has_come(day, times.daily, zone, at):
            found.append(Due("daily", day))
        weekday, clock = times.weekly or (None, time())
        if day.weekday() == weekday and _has_come(day, clock, zone, at):
            found.append(Due("weekly", day))
    return found


def _has_come(day: date, clock: time, zone: tzinfo, at: datetime) -> bool:
    return timedelta() <= at - _instant(day, clock, zone) < LATE


def _instant(day: date, clock: time, zone: tzinfo) -> datetime:
    return datetime.combine(day, clock, zone).astimezone(UTC)


def span(kind: Kind, day: date, zone: tzinfo) -> Span:
    """The whole local days before `day`, and those a week earlier."""
    first = day - timedelta(days=DAYS[kind])
    start, end, before_start, before_end = (
        _instant(each, time(), zone) for each in (first, day, first - WEEK, day - WEEK)
    )
    return Span(start, end, before_start, before_end)


def slots(kind: Kind, day: date) -> tuple[str, ...]:
    """The names of the parts of a digest: the hours of a day, the days of a week."""
    if kind == "daily":
        return tuple(f"{hour:02}" for hour in range(24))
    return tuple(f"{day - timedelta(days=back):%Y-%m-%d}" for back in range(DAYS[kind], 0, -1))


def listed(incidents: Sequence[Incident]) -> tuple[Listed, ...]:
    """The first LISTED of them, as the digest keeps them."""
    return tuple(
        Listed(
            id=each.id,
            account=each.tenant.account,
            detector=each.detector,
            scope=each.scope,
            state=each.state,
            severity=each.severity,
            opened_at=each.opened_at,
            resolved_at=each.resolved_at,
            why=each.why,
            at_risk=each.at_risk,
            customers=each.customers,
        )
        for each in incidents[:LISTED]
    )


def well(digest: Digest) -> bool:
    """Whether the watch itself is well."""
    watch = digest.watch
    broken = any(each.broken or each.given_up for each in digest.channels)
    return not (watch.held_new or watch.missing or watch.away or broken)


def worth_telling(digest: Digest) -> bool:
    """Whether there is anything to say: an incident, a failure, something that is not well; in a week also business."""
    if digest.open_count or digest.over_count or digest.opened or not well(digest):
        return True
    if any(each.failed for each in digest.channels):
        return True
    return digest.kind == "weekly" and any(each.count or each.before for each in digest.figures)


def channels(policy: Policy, account: str) -> tuple[tuple[str, str], ...]:
    """Who is told, with the reason: of an account the channels of its own route, else the digest's, else the default's.

    Never empty: with no channel configured the console is told.
    """
    if account:
        for route in policy.routes:
            if route.channels and accepts(route.matchers.get("account", ("!*",)), account):
                return tuple((channel, f"digest of {account} ({route.name})") for channel in route.channels)
    chosen = policy.digest.channels or policy.default.channels
    return tuple((channel, "digest") for channel in chosen) or ((CONSOLE, UNROUTED),)


def content(digest: Digest) -> dict[str, Any]:
    """The digest as JSON has it."""
    found: dict[str, Any] = msgspec.to_builtins(digest)
    return found


def read(content: dict[str, Any]) -> Digest:
    """The digest that an alert's content holds. Raises msgspec.ValidationError."""
    return msgspec.convert(content, Digest)


def words(digest: Digest, templates: Templates) -> Message:
    """The digest as a message, with times in its own zone."""
    from notify.digest_words import write  # with Jinja2, which who asks only what is due needs not load

    return write(digest, templates)
