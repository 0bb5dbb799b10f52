"""Who paid how much of late: what tells a payment made twice. It holds two days of them, and no more than that."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from psycopg import Connection

from billingwatch.model import Paid, Tenant


def read(conn: Connection, tenant: Tenant, keys: Iterable[str], span: tuple[int, int]) -> dict[str, list[Paid]]:
    """The payments of these keys created in [start, end], epoch seconds, locked until the transaction ends."""
    wanted = sorted(keys)
    if not wanted:
        return {}
    # The lock is the tenant's: of two payments at once neither has a row yet that the other could see.
    conn.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, %s::int))", (f"payers {tenant.account}", tenant.livemode)
    )
    rows = conn.execute(
        """
        SELECT key, extract(epoch FROM created)::bigint, attempt, invoiced FROM payers
        WHERE account = %s AND livemode = %s AND key = ANY(%s)
          AND created >= to_timestamp(%s) AND created <= to_timestamp(%s)
        """,
        (tenant.account, tenant.livemode, wanted, *span),
    )
    found: dict[str, list[Paid]] = {}
    for key, *paid in rows:
        found.setdefault(key, []).append(Paid(*paid))
    return found


def write(conn: Connection, tenant: Tenant, paid: Mapping[str, Sequence[Paid]]) -> None:
    """Remember these payments; one that is remembered already stays as it is."""
    rows = sorted((key, each) for key, payments in paid.items() for each in payments)
    if not rows:
        return
    conn.execute(
        """
        INSERT INTO payers (account, livemode, key, attempt, created, invoiced)
        SELECT %s, %s, key, attempt, to_timestamp(created), invoiced
        FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bool[]) AS row (key, attempt, created, invoiced)
        ON CONFLICT DO NOTHING
        """,
        (
            tenant.account,
            tenant.livemode,
            [key for key, _ in rows],
            [each.attempt for _, each in rows],
            [each.created for _, each in rows],
            [each.invoiced for _, each in rows],
        ),
    )


def forget(conn: Connection, before: datetime, limit: int = 50_000) -> int:
    """Delete up to `limit` payments created before this instant; how many it deleted."""
    return conn.execute(
        "DELETE FROM payers WHERE ctid = ANY(ARRAY(SELECT ctid FROM payers WHERE created < %s LIMIT %s))",
        (before, limit),
    ).rowcount
