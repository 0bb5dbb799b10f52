"""Whether a full house is slower: the cost of storing and of judging at ever more stored events."""

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

from psycopg import Connection

from bench import traffic
from bench.report import Report, Row, below, show
from bench.rig import rig
from billingwatch.model import Tenant
from billingwatch.queues import Received
from billingwatch.store import events
from detectors.registry import configure
from notify.policy import Policy
from worker.evaluate import evaluate
from worker.record import record

RECENT, DAYS = 15, 365  # days: what evaluations look at holds the same at every size, the rest is older
BATCH = 200
FLAT = 1.5  # times the cost at the smallest size that still counts as flat
UNSAFE = {"fsync": "off", "autovacuum": "off", "max_wal_size": "16GB", "checkpoint_timeout": "1h"}
_TENANT = Tenant("default", True)
_PLAN = configure({})[0].of(_TENANT.account)

# One event in 60 is a failed payment and one in 300 a refund, spread evenly over the span.
_FILL = """
    WITH made AS (
        SELECT i, to_timestamp(%(end)s - (i * 7919.0 %% %(span)s)) AS created,
               CASE WHEN i %% 300 = 0 THEN 'refund.created' WHEN i %% 60 = 0 THEN 'charge.failed'
                    ELSE 'charge.succeeded' END AS type
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i
    )
    INSERT INTO events (account, livemode, id, type, created, api_version, object_id, customer, received_at, payload)
    SELECT 'default', true, 'evt_made' || md5(i::text), type, created, '2026-10-28.endive',
           'ch_' || md5('c' || i::text), 'cus_' || i %% 5000, created + interval '1 second',
           jsonb_build_object('id', 'evt_made' || md5(i::text), 'object', 'event', 'type', type, 'livemode', true)
    FROM made
"""
_CLAIM = """
    INSERT INTO claims (account, livemode, key)
    SELECT 'default', true, 'any:ch_' || md5('c' || i::text)
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i
"""
_ROLL = """
    INSERT INTO rollups (account, livemode, metric, stratum, currency, grain, bucket, count, amount)
    SELECT 'default', true, metric, stratum, 'usd', grain,
           date_bin(make_interval(mins => grain), created, timestamptz '2020-01-01 00:00+00'), count(*), 4200 * count(*)
    FROM (
        SELECT created, CASE type WHEN 'refund.created' THEN 'refund.created' WHEN 'charge.failed' THEN 'payment.failed'
                             ELSE 'payment.succeeded' END AS metric,
               CASE type WHEN 'refund.created' THEN '' ELSE 'checkout' END AS stratum
        FROM events
        UNION ALL SELECT created, 'object.any', 'people' FROM events
    ) AS told CROSS JOIN unnest(ARRAY[5, 60]::smallint[]) AS grain
    GROUP BY metric, stratum, grain, 7
"""


def run(quick: bool) -> Report:
    sizes = (2_000, 50_000, 200_000) if quick else (10_000, 1_000_000, 5_000_000)
    rounds = 10 if quick else 60
    stored: dict[int, list[float]] = {size: [] for size in sizes}
    judged: dict[int, list[float]] = {size: [] for size in sizes}
    with ExitStack() as stack:
        houses = {size: stack.enter_context(_house(sizes[0], size)) for size in sizes}
        bodies = iter(_new_events(rounds * BATCH))
        for _ in range(rounds):  # in turns, so that whatever else the machine does is borne by all
            batch = list(itertools.islice(bodies, BATCH))
            for size, conn in houses.items():
                seconds = _measure(conn, batch)
                stored[size].append(seconds[0])
                judged[size].append(seconds[1])
    rows: list[Row] = []
    for what, costs in ((f"{BATCH} events stored", stored), ("one evaluation", judged)):
        cost = {size: median(seconds) * 1000 for size, seconds in costs.items()}
        least, *_, most = cost.values()
        rows += [
            Row(f"{what}, at {size:,}", show(each, "ms", 1), f"{each / least:.2f}x") for size, each in cost.items()
        ]
        rows.append(below(f"{what}, at {sizes[-1]:,} to {sizes[0]:,}", most / least, FLAT, "x", 2))
    return Report(
        about=f"Medians of {rounds} batches and evaluations in houses of so many events of one account, by turns. The"
        f" first {sizes[0]:,} are of the last {RECENT} days, the others of the year before; no claim is forgotten."
        " No fsync.",
        rows=tuple(rows),
    )


@contextmanager
def _house(recent: int, size: int) -> Iterator[Connection]:
    """A database with `size` events, `recent` of them of the last days, its rollups and claims as they would be."""
    now = datetime.now(UTC)
    oldest, recently = now - timedelta(days=DAYS), now - timedelta(days=RECENT)
    with rig(postgres=UNSAFE) as servers, servers.connect() as conn:
        conn.execute("SET statement_timeout = 0")
        events.ensure_months(conn, _months(oldest.date(), now.date()))
        for start, end, first, last in ((recently, now, 1, recent), (oldest, recently, recent + 1, size)):
            span = {"end": int(end.timestamp()), "span": int((end - start).total_seconds())}
            conn.execute(_FILL, {**span, "first": first, "last": last})
            conn.execute(_CLAIM, {"first": first, "last": last})
        conn.execute(_ROLL)
        conn.execute(
            """
            INSERT INTO accounts (account, livemode, first_event, newest_event, newest_received)
            VALUES (%s, %s, %s, %s, %s)
            """,
            (_TENANT.account, _TENANT.livemode, oldest, now, now),
        )
        conn.execute("VACUUM (ANALYZE) events, rollups, claims, accounts")
        conn.execute("CHECKPOINT")
        yield conn


def _months(first: date, last: date) -> Iterator[date]:
    month = first.replace(day=1)
    while month <= last:
        yield month
        month = events.next_month(month)


def _new_events(count: int) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        traffic.make(path, count)
        return traffic.bodies(path)


def _measure(conn: Connection, bodies: Sequence[bytes]) -> tuple[float, float]:
    """Seconds to store these events, and to judge their account."""
    now = datetime.now(UTC)
    batch = [Received("default", now.timestamp(), body) for body in bodies]
    began = time.perf_counter()
    record(conn, batch, now)
    between = time.perf_counter()
    evaluate(conn, _TENANT, now, _PLAN, Policy())
    return between - began, time.perf_counter() - between
