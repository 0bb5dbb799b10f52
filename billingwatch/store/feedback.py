"""What people said incidents were. The newest word about an incident counts; the earlier ones are kept."""

from datetime import datetime

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from billingwatch.model import Feedback


class Said(Struct, frozen=True):
    """What somebody said an incident was."""

    verdict: Feedback
    note: str
    who: str
    at: datetime


class Precision(Struct, frozen=True):
    """Of one detector: incidents that opened, and what people said of them; of most nobody says anything."""

    detector: str
    incidents: int
    confirmed: int
    false_alarms: int


def add(conn: Connection, incident: int, said: Said) -> bool:
    """Store it; False where that is what was said last."""
    stored = conn.execute(
        """
        INSERT INTO feedback (incident, verdict, note, who, at)
        SELECT %(incident)s, %(verdict)s, %(note)s, %(who)s, %(at)s
        WHERE %(verdict)s IS DISTINCT FROM
            (SELECT verdict FROM feedback WHERE incident = %(incident)s ORDER BY id DESC LIMIT 1)
        """,
        {"incident": incident, "verdict": said.verdict, "note": said.note, "who": said.who, "at": said.at},
    )
    return stored.rowcount == 1


def latest(conn: Connection, incident: int) -> Said | None:
    """What was said of it last."""
    found = read_for(conn, incident)
    return found[-1] if found else None


def read_for(conn: Connection, incident: int) -> list[Said]:
    """All that was said of it, oldest first."""
    with conn.cursor(row_factory=class_row(Said)) as cursor:
        cursor.execute("SELECT verdict, note, who, at FROM feedback WHERE incident = %s ORDER BY id", (incident,))
        return cursor.fetchall()


def precision(conn: Connection, since: datetime) -> list[Precision]:
    """By detector, of the incidents that opened since then."""
    with conn.cursor(row_factory=class_row(Precision)) as cursor:
        cursor.execute(
            """
            SELECT detector, count(*) AS incidents,
                   count(*) FILTER (WHERE verdict = 'confirmed') AS confirmed,
                   count(*) FILTER (WHERE verdict = 'false_alarm') AS false_alarms
            FROM incidents LEFT JOIN LATERAL (
                SELECT verdict FROM feedback WHERE incident = incidents.id ORDER BY feedback.id DESC LIMIT 1
            ) AS said ON true
            WHERE opened_at >= %s GROUP BY detector ORDER BY detector
            """,
            (since,),
        )
        return cursor.fetchall()
