"""The outbox: one row is one thing to be told about one incident to one channel. Guarded UPDATEs claim its rows, so any
number of workers send each once.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from billingwatch.model import Alert, Reason

# A sender that died between sending and marking: after this long another may send again, so an alert is told at least
# once, and in this one window twice.
CLAIM = timedelta(minutes=2)

_FIELDS = "id, incident, channel, reason, route, staged_at, next_try, first_try, attempts, cause, content"


class Row(Struct, frozen=True):
    """What was staged of an incident for a channel: why, when, when it was sent, and whether it may be yet."""

    channel: str
    reason: Reason
    staged_at: datetime
    sent_at: datetime | None
    waiting: bool
    held: bool  # by a decision, for now or for good


class Doubt(Struct, frozen=True):
    """A message whose sender is gone: whether it arrived is unknown."""

    delivery: int
    alerts: tuple[Alert, ...]


def stage(
    conn: Connection,
    incident: int | None,
    channel: str,
    reason: Reason,
    route: str,
    at: datetime,
    due: datetime,
    *,
    content: Mapping[str, Any] | None = None,
) -> int:
    """Write down what is to be told, in the transaction that changed the incident; from `due` on. Its id.

    `content` is what is told where it is about no incident.
    """
    (row,) = conn.execute(
        """
        INSERT INTO alerts (incident, channel, reason, route, staged_at, next_try, content)
        VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id
        """,
        (incident, channel, reason, route, at, due, None if content is None else Jsonb(content, _json)),
    ).fetchall()
    return int(row[0])


def due_channels(conn: Connection, now: datetime) -> list[str]:
    """Channels for which something is due, or whose sender died."""
    rows = conn.execute(
        """
        SELECT DISTINCT channel FROM alerts
        WHERE state IN ('staged', 'sending') AND next_try <= %s AND (state = 'staged' OR claimed_at <= %s) ORDER BY 1
        """,
        (now, now - CLAIM),
    )
    return [channel for (channel,) in rows]


def begins(conn: Connection, incident: int, after: datetime) -> dict[str, datetime]:
    """When the incident's first message goes out, by channel, where that is after `after` and was not decided yet."""
    rows = conn.execute(
        """
        SELECT channel, min(next_try) FROM alerts
        WHERE incident = %s AND state = 'staged' AND reason = 'first' AND verdict = '' AND next_try > %s
        GROUP BY channel
        """,
        (incident, after),
    )
    return dict(rows.fetchall())


def channel_of(conn: Connection, alert: int) -> str | None:
    row = conn.execute("SELECT channel FROM alerts WHERE id = %s", (alert,)).fetchone()
    return row[0] if row else None


def lock(conn: Connection, channel: str) -> None:
    """Let no one else decide about the channel until the transaction ends."""
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 3))", (f"channel {channel}",))


def waiting(conn: Connection, channel: str, now: datetime, *, everyone: bool = False) -> list[Alert]:
    """What is due for the channel, and with it all that waits about the same incidents, and what is new of the same
    accounts, or of everyone; in the order of their staging. What is on its way about an incident goes first.
    """
    return _read(
        conn,
        """
        WITH due AS (SELECT incident FROM alerts
                     WHERE channel = %(channel)s AND state = 'staged' AND next_try <= %(now)s),
             accounts AS (SELECT DISTINCT account, livemode FROM incidents WHERE id IN (SELECT incident FROM due))
        SELECT {fields} FROM alerts AS a
        WHERE channel = %(channel)s AND state = 'staged'
          AND (next_try <= %(now)s OR incident IN (SELECT incident FROM due)
               OR (verdict = '' AND (%(everyone)s OR EXISTS (
                   SELECT FROM incidents AS i JOIN accounts USING (account, livemode) WHERE i.id = a.incident))))
          AND NOT EXISTS (SELECT FROM alerts AS s WHERE s.channel = a.channel AND s.incident = a.incident
                                                    AND s.state = 'sending')
        ORDER BY id LIMIT 100000
        """,
        {"channel": channel, "now": now, "everyone": everyone},
        Alert,
    )


def doubt(conn: Connection, channel: str, now: datetime) -> Doubt | None:
    """The oldest message whose sender is gone; what an older release left on its way is staged again."""
    conn.execute(
        """
        UPDATE alerts SET state = 'staged', next_try = %(now)s
        WHERE channel = %(channel)s AND state = 'sending' AND delivery IS NULL AND claimed_at <= %(stale)s
        """,
        {"channel": channel, "now": now, "stale": now - CLAIM},
    )
    found = _read(
        conn,
        """
        SELECT {fields}, delivery FROM alerts AS a
        WHERE delivery = (SELECT min(delivery) FROM alerts
                          WHERE channel = %(channel)s AND state = 'sending' AND claimed_at <= %(stale)s)
          AND state = 'sending'
        ORDER BY id
        """,
        {"channel": channel, "stale": now - CLAIM},
        _InDoubt,
    )
    return Doubt(found[0].delivery, tuple(found)) if found else None


def staged_of(conn: Connection, channel: str, incidents: Iterable[int]) -> list[Alert]:
    """What else is staged for the channel about these incidents."""
    return _read(
        conn,
        "SELECT {fields} FROM alerts AS a WHERE channel = %(channel)s AND state = 'staged' AND incident = ANY(%(ids)s)",
        {"channel": channel, "ids": list(incidents)},
        Alert,
    )


def unchanged(conn: Connection, channel: str, alerts: Sequence[Alert]) -> bool:
    """Whether these are staged still, and are all that is staged of their incidents."""
    found = staged_of(conn, channel, [each.incident for each in alerts if each.incident is not None])
    return {each.id for each in found} == {each.id for each in alerts}


def heard(conn: Connection, channel: str, incidents: Iterable[int]) -> set[int]:
    """Of which of these incidents the channel was told, or will be before long."""
    rows = conn.execute(
        """
        SELECT DISTINCT incident FROM alerts WHERE channel = %s AND incident = ANY(%s)
          AND (state IN ('sent', 'sending') OR (state = 'staged' AND verdict NOT LIKE 'held: silenced%%'
                                                AND verdict NOT LIKE 'held: inhibited%%'))
        """,
        (channel, list(incidents)),
    )
    return {incident for (incident,) in rows}


def hold_unknown(conn: Connection, channel: str, now: datetime, until: datetime, oldest: datetime, why: str) -> None:
    """Nobody here knows the channel: look again at `until`; drop tests at once, and what was staged before `oldest`."""
    conn.execute(
        """
        UPDATE alerts SET next_try = %(until)s,
               state = CASE WHEN reason = 'test' OR staged_at <= %(oldest)s THEN 'dropped' ELSE 'staged' END,
               verdict = CASE WHEN reason = 'test' OR staged_at <= %(oldest)s THEN 'dropped: ' ELSE 'held: ' END
                         || %(why)s
        WHERE channel = %(channel)s
          AND ((state = 'staged' AND next_try <= %(now)s) OR (state = 'sending' AND claimed_at <= %(stale)s))
        """,
        {"channel": channel, "now": now, "until": until, "oldest": oldest, "why": why, "stale": now - CLAIM},
    )


def told(conn: Connection, channel: str, incidents: Iterable[int]) -> dict[int, datetime]:
    """When the channel last heard of each of these incidents."""
    rows = conn.execute(
        """
        SELECT incident, max(sent_at) FROM alerts
        WHERE incident = ANY(%s) AND channel = %s AND state = 'sent' GROUP BY incident
        """,
        (list(incidents), channel),
    )
    return dict(rows.fetchall())


def channels_of(conn: Connection, incident: int) -> list[str]:
    """The channels that heard of the incident, or were to."""
    rows = conn.execute("SELECT channel FROM alerts WHERE incident = %s GROUP BY channel ORDER BY min(id)", (incident,))
    return [channel for (channel,) in rows]


def attached(conn: Connection, channel: str, causes: Iterable[int]) -> dict[int, list[int]]:
    """The incidents that are held back for the channel, by the one that explains them."""
    rows = conn.execute(
        """
        SELECT cause, array_agg(DISTINCT incident) FROM alerts
        WHERE channel = %s AND state = 'staged' AND cause = ANY(%s) GROUP BY cause
        """,
        (channel, list(causes)),
    )
    return dict(rows.fetchall())


def hold(conn: Connection, alerts: Iterable[Alert], until: datetime, why: str, cause: int | None = None) -> None:
    """Not now."""
    conn.execute(
        "UPDATE alerts SET next_try = %s, verdict = %s, cause = %s WHERE id = ANY(%s) AND state = 'staged'",
        (until, f"held: {why}", cause, [each.id for each in alerts]),
    )


def drop(conn: Connection, alerts: Iterable[Alert], why: str) -> None:
    """Never."""
    conn.execute(
        "UPDATE alerts SET state = 'dropped', verdict = %s WHERE id = ANY(%s) AND state = 'staged'",
        (f"dropped: {why}", [each.id for each in alerts]),
    )


def claim(conn: Connection, alerts: Sequence[Alert], delivery: int, why: str, now: datetime) -> bool:
    """Take these to send them as one message; False, and nothing is to be sent, where any is another worker's."""
    changed = conn.execute(
        """
        UPDATE alerts SET state = 'sending', claimed_at = %(now)s, attempts = attempts + 1, delivery = %(delivery)s,
                          verdict = %(why)s, cause = NULL, first_try = coalesce(first_try, %(now)s)
        WHERE id = ANY(%(ids)s) AND (state = 'staged' OR (state = 'sending' AND claimed_at <= %(stale)s))
        """,
        {
            "now": now,
            "delivery": delivery,
            "why": why,
            "ids": [each.id for each in alerts],
            "stale": now - CLAIM,
        },
    )
    return changed.rowcount == len(alerts)


def sent(conn: Connection, delivery: int, now: datetime) -> int:
    """The message arrived; of how many alerts. Only a claim that is still this delivery's may end."""
    return _finish(conn, delivery, "state = 'sent', sent_at = %s, error = NULL", (now,))


def again(conn: Connection, delivery: int, next_try: datetime, error: str) -> int:
    """It did not, and is to be tried again."""
    return _finish(conn, delivery, "state = 'staged', next_try = %s, error = %s", (next_try, error))


def give_up(conn: Connection, delivery: int, error: str, before: datetime | None = None) -> int:
    """It never will; or only of what was first tried before this instant."""
    change = "state = 'given_up', error = %s"
    return _finish(
        conn, delivery, change, (error,), "AND first_try <= %s" if before else "", (before,) if before else ()
    )


def _finish(
    conn: Connection,
    delivery: int,
    change: str,
    values: tuple[object, ...],
    which: str = "",
    asked: tuple[object, ...] = (),
) -> int:
    # `change` and `which` are constants of this module
    query = f"UPDATE alerts SET {change} WHERE delivery = %s AND state = 'sending' {which}"
    return conn.execute(query, (*values, delivery, *asked)).rowcount


def rows_of(conn: Connection, incidents: Iterable[int]) -> dict[int, list[Row]]:
    """What was staged of each of these incidents, in order."""
    rows = conn.execute(
        """
        SELECT incident, channel, reason, staged_at, sent_at, state IN ('staged', 'sending'),
               verdict LIKE 'held:%%' OR state = 'dropped'
        FROM alerts
        WHERE incident = ANY(%s) ORDER BY id
        """,
        (list(incidents),),
    )
    found: dict[int, list[Row]] = {}
    for incident, *row in rows:
        found.setdefault(incident, []).append(Row(*row))
    return found


def read_for(conn: Connection, incident: int) -> list[dict[str, Any]]:
    """What was staged about the incident, oldest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            SELECT id, channel, reason, route, verdict, cause, state, attempts, staged_at, next_try, sent_at, error,
                   delivery
            FROM alerts WHERE incident = %s ORDER BY id
            """,
            (incident,),
        )
        return cursor.fetchall()


class _InDoubt(Alert, frozen=True, kw_only=True):
    delivery: int


A = TypeVar("A", bound=Alert)


def _read(conn: Connection, query: str, values: Mapping[str, object], shape: type[A]) -> list[A]:
    with conn.cursor(row_factory=class_row(shape)) as cursor:
        cursor.execute(query.format(fields=", ".join(f"a.{name}" for name in _FIELDS.split(", "))), values)
        return cursor.fetchall()


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
