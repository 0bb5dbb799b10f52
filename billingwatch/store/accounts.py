"""What is known of each tenant as a whole: its span of events, its watermark, and whether news waits for judgement."""

from datetime import datetime

from msgspec import Struct
from psycopg import Connection

from billingwatch.model import Tenant


class Account(Struct, frozen=True):
    """A tenant's oldest and newest event by `created`, and the arrival of the last one.

    `life` is what its judgement goes on from, packed; None where it was never judged. `rewritten` says that a batch
    told about days that were learnt from already.
    """

    tenant: Tenant
    first_event: datetime
    newest_event: datetime
    newest_received: datetime
    life: bytes | None = None
    rewritten: bool = False


class Lesson(Struct, frozen=True):
    """How far a tenant was learnt: what tells whether it is time to learn again."""

    account: Account
    learned_until: datetime | None
    rewritten: bool  # before `learned_until`, and not lately


def touch(conn: Connection, account: Account) -> None:
    """Widen the tenant's span by this batch's and mark that news waits for judgement."""
    conn.execute(
        """
        INSERT INTO accounts (account, livemode, first_event, newest_event, newest_received, dirty_since,
                              rewritten_at)
        VALUES (%s, %s, %s, %s, %s, now(), CASE WHEN %s THEN now() END)
        ON CONFLICT (account, livemode) DO UPDATE SET
            first_event = least(accounts.first_event, excluded.first_event),
            newest_event = greatest(accounts.newest_event, excluded.newest_event),
            newest_received = greatest(accounts.newest_received, excluded.newest_received),
            dirty_since = coalesce(accounts.dirty_since, excluded.dirty_since),
            rewritten_at = greatest(accounts.rewritten_at, excluded.rewritten_at)
        """,
        (
            account.tenant.account,
            account.tenant.livemode,
            account.first_event,
            account.newest_event,
            account.newest_received,
            account.rewritten,
        ),
    )


def begin_evaluation(conn: Connection, tenant: Tenant, at: datetime) -> Account | None:
    """Take the mark away under the tenant's evaluation lock; None where the tenant is unknown.

    Of two workers with the same tenant the second waits, and then sees what the first has written.
    """
    lock(conn, tenant)
    row = conn.execute(
        """
        UPDATE accounts SET dirty_since = NULL, evaluated_at = %s WHERE account = %s AND livemode = %s
        RETURNING first_event, newest_event, newest_received, life
        """,
        (at, tenant.account, tenant.livemode),
        binary=True,
    ).fetchone()
    return Account(tenant, *row) if row else None


def read(conn: Connection, tenant: Tenant) -> Account | None:
    """The tenant as it was judged last; None where it is unknown. Waits for nobody."""
    found = _lessons(conn, "account = %s AND livemode = %s", (tenant.account, tenant.livemode), life="life")
    return found[0].account if found else None


def begin_lesson(conn: Connection, tenant: Tenant) -> Lesson | None:
    """How far the tenant was learnt, under its evaluation lock; None where it is unknown."""
    lock(conn, tenant)
    found = _lessons(conn, "account = %s AND livemode = %s", (tenant.account, tenant.livemode), life="life")
    return next(iter(found), None)


def lessons(conn: Connection, since: datetime) -> list[Lesson]:
    """How far each tenant with an event since then was learnt; their lives are not read."""
    return _lessons(conn, "newest_received >= %s", (since,))


def learnt(conn: Connection, tenant: Tenant) -> None:
    """Nothing is left that was told about days learnt from already."""
    conn.execute(
        "UPDATE accounts SET rewritten_at = NULL WHERE account = %s AND livemode = %s",
        (tenant.account, tenant.livemode),
    )


def write_life(conn: Connection, tenant: Tenant, life: bytes) -> None:
    conn.execute(
        "UPDATE accounts SET life = %s WHERE account = %s AND livemode = %s", (life, tenant.account, tenant.livemode)
    )


def not_urgent(conn: Connection) -> None:
    """Let the commit not wait for the disk. A crash may then undo it, and with it that the mark was taken away."""
    conn.execute("SET LOCAL synchronous_commit TO off")


def lock(conn: Connection, tenant: Tenant) -> None:
    """Until the transaction ends nobody else judges the tenant, learns it, or acts on its incidents."""
    conn.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, %s::int))", (f"evaluate {tenant.account}", tenant.livemode)
    )


def _lessons(conn: Connection, where: str, values: tuple[object, ...], life: str = "NULL::bytea") -> list[Lesson]:
    rows = conn.execute(
        # `where` and `life` are constants of this module; what was rewritten a moment ago may still be being written
        f"""
        SELECT account, livemode, first_event, newest_event, newest_received, {life}, learned_until,
               coalesce(rewritten_at < now() - interval '10 seconds', false)
        FROM accounts LEFT JOIN baselines USING (account, livemode) WHERE {where} ORDER BY account, livemode
        """,
        values,
        binary=True,
    )
    return [
        Lesson(Account(Tenant(account, livemode), first, newest, received, life), until, rewritten)
        for account, livemode, first, newest, received, life, until, rewritten in rows
    ]


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
