"""Stage reminders of what is open and not acknowledged: to the same channels again, or to the next ones."""

from datetime import datetime

from psycopg import Connection

from billingwatch.model import Incident
from billingwatch.store import incidents, outbox
from billingwatch.store.outbox import Row
from notify.reminder import Reminder, remind
from notify.route import labels, matched, route
from worker.desk import Desk

MOST = 100  # incidents a round, which the clock waits for; the others have the next


def run_once(conn: Connection, desk: Desk, now: datetime) -> int:
    """Stage what is due; how many reminders. Of each incident in a transaction of its own."""
    unanswered = incidents.read_unanswered(conn)
    rows = outbox.rows_of(conn, [each.id for each in unanswered])
    due = [each.id for each in unanswered if _due(each, rows.get(each.id, []), desk, now)][:MOST]
    return sum(_stage(conn, id_, desk, now) for id_ in due)


def _stage(conn: Connection, id_: int, desk: Desk, now: datetime) -> int:
    """Ask once more under the incident's lock, and stage: it may have been acknowledged, or told, a moment ago."""
    with conn.transaction():
        incident = incidents.lock(conn, id_)
        if incident is None:
            return 0
        found = _due(incident, outbox.rows_of(conn, [id_]).get(id_, []), desk, now)
        for each in found:
            outbox.stage(conn, id_, each.channel, each.reason, each.route, now, now)
        return len(found)


def _due(incident: Incident, rows: list[Row], desk: Desk, now: datetime) -> list[Reminder]:
    asked = labels(incident), desk.policy.routes, now, desk.zone(incident.tenant)
    return remind(incident, rows, route(*asked), matched(*asked), now)
