"""What Postgres knows of how BillingWatch does."""

from datetime import datetime, timedelta

from psycopg import Connection

from billingwatch.store import outbox, quarantine, vitals
from billingwatch.store.quarantine import Refusal
from tests.factories import NOON

MINUTE = timedelta(minutes=1)


def ended(conn: Connection, channel: str, at: datetime, outcome: str | None, error: str = "") -> None:
    conn.execute(
        """
        INSERT INTO deliveries (channel, kind, alerts, title, body, claimed_at, ended_at, outcome, error)
        VALUES (%s, 'alert', '{1}', '', '', %s, %s, %s, %s)
        """,
        (channel, at, at if outcome else None, outcome, error),
    )


def test_empty_store_is_well(conn: Connection) -> None:
    found = vitals.read(conn, NOON)
    assert (found.quarantined, found.lately, found.overdue_since) == (0, 0, None)
    assert 1_000_000 < found.database < 1_000_000_000
    assert vitals.deliveries(conn, NOON) == {}


def test_quarantine_is_counted_in_all_and_of_the_last_hour(conn: Connection) -> None:
    quarantine.hold(conn, [Refusal("default", 0.0, b"%d" % n, "no JSON") for n in range(3)])
    conn.execute("UPDATE quarantine SET quarantined_at = %s", (NOON - 61 * MINUTE,))
    quarantine.hold(conn, [Refusal("default", 0.0, b"new", "no JSON")])
    conn.execute("UPDATE quarantine SET quarantined_at = %s WHERE body = 'new'", (NOON - 59 * MINUTE,))
    found = vitals.read(conn, NOON)
    assert (found.quarantined, found.lately) == (4, 1)


def test_overdue_is_what_is_staged_and_due_and_not_what_waits_for_its_time(conn: Connection) -> None:
    outbox.stage(conn, None, "ops", "test", "", NOON, NOON + MINUTE)
    assert vitals.read(conn, NOON).overdue_since is None
    outbox.stage(conn, None, "ops", "test", "", NOON, NOON - MINUTE)
    outbox.stage(conn, None, "ops", "test", "", NOON, NOON - 9 * MINUTE)
    conn.execute("UPDATE alerts SET state = 'sent' WHERE next_try < %s", (NOON - 5 * MINUTE,))
    assert vitals.read(conn, NOON).overdue_since == NOON - MINUTE


def test_deliveries_of_the_last_day_come_by_channel_oldest_first(conn: Connection) -> None:
    ended(conn, "ops", NOON - timedelta(days=1), "sent")
    ended(conn, "ops", NOON - 3 * MINUTE, "sent")
    ended(conn, "ops", NOON - 2 * MINUTE, "failed", "500")
    ended(conn, "ops", NOON - MINUTE, None)
    ended(conn, "mail", NOON - 5 * MINUTE, "refused", "401")
    found = vitals.deliveries(conn, NOON)
    assert {name: [(each.outcome, each.error) for each in some] for name, some in found.items()} == {
        "ops": [("sent", ""), ("failed", "500")],
        "mail": [("refused", "401")],
    }


def test_of_a_busy_channel_the_newest_deliveries_are_enough(conn: Connection) -> None:
    for n in range(vitals.NEWEST + 3):
        ended(conn, "ops", NOON - timedelta(seconds=200 - n), "sent", str(n))
    found = vitals.deliveries(conn, NOON)["ops"]
    assert [each.error for each in found] == [str(n) for n in range(3, vitals.NEWEST + 3)]
