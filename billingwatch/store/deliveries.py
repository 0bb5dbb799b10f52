"""Attempts to send: one row is one message on its way to one channel, and what became of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row, dict_row

from billingwatch.model import Tenant

Kind = Literal["alert", "summary", "digest", "test"]
Outcome = Literal["sent", "failed", "refused", "unknown"]


class Delivery(Struct, frozen=True, kw_only=True):
    """A message on its way. `tenant` is None where it speaks of several accounts, or of none."""

    id: int = 0
    channel: str
    kind: Kind
    tenant: Tenant | None = None
    urgent: bool = False
    alerts: tuple[int, ...] = ()  # their ids
    title: str
    body: str  # as plain text, without signed links
    message: int | None = None  # the first delivery of the same alerts together; None for the first
    repeats: int | None = None  # the one that may have arrived already


class Ended(Struct, frozen=True):
    """How a delivery ended."""

    claimed_at: datetime
    ended_at: datetime
    outcome: Outcome
    error: str


class Load(Struct, frozen=True):
    """What a channel was sent since an instant, or is being sent: when, ascending; summaries by themselves."""

    sent: tuple[datetime, ...]
    summaries: tuple[datetime, ...]


def begin(conn: Connection, delivery: Delivery, now: datetime) -> int:
    """Write down that it is on its way; its id."""
    tenant = delivery.tenant or Tenant("", True)
    (row,) = conn.execute(
        """
        INSERT INTO deliveries (channel, kind, account, livemode, urgent, alerts, title, body, claimed_at, message,
                                repeats)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
        """,
        (
            delivery.channel,
            delivery.kind,
            tenant.account,
            tenant.livemode,
            delivery.urgent,
            list(delivery.alerts),
            delivery.title,
            delivery.body,
            now,
            delivery.message,
            delivery.repeats,
        ),
    ).fetchall()
    return int(row[0])


def end(conn: Connection, id_: int, outcome: Outcome, error: str, now: datetime) -> bool:
    """Write down what became of it; False where that is known already."""
    changed = conn.execute(
        "UPDATE deliveries SET outcome = %s, error = %s, ended_at = %s WHERE id = %s AND outcome IS NULL",
        (outcome, error, now, id_),
    )
    return changed.rowcount == 1


def root(conn: Connection, id_: int) -> tuple[Kind, int]:
    """The kind of a delivery, and the first one of the same message."""
    row = conn.execute("SELECT kind, coalesce(message, id) FROM deliveries WHERE id = %s", (id_,)).fetchone()
    if row is None:
        raise LookupError(f"no delivery {id_}")
    return row[0], row[1]


class Earlier(Struct, frozen=True):
    """The message that was sent of the same alerts: its first delivery, and the newest that may have arrived."""

    root: int
    doubt: int | None


def earlier(conn: Connection, channel: str, alerts: Sequence[int]) -> Earlier | None:
    """What was sent to the channel of just these alerts, None where nothing was. A timeout may have been an arrival."""
    row = conn.execute(
        """
        SELECT min(coalesce(message, id)),
               max(id) FILTER (WHERE outcome = 'unknown' OR (outcome = 'failed' AND error LIKE '%%timed out%%'))
        FROM deliveries WHERE channel = %s AND alerts @> %s::bigint[] AND alerts = %s::bigint[]
        """,
        (channel, list(alerts), list(alerts)),
    ).fetchone()
    return Earlier(*row) if row and row[0] is not None else None


def load(conn: Connection, channel: str, since: datetime) -> Load:
    """What counts against the channel's budget: failures do not."""
    rows = conn.execute(
        """
        SELECT kind, claimed_at FROM deliveries
        WHERE channel = %s AND claimed_at > %s AND kind IN ('alert', 'summary')
          AND (outcome IS NULL OR outcome IN ('sent', 'unknown'))
        ORDER BY claimed_at
        """,
        (channel, since),
    ).fetchall()
    return Load(tuple(at for kind, at in rows if kind == "alert"), tuple(at for kind, at in rows if kind == "summary"))


def updated(conn: Connection, channel: str, since: datetime) -> dict[Tenant, datetime]:
    """When the channel was last told of each account."""
    rows = conn.execute(
        """
        SELECT account, livemode, max(ended_at) FROM deliveries
        WHERE channel = %s AND claimed_at > %s AND kind = 'alert' AND outcome = 'sent' GROUP BY account, livemode
        """,
        (channel, since),
    )
    return {Tenant(account, livemode): at for account, livemode, at in rows}


def ended(conn: Connection, channel: str, limit: int = 50) -> list[Ended]:
    """The channel's newest deliveries that ended, in order of their end."""
    with conn.cursor(row_factory=class_row(Ended)) as cursor:
        cursor.execute(
            """
            SELECT claimed_at, ended_at, outcome, error FROM deliveries
            WHERE channel = %s AND outcome IS NOT NULL ORDER BY claimed_at DESC LIMIT %s
            """,
            (channel, limit),
        )
        return sorted(cursor, key=lambda each: each.ended_at)


def undelivered(conn: Connection, channel: str, limit: int = 3) -> tuple[int, list[str]]:
    """How many messages about open incidents wait for the channel or were given up, and the titles of the newest."""
    rows = conn.execute(
        """
        SELECT title, count(*) OVER () FROM (
            SELECT DISTINCT d.id, d.title FROM alerts AS a
            JOIN incidents AS i ON i.id = a.incident JOIN deliveries AS d ON d.id = a.delivery
            WHERE a.channel = %s AND a.state IN ('staged', 'given_up') AND a.attempts > 0 AND i.state <> 'resolved'
        ) AS missing ORDER BY id DESC LIMIT %s
        """,
        (channel, limit),
    ).fetchall()
    return (rows[0][1], [title for title, _ in rows]) if rows else (0, [])


def read_for(conn: Connection, incident: int) -> list[dict[str, Any]]:
    """Every attempt to tell of the incident, oldest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            SELECT id, channel, kind, alerts, claimed_at, ended_at, outcome, error, repeats, title FROM deliveries
            WHERE alerts && ARRAY(SELECT id FROM alerts WHERE incident = %s) ORDER BY id
            """,
            (incident,),
        )
        return cursor.fetchall()
