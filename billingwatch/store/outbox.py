"""The outbox: one row is one message to one channel. A guarded UPDATE claims it, so many workers send it once."""

from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from billingwatch.model import Alert, Reason

# A sender that died between sending and marking: after this long another may send again, so an alert is told
# at least once, and in this one window twice.
CLAIM = timedelta(minutes=2)


def stage(
    conn: Connection,
    incident: int | None,
    channel: str,
    reason: Reason,
    route: str,
    title: str,
    body: str,
    at: datetime,
) -> int:
    """Write a message that is to be sent; in the transaction that changed the incident. Its id."""
    (id_,) = conn.execute(
        """
        INSERT INTO alerts (incident, channel, reason, route, title, body, staged_at, next_try)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
        """,
        (incident, channel, reason, route, title, body, at, at),
    ).fetchall()[0]
    return int(id_)


def claim(conn: Connection, alert: int, now: datetime) -> Alert | None:
    """Take the alert to send it; None where it is not due, sent, given up, or another worker's."""
    row = conn.execute(
        """
        UPDATE alerts SET state = 'sending', claimed_at = %(now)s, attempts = attempts + 1
        WHERE id = %(id)s AND ((state = 'staged' AND next_try <= %(now)s)
                            OR (state = 'sending' AND claimed_at <= %(stale)s))
        RETURNING id, incident, channel, reason, title, body, staged_at, attempts
        """,
        {"id": alert, "now": now, "stale": now - CLAIM},
    ).fetchone()
    if row is None:
        return None
    names = ("id", "incident", "channel", "reason", "title", "body", "staged_at", "attempts")
    return Alert(**dict(zip(names, row, strict=True)))


def mark_sent(conn: Connection, alert: Alert, now: datetime) -> bool:
    return _finish(conn, alert, "sent", now, sent_at=now, error=None)


def mark_retry(conn: Connection, alert: Alert, next_try: datetime, error: str) -> bool:
    return _finish(conn, alert, "staged", next_try, sent_at=None, error=error)


def mark_given_up(conn: Connection, alert: Alert, now: datetime, error: str) -> bool:
    return _finish(conn, alert, "given_up", now, sent_at=None, error=error)


def _finish(
    conn: Connection, alert: Alert, state: str, next_try: datetime, *, sent_at: datetime | None, error: str | None
) -> bool:
    """Only the claim that is still ours may end; False where another worker has taken the alert over."""
    return (
        conn.execute(
            """
            UPDATE alerts SET state = %s, next_try = %s, sent_at = %s, error = %s
            WHERE id = %s AND state = 'sending' AND attempts = %s
            """,
            (state, next_try, sent_at, error, alert.id, alert.attempts),
        ).rowcount
        == 1
    )


def due(conn: Connection, now: datetime, limit: int = 500) -> list[int]:
    """Alerts to send now: staged ones whose time has come, and those whose sender died."""
    rows = conn.execute(
        """
        SELECT id FROM alerts WHERE (state = 'staged' AND next_try <= %s) OR (state = 'sending' AND claimed_at <= %s)
        ORDER BY next_try LIMIT %s
        """,
        (now, now - CLAIM, limit),
    )
    return [id_ for (id_,) in rows]


def read_for(conn: Connection, incident: int) -> list[dict[str, Any]]:
    """The incident's messages, oldest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            SELECT id, channel, reason, route, title, state, attempts, staged_at, next_try, sent_at, error
            FROM alerts WHERE incident = %s ORDER BY id
            """,
            (incident,),
        )
        return cursor.fetchall()
