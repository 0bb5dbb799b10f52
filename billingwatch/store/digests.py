"""What a digest says, as it stands in the store: incidents, noise, deliveries and counts of a span of days."""

from collections.abc import Sequence
from datetime import date, datetime

from msgspec import Struct
from psycopg import Connection

from billingwatch.model import SEVERITIES, Incident
from billingwatch.store import incidents


class Count(Struct, frozen=True):
    """What was counted of one metric, stratum and currency in one local hour (`"13"`) or day (`"2026-03-09"`)."""

    slot: str
    metric: str
    stratum: str
    currency: str
    count: int
    amount: int  # minor units


class Sent(Struct, frozen=True):
    """What a channel was sent: messages that arrived, tries that failed, alerts that were given up."""

    channel: str
    sent: int
    failed: int
    given_up: int


class Stored(Struct, frozen=True):
    """Events created in the span, when the newest of all arrived, rows in quarantine and those added in the span."""

    events: int
    last: datetime | None
    held: int
    held_new: int


def begin(conn: Connection, account: str, kind: str, day: date, now: datetime) -> bool:
    """Claim the digest; False where it was made already."""
    return (
        conn.execute(
            "INSERT INTO digests (account, kind, day, made_at) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (account, kind, day, now),
        ).rowcount
        == 1
    )


def made(conn: Connection, since: date) -> set[tuple[str, str, date]]:
    """Account, kind and day of the digests that were due since then."""
    rows = conn.execute("SELECT account, kind, day FROM digests WHERE day >= %s", (since,))
    return {(account, kind, day) for account, kind, day in rows}


def accounts(conn: Connection, livemode: bool) -> list[str]:
    """Everyone that an event was stored of."""
    return [
        name for (name,) in conn.execute("SELECT account FROM accounts WHERE livemode = %s ORDER BY 1", (livemode,))
    ]


def concerned(conn: Connection, names: Sequence[str], livemode: bool, start: datetime) -> list[Incident]:
    """The accounts' incidents that are open, or were at `start` or later; the gravest first, then the oldest."""
    rows = conn.execute(
        """
        SELECT id FROM incidents
        WHERE account = ANY(%s) AND livemode = %s AND (resolved_at IS NULL OR resolved_at >= %s)
        """,
        (list(names), livemode, start),
    )
    found = incidents.read_some(conn, [id_ for (id_,) in rows])
    return sorted(found, key=lambda each: (-SEVERITIES.index(each.severity), each.opened_at, each.id))


def noise(
    conn: Connection, names: Sequence[str], livemode: bool, start: datetime, end: datetime
) -> list[tuple[str, int, int]]:
    """Detector, its incidents opened in the span, and how many of them people's last word calls a false alarm.

    Only detectors with a false alarm, the noisiest first.
    """
    rows = conn.execute(
        """
        SELECT detector, count(*), count(*) FILTER (WHERE word.verdict = 'false_alarm') AS wrong
        FROM incidents LEFT JOIN LATERAL (
            SELECT verdict FROM feedback WHERE incident = incidents.id ORDER BY id DESC LIMIT 1
        ) AS word ON true
        WHERE account = ANY(%s) AND livemode = %s AND opened_at >= %s AND opened_at < %s
        GROUP BY detector HAVING count(*) FILTER (WHERE word.verdict = 'false_alarm') > 0 ORDER BY wrong DESC, detector
        """,
        (list(names), livemode, start, end),
    )
    return [(detector, count, wrong) for detector, count, wrong in rows]


def sent(conn: Connection, start: datetime, end: datetime, account: str = "") -> list[Sent]:
    """What each channel was sent in the span; of one account only what was about it."""
    rows = conn.execute(
        """
        SELECT channel, sum(sent)::bigint, sum(failed)::bigint, sum(given_up)::bigint FROM (
            SELECT channel, count(*) FILTER (WHERE outcome = 'sent') AS sent,
                   count(*) FILTER (WHERE outcome IN ('failed', 'refused', 'unknown')) AS failed, 0 AS given_up
            FROM deliveries
            WHERE claimed_at >= %(start)s AND claimed_at < %(end)s AND (%(account)s = '' OR account = %(account)s)
            GROUP BY channel
            UNION ALL
            SELECT channel, 0, 0, count(*) FROM alerts
            WHERE state = 'given_up' AND staged_at >= %(start)s AND staged_at < %(end)s
              AND (%(account)s = '' OR incident IN (SELECT id FROM incidents WHERE account = %(account)s))
            GROUP BY channel
        ) AS parts GROUP BY channel ORDER BY channel
        """,
        {"start": start, "end": end, "account": account},
    )
    return [Sent(*row) for row in rows]


def counts(
    conn: Connection,
    names: Sequence[str],
    livemode: bool,
    metrics: Sequence[str],
    start: datetime,
    end: datetime,
    *,
    zone: str,
    by_day: bool,
) -> list[Count]:
    """Everything counted of the metrics in the span, by local day or by hour of the day.

    Whole hours are read by the hour. Where the zone's days begin at half past, their edges are read in five minutes.
    """
    first, last = -(-start.timestamp() // 3600) * 3600, end.timestamp() // 3600 * 3600
    rows = conn.execute(
        f"""
        SELECT to_char(bucket AT TIME ZONE %(zone)s, '{"YYYY-MM-DD" if by_day else "HH24"}') AS slot,
               metric, stratum, currency, sum(count)::bigint, sum(amount)::bigint
        FROM rollups
        WHERE account = ANY(%(names)s) AND livemode = %(livemode)s AND metric = ANY(%(metrics)s) AND (
            (grain = 60 AND bucket >= to_timestamp(%(first)s) AND bucket < to_timestamp(%(last)s))
            OR (grain = 5 AND bucket >= %(start)s AND bucket < to_timestamp(%(first)s))
            OR (grain = 5 AND bucket >= to_timestamp(%(last)s) AND bucket < %(end)s)
        )
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        """,
        {
            "zone": zone,
            "names": list(names),
            "livemode": livemode,
            "metrics": list(metrics),
            "first": first,
            "last": last,
            "start": start,
            "end": end,
        },
    )
    return [Count(*row) for row in rows]


def stored(conn: Connection, names: Sequence[str], livemode: bool, start: datetime, end: datetime) -> Stored:
    """How many events there are of the span, and what could not be stored: of that nobody knows whose it is."""
    row = conn.execute(
        """
        SELECT (SELECT coalesce(sum(found.count), 0)::bigint FROM unnest(%(names)s::text[]) AS name, LATERAL (
                    SELECT count(*) FROM events WHERE account = name AND livemode = %(livemode)s
                    AND created >= %(start)s AND created < %(end)s) AS found),
               (SELECT max(newest_received) FROM accounts WHERE account = ANY(%(names)s) AND livemode = %(livemode)s),
               (SELECT count(*) FROM quarantine),
               (SELECT count(*) FROM quarantine WHERE quarantined_at >= %(start)s AND quarantined_at < %(end)s)
        """,
        {"names": list(names), "livemode": livemode, "start": start, "end": end},
    ).fetchall()[0]
    return Stored(*row)
