"""What a digest reads: each number from a few exact rows, and each digest once."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from psycopg import Connection

from billingwatch.model import OWN, Bucket, Tenant
from billingwatch.store import accounts, digests, events, incidents, outbox, quarantine, rollups
from billingwatch.store.accounts import Account
from billingwatch.store.connection import connect
from billingwatch.store.digests import Count, Sent, Stored
from billingwatch.store.quarantine import Refusal
from tests.factories import LIVE, NOON, TEST, incident, new_event
from tests.waiting import together

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SHOP = Tenant("acct_1", True)


def seen(conn: Connection, tenant: Tenant, last: datetime = NOON) -> None:
    accounts.touch(conn, Account(tenant, last - DAY, last, last))


def counted(conn: Connection, at: datetime, count: int, tenant: Tenant = LIVE, **changes: str) -> None:
    """A payment's rollups, of five minutes and of the hour."""
    fields = {"metric": "payment.succeeded", "stratum": "checkout", "currency": "usd"} | changes
    second = int(at.timestamp())
    buckets = [
        Bucket(grain=grain, start=second - second % (grain * 60), count=count, amount=100 * count, **fields)
        for grain in (5, 60)
    ]
    rollups.grow(conn, tenant, buckets)


def test_digest_is_made_once_a_day_and_kind_and_account(conn: Connection, database_url: str) -> None:
    def make() -> bool:
        with connect(database_url, "tests") as own:
            return digests.begin(own, "", "daily", NOON.date(), NOON)

    assert sorted(together(*[make] * 4)) == [False, False, False, True]
    assert digests.begin(conn, "", "weekly", NOON.date(), NOON)
    assert digests.begin(conn, "acct_1", "daily", NOON.date(), NOON)
    assert digests.begin(conn, "", "daily", NOON.date() - DAY, NOON)
    assert digests.made(conn, NOON.date()) == {
        ("", "daily", date(2026, 3, 10)),
        ("", "weekly", date(2026, 3, 10)),
        ("acct_1", "daily", date(2026, 3, 10)),
    }


def test_accounts_are_those_of_one_mode(conn: Connection) -> None:
    for tenant in (SHOP, LIVE, TEST):
        seen(conn, tenant)
    assert digests.accounts(conn, True) == ["acct_1", "default"]
    assert digests.accounts(conn, False) == ["default"]


def test_incidents_of_a_span_are_open_or_ended_in_it_the_gravest_first(conn: Connection) -> None:
    def opened(scope: str, **changes: object) -> None:
        assert incidents.open_incident(conn, incident(scope=scope, **changes)) is not None

    over = {"state": "resolved", "opened_at": NOON - 30 * HOUR}
    opened("old", resolved_at=NOON - DAY - HOUR, **over)
    opened("ended", resolved_at=NOON - DAY, severity="low", **over)
    opened("open", opened_at=NOON - 90 * DAY)
    opened("acked", state="acked", severity="critical")
    opened("other", tenant=SHOP)
    opened("test", tenant=TEST)
    opened("own", tenant=OWN)
    found = digests.concerned(conn, ["default", OWN.account], True, NOON - DAY)
    assert [each.scope for each in found] == ["acked", "open", "own", "ended"]


def test_noise_is_what_people_last_called_a_false_alarm(conn: Connection) -> None:
    def opened(scope: str, *words: str, **changes: object) -> None:
        id_ = incidents.open_incident(conn, incident(scope=scope, **changes))
        for word in words:
            conn.execute(
                "INSERT INTO feedback (incident, verdict, who, at) VALUES (%s, %s, 'ada', %s)", (id_, word, NOON)
            )

    opened("a", "confirmed", "false_alarm")
    opened("b", "false_alarm", "confirmed")
    opened("c")
    opened("d", "false_alarm", opened_at=NOON + HOUR)  # after the span
    opened("e", "false_alarm", tenant=SHOP)
    opened("f", "confirmed", detector="churn_spike")
    assert digests.noise(conn, ["default"], True, NOON - DAY, NOON + HOUR) == [("refund_spike", 3, 1)]


def test_what_channels_were_sent_in_a_span(conn: Connection) -> None:
    def delivered(channel: str, at: datetime, outcome: str | None, account: str = "default") -> None:
        conn.execute(
            """
            INSERT INTO deliveries (channel, kind, account, alerts, title, body, claimed_at, ended_at, outcome)
            VALUES (%s, 'alert', %s, '{1}', '', '', %s, %s, %s)
            """,
            (channel, account, at, at if outcome else None, outcome),
        )

    for outcome in ("sent", "sent", "failed", "refused", "unknown", None):
        delivered("ops", NOON, outcome)
    delivered("mail", NOON, "sent", "acct_1")
    delivered("mail", NOON - HOUR, "sent")
    delivered("mail", NOON + HOUR, "sent")
    own = incidents.open_incident(conn, incident())
    for incident_ in (own, None):
        outbox.stage(conn, incident_, "sms", "test", "", NOON, NOON)
    conn.execute("UPDATE alerts SET state = 'given_up'")
    everything = digests.sent(conn, NOON, NOON + HOUR)
    assert everything == [Sent("mail", 1, 0, 0), Sent("ops", 2, 3, 0), Sent("sms", 0, 0, 2)]
    assert digests.sent(conn, NOON, NOON + HOUR, "default") == [Sent("ops", 2, 3, 0), Sent("sms", 0, 0, 1)]


def test_counts_are_of_the_span_alone_by_the_hour_of_the_zone(conn: Connection) -> None:
    start, end = NOON, NOON + 3 * HOUR
    counted(conn, start - timedelta(seconds=1), 100)
    counted(conn, start, 1)
    counted(conn, start + HOUR, 2, currency="jpy")
    counted(conn, end - timedelta(seconds=1), 4)
    counted(conn, end, 100)
    counted(conn, start, 100, TEST)
    counted(conn, start, 100, SHOP)
    counted(conn, start, 100, metric="delivery.arrived")
    options: Any = {"zone": "Europe/Berlin", "by_day": False}
    found = digests.counts(conn, ["default"], True, ["payment.succeeded"], start, end, **options)
    assert found == [
        Count("13", "payment.succeeded", "checkout", "usd", 1, 100),
        Count("14", "payment.succeeded", "checkout", "jpy", 2, 200),
        Count("15", "payment.succeeded", "checkout", "usd", 4, 400),
    ]
    both = digests.counts(conn, ["default", "acct_1"], True, ["payment.succeeded"], start, end, **options)
    assert both[0].count == 101


def test_days_that_begin_at_half_past_are_counted_to_the_minute(conn: Connection) -> None:
    """In India a day begins at 18:30 UTC, in the middle of an hour of the rollups."""
    start = datetime.fromisoformat("2026-03-09T18:30:00+00:00")
    counted(conn, start - timedelta(minutes=5), 100)
    counted(conn, start, 1)
    counted(conn, start + 5 * HOUR, 2)
    counted(conn, start + DAY - timedelta(minutes=5), 4)
    counted(conn, start + DAY, 100)
    found = digests.counts(
        conn, ["default"], True, ["payment.succeeded"], start, start + DAY, zone="Asia/Kolkata", by_day=True
    )
    assert [(each.slot, each.count) for each in found] == [("2026-03-10", 7)]


@pytest.mark.parametrize(("zone", "days"), [("UTC", 1), ("Pacific/Auckland", 2)])
def test_days_are_those_of_the_zone(conn: Connection, zone: str, days: int) -> None:
    counted(conn, NOON - 2 * HOUR, 1)  # 23:00 in Auckland
    counted(conn, NOON, 1)
    found = digests.counts(
        conn, ["default"], True, ["payment.succeeded"], NOON - DAY, NOON + DAY, zone=zone, by_day=True
    )
    assert len({each.slot for each in found}) == days


def test_stored_counts_events_of_the_span_and_what_is_in_quarantine(conn: Connection) -> None:
    events.ensure_months(conn, [date(2026, 3, 1)])
    seconds = int(NOON.timestamp())
    events.insert(conn, [new_event(created=seconds + offset) for offset in (-1, 0, 5, 3600)])
    events.insert(conn, [new_event(created=seconds, tenant=tenant) for tenant in (TEST, SHOP)])
    for tenant in (LIVE, SHOP):
        seen(conn, tenant, NOON + HOUR if tenant == LIVE else NOON)
    quarantine.hold(conn, [Refusal("default", 0.0, b"%d" % n, "no JSON") for n in range(3)])
    conn.execute("UPDATE quarantine SET quarantined_at = %s", (NOON - DAY,))
    conn.execute("UPDATE quarantine SET quarantined_at = %s WHERE body = '1'", (NOON,))
    assert digests.stored(conn, ["default"], True, NOON, NOON + HOUR) == Stored(2, NOON + HOUR, 3, 1)
    assert digests.stored(conn, ["default", "acct_1"], True, NOON, NOON + HOUR).events == 3
    assert digests.stored(conn, [], True, NOON, NOON + HOUR) == Stored(0, None, 3, 1)
