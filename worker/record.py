"""Store a batch of verified events and count what is new in it, in one transaction."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import NamedTuple

import psycopg
import structlog
from msgspec import Struct
from psycopg import Connection

from billingwatch.model import Tenant, utc
from billingwatch.queues import Received
from billingwatch.store import accounts, events, payers, quarantine, rollups
from billingwatch.store.accounts import Account
from billingwatch.store.connection import refused
from billingwatch.store.events import NewEvent
from billingwatch.store.quarantine import Refusal
from detectors.event import Event, Unreadable, read_event
from detectors.facts import Told, UnknownShape, read_facts
from detectors.filter import Filter
from detectors.tally import STALE, TWICE, charges, claims, payments, tally

log = structlog.get_logger(__name__)

OLDEST = datetime(2010, 1, 1, tzinfo=UTC)  # before Stripe; what claims to be older is no event
AHEAD = timedelta(days=1)  # what Stripe's clock may be ahead of ours


class _Read(NamedTuple):
    received: Received
    new: NewEvent
    event: Event


class Recorded(Struct, frozen=True):
    """What became of a batch: events stored now, stored before, and held in quarantine, and whose they were."""

    new: int
    seen: int
    refused: int
    tenants: tuple[Tenant, ...]


def record(conn: Connection, batch: Sequence[Received], now: datetime, filters: Sequence[Filter] = ()) -> Recorded:
    """Store every event of the batch once. What cannot be stored is held raw, and its neighbours are unharmed.

    Only events never seen before count in the rollups; all of it commits together or not at all, so the batch
    may come again. What a filter matches counts as a metric of its own besides.
    """
    read, refusals = _read(batch, now)
    events.ensure_months(conn, {_month(each.event.created) for each in read.values()})
    with conn.transaction():
        insertion = events.insert(conn, [each.new for each in read.values()])
        refusals += [_refusal(read[new.key].received, reason) for new, reason in insertion.refused]
        quarantine.hold(conn, refusals)
        news: dict[Tenant, list[_Read]] = defaultdict(list)
        for key in insertion.new:
            news[key[0]].append(read[key])
        for tenant in sorted(news):  # in one order everywhere, so that two workers never deadlock
            _count(conn, tenant, news[tenant], filters)
    return Recorded(
        new=len(insertion.new),
        seen=len(batch) - len(insertion.new) - len(refusals),
        refused=len(refusals),
        tenants=tuple(sorted(news)),
    )


def record_each(conn: Connection, batch: Sequence[Received], now: datetime, filters: Sequence[Filter] = ()) -> Recorded:
    """The same, an event a transaction: one that cannot be counted is held in quarantine, and harms no other."""
    new = seen = refused_ = 0
    tenants: set[Tenant] = set()
    for received in batch:
        try:
            recorded = record(conn, [received], now, filters)
        except psycopg.Error as error:
            if not refused(error):
                raise
            quarantine.hold(conn, [_refusal(received, f"it cannot be counted: {type(error).__name__}")])
            refused_ += 1
        else:
            new, seen, refused_ = new + recorded.new, seen + recorded.seen, refused_ + recorded.refused
            tenants.update(recorded.tenants)
    return Recorded(new, seen, refused_, tuple(sorted(tenants)))


def _read(batch: Sequence[Received], now: datetime) -> tuple[dict[tuple[Tenant, str], _Read], list[Refusal]]:
    """The batch's events by their key, and what is no event. Of the same event twice the first arrival stays."""
    read: dict[tuple[Tenant, str], _Read] = {}
    refusals = []
    for received in batch:
        try:
            event = read_event(received.body)
            if not OLDEST.timestamp() <= event.created <= (now + AHEAD).timestamp():
                raise Unreadable("created lies before 2010 or in the future")
        except Unreadable as error:
            refusals.append(_refusal(received, str(error)))
            continue
        new = NewEvent(
            tenant=Tenant(event.account or received.source, event.livemode),
            id=event.id,
            type=event.type,
            created=event.created,
            api_version=event.api_version,
            object_id=event.object_id,
            customer=event.customer,
            received_at=received.received_at,
            body=received.body,
        )
        read.setdefault(new.key, _Read(received, new, event))
    return read, refusals


def _count(conn: Connection, tenant: Tenant, news: Sequence[_Read], filters: Sequence[Filter]) -> None:
    told: list[Told] = []
    for received, new, event in news:
        try:
            told += read_facts(event, ceil(received.received_at))  # as a backtest sees it: no earlier than it came
        except UnknownShape as error:
            # It is stored all the same: a later release may understand it.
            log.warning("unknown_shape", id=new.id, type=new.type, api_version=new.api_version, why=str(error))
    fresh = rollups.claim(conn, tenant, claims(told, filters))
    book = rollups.read_refunds(conn, tenant, charges(told))
    paid = payments(told, fresh)
    at = [each.created for of_one in paid.values() for each in of_one]
    recent = payers.read(conn, tenant, paid, (min(at, default=0) - TWICE, max(at, default=0) + TWICE))
    growth = tally(told, fresh, book, recent, filters)
    rollups.write_refunds(conn, tenant, growth.refunds)
    payers.write(conn, tenant, growth.paid)
    rollups.grow(conn, tenant, growth.buckets)
    created = [each.event.created for each in news]
    received_at = [each.received.received_at for each in news]
    account = Account(
        tenant,
        first_event=utc(min(created)),
        newest_event=utc(max(created)),
        newest_received=utc(max(received_at)),
        rewritten=any(came - was > STALE for came, was in zip(received_at, created, strict=True)),
    )
    accounts.touch(conn, account)


def _refusal(received: Received, reason: str) -> Refusal:
    return Refusal(received.source, received.received_at, received.body, reason)


def _month(created: int) -> date:
    return utc(created).date().replace(day=1)
