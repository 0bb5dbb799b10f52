"""What is known of each tenant as a whole: its span of events, its watermark, and whether news waits for judgement."""

from datetime import datetime

from msgspec import Struct
from psycopg import Connection

from billingwatch.model import Tenant


class Account(Struct, frozen=True):
    """A tenant's oldest and newest event by `created`, and the arrival of the last one."""

    tenant: Tenant
    first_event: datetime
    newest_event: datetime
    newest_received: datetime


def touch(conn: Connection, account: Account) -> None:
    """Widen the tenant's span by this batch's and mark that news waits for judgement."""
    conn.execute(
        """
        INSERT INTO accounts (account, livemode, first_event, newest_event, newest_received, dirty_since)
        VALUES (%s, %s, %s, %s, %s, now())
        ON CONFLICT (account, livemode) DO UPDATE SET
            first_event = least(accounts.first_event, excluded.first_event),
            newest_event = greatest(accounts.newest_event, excluded.newest_event),
            newest_received = greatest(accounts.newest_received, excluded.newest_received),
            dirty_since = coalesce(accounts.dirty_since, excluded.dirty_since)
        """,
        (
            account.tenant.account,
            account.tenant.livemode,
            account.first_event,
            account.newest_event,
            account.newest_received,
        ),
    )


def begin_evaluation(conn: Connection, tenant: Tenant, at: datetime) -> Account | None:
    """Take the mark away under the tenant's evaluation lock; None where the tenant is unknown.

    Of two workers with the same tenant the second waits, and then sees what the first has written.
    """
    conn.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, %s::int))", (f"evaluate {tenant.account}", tenant.livemode)
    )
    row = conn.execute(
        """
        UPDATE accounts SET dirty_since = NULL, evaluated_at = %s WHERE account = %s AND livemode = %s
        RETURNING first_event, newest_event, newest_received
        """,
        (at, tenant.account, tenant.livemode),
    ).fetchone()
    return Account(tenant, *row) if row else None


def dirty(conn: Connection, before: datetime) -> list[Tenant]:
    """Tenants with news from before this instant that no evaluation has seen."""
    rows = conn.execute("SELECT account, livemode FROM accounts WHERE dirty_since < %s ORDER BY 1, 2", (before,))
    return [Tenant(*row) for row in rows]


def active(conn: Connection, since: datetime) -> list[Tenant]:
    """Tenants with an event since then, or with an incident that is not resolved: those that time can change."""
    rows = conn.execute(
        """
        SELECT account, livemode FROM accounts WHERE newest_received >= %s
        UNION SELECT account, livemode FROM incidents WHERE state <> 'resolved' ORDER BY 1, 2
        """,
        (since,),
    )
    return [Tenant(*row) for row in rows]
