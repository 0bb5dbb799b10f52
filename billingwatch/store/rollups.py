"""What was counted: rollups, the claims that make business objects count once, and the book of refunds."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from billingwatch.model import DUE_CLAIM, Bucket, RefundBook, Tenant

YEAR = timedelta(days=366)  # the longest period that subscriptions commonly have


def claim(conn: Connection, tenant: Tenant, keys: Collection[str]) -> set[str]:
    """Claim these business objects; those that nobody had claimed before."""
    rows = conn.execute(
        """
        INSERT INTO claims (account, livemode, key) SELECT %s, %s, key FROM unnest(%s::text[]) AS key
        ON CONFLICT DO NOTHING RETURNING key
        """,
        (tenant.account, tenant.livemode, sorted(keys)),
    )
    return {key for (key,) in rows}


def forget_claims(conn: Connection, before: datetime, limit: int = 50_000) -> int:
    """Delete up to `limit` claims made before this instant, of renewals ahead a year later; how many it deleted."""
    return conn.execute(
        """
        DELETE FROM claims WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM claims WHERE claimed_at < %s AND (claimed_at < %s OR NOT starts_with(key, %s)) LIMIT %s
        ))
        """,
        (before, before - YEAR, DUE_CLAIM, limit),
    ).rowcount


def read_refunds(conn: Connection, tenant: Tenant, charges: Collection[str]) -> dict[str, RefundBook]:
    """What is known of these charges' refunds, locked until the transaction ends."""
    if not charges:
        return {}
    # The lock is the tenant's: two first tellings about one charge have no row yet that could be locked.
    conn.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, %s::int))", (f"refunds {tenant.account}", tenant.livemode)
    )
    rows = conn.execute(
        """
        SELECT id, currency, refunds, refund_amount, totals, total_amount, counted, counted_amount
        FROM charges WHERE account = %s AND livemode = %s AND id = ANY(%s)
        """,
        (tenant.account, tenant.livemode, sorted(charges)),
    )
    return {id_: RefundBook(*known) for id_, *known in rows}


def write_refunds(conn: Connection, tenant: Tenant, book: Mapping[str, RefundBook]) -> None:
    if not book:
        return
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO charges (account, livemode, id, currency, refunds, refund_amount, totals, total_amount,
                                 counted, counted_amount)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (account, livemode, id) DO UPDATE SET
                refunds = excluded.refunds, refund_amount = excluded.refund_amount,
                totals = excluded.totals, total_amount = excluded.total_amount,
                counted = excluded.counted, counted_amount = excluded.counted_amount
            """,
            [
                (
                    tenant.account,
                    tenant.livemode,
                    id_,
                    known.currency,
                    known.refunds,
                    known.refund_amount,
                    known.totals,
                    known.total_amount,
                    known.counted,
                    known.counted_amount,
                )
                for id_, known in sorted(book.items())
            ],
        )


def grow(conn: Connection, tenant: Tenant, buckets: Sequence[Bucket]) -> None:
    """Add to the rollups, in the order of their key so that two workers never deadlock."""
    if not buckets:
        return
    ordered = sorted(buckets, key=lambda row: (row.grain, row.metric, row.start, row.stratum, row.currency))
    conn.execute(
        """
        INSERT INTO rollups (account, livemode, grain, metric, bucket, stratum, currency, count, amount)
        SELECT %s, %s, grain, metric, to_timestamp(start), stratum, currency, count, amount
        FROM unnest(%s::smallint[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[])
             AS row (grain, metric, start, stratum, currency, count, amount)
        ON CONFLICT (account, livemode, grain, metric, bucket, stratum, currency)
        DO UPDATE SET count = rollups.count + excluded.count, amount = rollups.amount + excluded.amount
        """,
        (
            tenant.account,
            tenant.livemode,
            [row.grain for row in ordered],
            [row.metric for row in ordered],
            [row.start for row in ordered],
            [row.stratum for row in ordered],
            [row.currency for row in ordered],
            [row.count for row in ordered],
            [row.amount for row in ordered],
        ),
    )


class Row(NamedTuple):
    """The 5-minute buckets of one metric, stratum and currency: starts (epoch seconds), counts, amounts."""

    metric: str
    stratum: str
    currency: str
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    amounts: NDArray[np.int64]


_CELL = np.dtype([("start", ">i8"), ("count", ">i8"), ("amount", ">i8")])
_SECOND = 1_000_000  # Postgres sends microseconds
_EPOCH = 946_684_800  # since its own epoch, the beginning of 2000


def read_bins(conn: Connection, tenant: Tenant, metrics: Collection[str], start: int, end: int) -> list[Row]:
    """All 5-minute buckets of these metrics that start in [start, end), epoch seconds; those of a series in no order.

    One row a series comes over the wire, its buckets packed: thousands of rows would cost a millisecond each hundred.
    """
    # Instants go as they lie there, for extract() reckons in decimals; and to ask for an order would sort every bucket.
    rows = conn.execute(
        """
        SELECT metric, stratum, currency,
               string_agg(timestamptz_send(bucket) || int8send(count) || int8send(amount), ''::bytea)
        FROM rollups
        WHERE account = %s AND livemode = %s AND grain = 5 AND metric = ANY(%s)
          AND bucket >= to_timestamp(%s) AND bucket < to_timestamp(%s)
        GROUP BY metric, stratum, currency
        """,
        (tenant.account, tenant.livemode, sorted(metrics), start, end),
        binary=True,
    ).fetchall()
    found = []
    for metric, stratum, currency, packed in sorted(rows):
        cells = np.frombuffer(packed, _CELL)
        starts, counts, amounts = (cells[name].astype(np.int64) for name in ("start", "count", "amount"))
        found.append(Row(metric, stratum, currency, starts // _SECOND + _EPOCH, counts, amounts))
    return found
