"""What Postgres knows of how BillingWatch itself does: the quarantine, its own size, deliveries, overdue alerts."""

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from psycopg import Connection

LATELY = timedelta(hours=1)
SEEN = timedelta(days=1)  # how far back a channel's deliveries tell how it does
NEWEST = 50  # deliveries a channel


class Health(Struct, frozen=True, kw_only=True):
    """`quarantined` rows in all and `lately` of them, the database's bytes, since when an alert is overdue."""

    quarantined: int
    lately: int
    database: int
    overdue_since: datetime | None


class Ended(Struct, frozen=True):
    """How one delivery ended."""

    at: datetime
    outcome: Literal["sent", "failed", "refused", "unknown"]
    error: str


def read(conn: Connection, at: datetime) -> Health:
    row = conn.execute(
        """
        SELECT (SELECT count(*) FROM quarantine),
               (SELECT count(*) FROM quarantine WHERE quarantined_at > %(since)s AND quarantined_at <= %(at)s),
               pg_database_size(current_database()),
               (SELECT min(next_try) FROM alerts WHERE state IN ('staged', 'sending') AND next_try <= %(at)s)
        """,
        {"at": at, "since": at - LATELY},
    ).fetchall()[0]
    return Health(quarantined=row[0], lately=row[1], database=row[2], overdue_since=row[3])


def deliveries(conn: Connection, at: datetime) -> dict[str, list[Ended]]:
    """The newest deliveries of the last day that ended, by channel, oldest first."""
    rows = conn.execute(
        """
        SELECT channel, ended_at, outcome, error FROM (
            SELECT channel, ended_at, outcome, error, id,
                   row_number() OVER (PARTITION BY channel ORDER BY claimed_at DESC, id DESC) AS nth
            FROM deliveries WHERE claimed_at > %s AND claimed_at <= %s AND outcome IS NOT NULL
        ) AS newest WHERE nth <= %s ORDER BY channel, nth DESC
        """,
        (at - SEEN, at, NEWEST),
    )
    found: dict[str, list[Ended]] = {}
    for channel, *ended in rows:
        found.setdefault(channel, []).append(Ended(*ended))
    return found
