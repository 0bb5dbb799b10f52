"""What judging costs in a full house: an evaluation of a busy account and of a small one, and their nightly lessons."""

import gc
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from statistics import median

import msgspec
from msgspec import Struct
from psycopg import Connection

from bench.report import Report, Row, below, quantile, show
from bench.rig import Rig, number, rig
from billingwatch import embedded
from billingwatch.model import Tenant, utc
from billingwatch.queues import Received
from billingwatch.simulator.stream import Scenario, Stream
from billingwatch.store import baselines, events
from detectors.forecast import Forecast
from detectors.registry import Plan, configure
from notify.policy import Policy
from worker.evaluate import evaluate
from worker.learn import learn
from worker.record import record

DAY = 86_400  # seconds
NOW = 1_789_639_200  # a Thursday in mid-month, 10 o'clock: no month start among the days that are copied
MONTHS, NIGHTS, REBUILDS = 13, 14, 3
GOAL = 20.0  # ms, an evaluation's p99
LESSON = 10.0  # ms a line
# What filling needs not survive; the measurements run on the settings that are shipped.
UNSAFE = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
}

# Ids ascend with time, as Stripe's do; every hundredth event of the busy account's times is the small one's.
_FILL = """
    INSERT INTO events (account, livemode, id, type, created, api_version, object_id, customer, received_at, payload)
    SELECT CASE WHEN i %% 100 = 0 THEN 'acct_small' ELSE 'acct_busy' END, true, 'evt_1' || lpad(i::text, 14, '0'), type,
           created, '2026-10-28.endive', 'ch_1' || lpad((i / 4)::text, 14, '0'), 'cus_' || i %% 50000,
           created + interval '1 second', jsonb_build_object('object', 'event', 'type', type, 'livemode', true)
    FROM (
        SELECT i, to_timestamp(%(start)s + i * %(span)s::float8 / %(count)s) AS created,
               CASE WHEN i %% 300 = 0 THEN 'refund.created' WHEN i %% 60 = 0 THEN 'charge.failed'
                    ELSE 'charge.succeeded' END AS type
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i
    ) AS made
"""
_PIECE = 1_000_000  # events filled in at once

# The days that were counted, once more for as many times before, each copy up to a tenth larger or smaller. They lie
# in order of time, as they would had they been counted one after the other.
_COPY = """
    INSERT INTO rollups (account, livemode, metric, stratum, currency, grain, bucket, count, amount)
    SELECT account, livemode, metric, stratum, currency, grain, bucket - copy * make_interval(days => %(days)s) AS at,
           round(count * size), round(amount * size)
    FROM rollups CROSS JOIN (
        SELECT copy, 0.9 + 0.2 * (copy * 7919 %% 101) / 101 AS size FROM generate_series(1, %(copies)s) AS copy
    ) AS copies
    WHERE account = %(account)s AND bucket >= %(start)s AND bucket < %(end)s ORDER BY at
"""


class Customer(Struct, frozen=True):
    """An account to be: its last days' deliveries, and the batches after which it is judged."""

    tenant: Tenant
    days: int
    past: list[Received]
    batches: list[list[Received]]

    @property
    def daily(self) -> float:
        return len(self.past) / self.days


class Costs(Struct):
    """Milliseconds in one house, of one customer."""

    stored: list[float] = []
    judged: list[float] = []
    night: list[float] = []
    rebuilt: list[float] = []
    lines: int = 0


def run(quick: bool) -> Report:
    sizes = (20_000, 60_000) if quick else (1_000_000, 20_000_000)
    rounds = 25 if quick else 500
    busy = _customer("acct_busy", 2_500 if quick else 62_500, 1, rounds, 20)
    small = _customer("acct_small", 60, 28, rounds, 1)
    names = {
        busy.tenant: f"busy, {_payments(busy):,.0f} payments a day",
        small.tenant: f"small, {_payments(small):,.0f} payments a day",
    }
    rows: list[Row] = []
    lessons: list[Row] = []
    for size in sizes:
        with _house(size, busy, small) as conn:
            rows.append(Row(f"events stored, of {size:,}", show(number(conn, "SELECT count(*) FROM events"))))
            for customer in (busy, small):
                costs = _measure(conn, customer, configure({})[0].of(customer.tenant.account))
                opened = number(conn, "SELECT count(*) FROM incidents WHERE account = %s", customer.tenant.account)
                what = f"{names[customer.tenant]}, at {size:,}"
                rows += [
                    below(f"{what}: evaluation, p99", quantile(costs.judged, 0.99), GOAL, "ms", 1),
                    Row(f"{what}: evaluation, p50", show(quantile(costs.judged, 0.5), "ms", 1)),
                    Row(f"{what}: evaluation, longest", show(max(costs.judged), "ms", 1), f"{opened} incidents opened"),
                    Row(f"{what}: batch stored, p50", show(quantile(costs.stored, 0.5), "ms", 1)),
                ]
                lines, nightly, rebuilt = costs.lines, median(costs.night), median(costs.rebuilt)
                lessons += [
                    below(f"{what}: a night's lesson, each of {lines} lines", nightly / lines, LESSON, "ms", 2),
                    Row(f"{what}: a night's lesson", show(nightly, "ms", 1), f"longest {max(costs.night):,.1f} ms"),
                    Row(f"{what}: learnt anew from 60 days", show(rebuilt, "ms"), f"{rebuilt / lines:,.1f} ms a line"),
                ]
    return Report(
        about=f"{rounds} batches, 20 events each of the busy account and one each of the small one, each recorded and"
        " its account then evaluated, commit included, on the settings that are shipped; lessons: medians of"
        f" {NIGHTS} nights, and of {REBUILDS} times from nothing. Recorded as they would be live: the busy account's"
        f" last day ({busy.daily:,.0f} events) and the small one's last {small.days}. Made by INSERT … SELECT: the"
        " events before, as dense, with payloads of 80 bytes, and one hundredth of them the small account's; the"
        f" 5-minute and hourly rollups of the {MONTHS} months before, copies of the recorded days, each up to a tenth"
        " larger or smaller. The claims of made events are left out: no evaluation reads any.",
        rows=(*rows, *lessons),
    )


def _customer(name: str, volume: float, days: int, rounds: int, size: int) -> Customer:
    stream = Stream(
        Scenario(seed=1, start=NOW - days * DAY, days=days + 6, volume=volume, account=name, arrivals=True)
    ).deliveries()
    received = (Received("default", each.received_at, bytes(each.event)) for each in stream)
    past: list[Received] = []
    for each in received:
        past.append(each)
        if each.received_at >= NOW:
            break
    batches = [list(itertools.islice(received, size)) for _ in range(rounds)]
    return Customer(Tenant(name, True), days, past, batches)


def _payments(customer: Customer) -> float:
    """A day's charges, of those that its deliveries tell."""
    told = (b'"type":"charge.succeeded"', b'"type":"charge.failed"')
    return sum(any(each in received.body for each in told) for received in customer.past) / customer.days


@contextmanager
def _house(size: int, busy: Customer, small: Customer) -> Iterator[Connection]:
    """A database of `size` events, about, that looks as if these two had been there for years."""
    with rig(postgres=UNSAFE) as servers:
        with servers.connect() as conn:
            conn.execute("SET statement_timeout = 0")
            _fill(conn, size - len(busy.past) - len(small.past), busy)
            for customer in (busy, small):
                for some in range(0, len(customer.past), 1000):
                    batch = customer.past[some : some + 1000]
                    record(conn, batch, utc(batch[-1].received_at))
                _age(conn, customer)
            conn.execute("VACUUM (ANALYZE) events, rollups, claims, charges, payers, accounts")
            conn.execute("CHECKPOINT")
        _restart(servers)
        with servers.connect() as conn:
            yield conn


def _fill(conn: Connection, count: int, busy: Customer) -> None:
    if count <= 0:
        return
    span = round(count / busy.daily * DAY)
    start = NOW - DAY - span
    month, last = utc(start).date().replace(day=1), utc(NOW).date()
    while month <= last:
        events.ensure_months(conn, [month])
        month = events.next_month(month)
    for first in range(0, count, _PIECE):
        piece = {"first": first, "last": min(first + _PIECE, count) - 1}
        conn.execute(_FILL.encode(), {"start": start, "span": span, "count": count, **piece})


def _age(conn: Connection, customer: Customer) -> None:
    """Let the account be as old as its rollups, which are copies of those of its last days."""
    account, days = customer.tenant.account, customer.days
    span = {"start": _ago(days), "end": utc(NOW)}  # what is due later was counted as well, and stays as it is
    conn.execute(_COPY, {"days": days, "copies": MONTHS * 30 // days - 1, "account": account, **span})
    conn.execute("UPDATE accounts SET first_event = %s WHERE account = %s", (_ago(MONTHS * 30), account))


def _ago(days: int) -> datetime:
    return utc(NOW) - timedelta(days=days)


def _restart(servers: Rig) -> None:
    embedded.stop_postgres(servers.folder)
    embedded.start_postgres(servers.folder, {})


def _measure(conn: Connection, customer: Customer, plan: Plan) -> Costs:
    costs = Costs()
    tenant = customer.tenant
    today = NOW // DAY * DAY  # these accounts live by UTC
    first = today - NIGHTS * DAY
    for _ in range(REBUILDS):
        baselines.forget(conn, tenant)
        costs.rebuilt.append(_lesson(conn, tenant, first, plan))
    costs.night = [_lesson(conn, tenant, night, plan) for night in range(first + DAY, today + 1, DAY)]
    packed = baselines.read_forecast(conn, tenant)
    assert packed is not None, "nothing was learnt"
    costs.lines = len(msgspec.msgpack.decode(packed, type=Forecast).lines)
    gc.freeze()  # what was made beforehand no worker would hold, nor look through for garbage
    for batch in customer.batches:
        now = utc(batch[-1].received_at)
        began = time.perf_counter()
        record(conn, batch, now)
        between = time.perf_counter()
        evaluate(conn, tenant, now, plan, Policy())
        costs.stored.append((between - began) * 1000)
        costs.judged.append((time.perf_counter() - between) * 1000)
    return costs


def _lesson(conn: Connection, tenant: Tenant, at: int, plan: Plan) -> float:
    began = time.perf_counter()
    assert learn(conn, tenant, utc(at), plan), "it was not time to learn"
    return (time.perf_counter() - began) * 1000
