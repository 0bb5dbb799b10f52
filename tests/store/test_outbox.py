"""What is staged has one sender at a time, and only the delivery whose claim still holds says what became of it."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace
from psycopg import Connection

from billingwatch.model import Alert, Tenant
from billingwatch.store import deliveries, incidents, outbox
from billingwatch.store.connection import connect
from billingwatch.store.deliveries import Delivery, Earlier
from tests.factories import LIVE, NOON, incident
from tests.waiting import together

SECOND = timedelta(seconds=1)


@pytest.fixture
def number(conn: Connection) -> int:
    """An open incident's id."""
    return opened(conn)


@pytest.fixture
def alert(conn: Connection, number: int) -> Alert:
    return staged(conn, number)


def opened(conn: Connection, account: str = LIVE.account, **changes: object) -> int:
    id_ = incidents.open_incident(conn, incident(tenant=Tenant(account, True), **changes))
    assert id_ is not None
    return id_


def staged(conn: Connection, number: int | None, due: datetime = NOON, channel: str = "ops") -> Alert:
    id_ = outbox.stage(conn, number, channel, "first", "default route", NOON, due)
    (found,) = [each for each in outbox.waiting(conn, channel, due) if each.id == id_]
    return found


def begun(conn: Connection, at: datetime = NOON, channel: str = "ops") -> int:
    return deliveries.begin(conn, Delivery(channel=channel, kind="alert", title="Title", body="Body"), at)


def claimed(conn: Connection, alert: Alert, at: datetime = NOON) -> int:
    """The delivery that has it now."""
    delivery = begun(conn, at)
    assert outbox.claim(conn, [alert], delivery, "sent: first", at)
    return delivery


def state(conn: Connection, alert: Alert) -> tuple[str, int, str | None]:
    row = conn.execute("SELECT state, attempts, error FROM alerts WHERE id = %s", (alert.id,)).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def test_what_waits_is_what_was_staged(conn: Connection, number: int) -> None:
    due = NOON + 30 * SECOND
    id_ = outbox.stage(conn, number, "ops", "worse", "routes.1", NOON, due, content={"told": 0.25})
    assert outbox.waiting(conn, "ops", due) == [
        Alert(
            id=id_,
            incident=number,
            channel="ops",
            reason="worse",
            route="routes.1",
            staged_at=NOON,
            next_try=due,
            content={"told": 0.25},
        )
    ]
    assert outbox.waiting(conn, "ops", due - SECOND) == []
    assert outbox.waiting(conn, "mail", due) == []


def test_a_channel_is_due_when_something_of_it_is(conn: Connection, number: int) -> None:
    staged(conn, number, NOON + SECOND)
    staged(conn, number, NOON, "mail")
    assert outbox.due_channels(conn, NOON) == ["mail"]
    assert outbox.due_channels(conn, NOON + SECOND) == ["mail", "ops"]


def test_with_what_is_due_comes_what_waits_about_the_same_incident_and_what_is_new_of_the_account(
    conn: Connection, number: int
) -> None:
    later = NOON + timedelta(hours=1)
    held = staged(conn, number, later)
    outbox.hold(conn, [held], later, "quiet hours")
    other = staged(conn, opened(conn, detector="churn_spike"), later)
    rested = staged(conn, opened(conn, detector="dispute_spike"), later)
    outbox.hold(conn, [rested], later, "silenced by 3")
    stranger = staged(conn, opened(conn, "acct_2"), later)
    assert outbox.waiting(conn, "ops", NOON) == []
    due = staged(conn, number)
    assert [each.id for each in outbox.waiting(conn, "ops", NOON)] == [held.id, other.id, due.id]
    everyone = [each.id for each in outbox.waiting(conn, "ops", NOON, everyone=True)]
    assert everyone == [held.id, other.id, stranger.id, due.id]


def test_held_and_dropped_say_why(conn: Connection, alert: Alert, number: int) -> None:
    outbox.hold(conn, [alert], NOON + SECOND, "inhibited by incident 7", 7)
    (row,) = outbox.read_for(conn, number)
    assert (row["state"], row["verdict"], row["cause"]) == ("staged", "held: inhibited by incident 7", 7)
    assert outbox.attached(conn, "ops", [7, 8]) == {7: [number]}
    outbox.drop(conn, [alert], "acked meanwhile")
    (row,) = outbox.read_for(conn, number)
    assert (row["state"], row["verdict"]) == ("dropped", "dropped: acked meanwhile")
    assert outbox.due_channels(conn, NOON + timedelta(days=9)) == []


def test_of_eight_senders_exactly_one_gets_the_alert(conn: Connection, database_url: str, number: int) -> None:
    alerts = [staged(conn, number) for _ in range(10)]

    def claim_all() -> list[int]:
        with connect(database_url, "tests") as own:
            delivery = begun(own)
            return [each.id for each in alerts if outbox.claim(own, [each], delivery, "sent", NOON)]

    assert sorted(id_ for each in together(*[claim_all] * 8) for id_ in each) == [each.id for each in alerts]


def test_several_are_claimed_together_or_it_is_told(conn: Connection, number: int) -> None:
    first, second = staged(conn, number), staged(conn, number)
    claimed(conn, first)
    assert not outbox.claim(conn, [first, second], begun(conn), "sent", NOON)


def test_message_of_a_sender_that_died_is_in_doubt_and_not_a_moment_sooner(conn: Connection, number: int) -> None:
    alerts = [staged(conn, number), staged(conn, number)]
    delivery = begun(conn)
    assert outbox.claim(conn, alerts, delivery, "sent", NOON)
    before, after = NOON + outbox.CLAIM - SECOND, NOON + outbox.CLAIM
    assert (outbox.doubt(conn, "ops", before), outbox.due_channels(conn, before)) == (None, [])
    assert outbox.due_channels(conn, after) == ["ops"]
    doubt = outbox.doubt(conn, "ops", after)
    assert doubt is not None
    assert (doubt.delivery, [each.id for each in doubt.alerts]) == (delivery, [each.id for each in alerts])
    assert outbox.doubt(conn, "mail", after) is None


def test_what_the_release_before_left_on_its_way_is_staged_again(conn: Connection, alert: Alert) -> None:
    conn.execute("UPDATE alerts SET state = 'sending', claimed_at = %s, title = 'x', body = 'y'", (NOON,))
    assert outbox.doubt(conn, "ops", NOON + outbox.CLAIM) is None
    assert [each.id for each in outbox.waiting(conn, "ops", NOON + outbox.CLAIM)] == [alert.id]


Mark = Callable[[Connection, int], int]
MARKS: dict[str, Mark] = {
    "sent": lambda conn, delivery: outbox.sent(conn, delivery, NOON),
    "staged": lambda conn, delivery: outbox.again(conn, delivery, NOON, "HTTP 500"),
    "given_up": lambda conn, delivery: outbox.give_up(conn, delivery, "HTTP 404"),
}


@pytest.mark.parametrize("name", MARKS)
def test_sender_whose_message_was_taken_over_marks_nothing(conn: Connection, alert: Alert, name: str) -> None:
    slow = claimed(conn, alert)
    quick = claimed(conn, alert, NOON + outbox.CLAIM)
    assert MARKS[name](conn, slow) == 0
    assert state(conn, alert) == ("sending", 2, None)
    assert MARKS[name](conn, quick) == 1
    assert state(conn, alert)[0] == name


@pytest.mark.parametrize("name", MARKS)
def test_alert_is_marked_once(conn: Connection, alert: Alert, name: str) -> None:
    own = claimed(conn, alert)
    assert MARKS[name](conn, own) == 1
    assert [mark(conn, own) for mark in MARKS.values()] == [0, 0, 0]


@pytest.mark.parametrize("end", ["sent", "given_up"])
def test_alert_that_is_over_is_never_due_again(conn: Connection, alert: Alert, end: str) -> None:
    MARKS[end](conn, claimed(conn, alert))
    later = NOON + timedelta(days=30)
    assert (outbox.waiting(conn, "ops", later), outbox.due_channels(conn, later)) == ([], [])


def test_failed_alert_waits_for_its_next_try_and_then_forgets_the_error(conn: Connection, alert: Alert) -> None:
    next_try = NOON + timedelta(minutes=5)
    outbox.again(conn, claimed(conn, alert), next_try, "HTTP 500")
    assert state(conn, alert) == ("staged", 1, "HTTP 500")
    assert outbox.waiting(conn, "ops", next_try - SECOND) == []
    (again,) = outbox.waiting(conn, "ops", next_try)
    assert again == replace(alert, next_try=next_try, first_try=NOON, attempts=1)
    outbox.sent(conn, claimed(conn, again, next_try), next_try)
    assert state(conn, alert) == ("sent", 2, None)


def test_staged_in_a_transaction_that_fails_is_not_staged(conn: Connection, number: int) -> None:
    with conn.transaction(force_rollback=True):
        staged(conn, number)
    assert outbox.due_channels(conn, NOON) == []


def test_when_a_channel_last_heard_of_an_incident(conn: Connection, alert: Alert, number: int) -> None:
    assert outbox.told(conn, "ops", [number]) == {}
    outbox.sent(conn, claimed(conn, alert), NOON + SECOND)
    assert outbox.told(conn, "ops", [number]) == {number: NOON + SECOND}
    assert outbox.told(conn, "mail", [number]) == {}
    assert outbox.channels_of(conn, number) == ["ops"]


def test_a_delivery_ends_once_and_failures_count_against_no_budget(conn: Connection) -> None:
    arrived, failed, open_ = begun(conn), begun(conn, NOON + SECOND), begun(conn, NOON + 2 * SECOND)
    assert deliveries.end(conn, arrived, "sent", "", NOON + SECOND)
    assert not deliveries.end(conn, arrived, "failed", "too late", NOON + SECOND)
    assert deliveries.end(conn, failed, "failed", "HTTP 500", NOON + 2 * SECOND)
    load = deliveries.load(conn, "ops", NOON - SECOND)
    assert (load.sent, load.summaries) == ((NOON, NOON + 2 * SECOND), ())
    assert deliveries.load(conn, "ops", NOON + SECOND).sent == (NOON + 2 * SECOND,)
    assert [(each.outcome, each.error) for each in deliveries.ended(conn, "ops")] == [
        ("sent", ""),
        ("failed", "HTTP 500"),
    ]
    assert deliveries.root(conn, open_) == ("alert", open_)


def test_the_same_alerts_together_are_the_same_message(conn: Connection) -> None:
    def began(*alerts: int, message: int | None = None) -> int:
        found = Delivery(channel="ops", kind="alert", title="Title", body="Body", alerts=alerts, message=message)
        return deliveries.begin(conn, found, NOON)

    first = began(1, 2)
    assert deliveries.earlier(conn, "ops", [1, 2]) == Earlier(first, None)
    deliveries.end(conn, first, "failed", "timed out after 20 s", NOON)
    second = began(1, 2, message=first)
    deliveries.end(conn, second, "failed", "HTTP 500", NOON)
    assert deliveries.earlier(conn, "ops", [1, 2]) == Earlier(first, first)
    assert deliveries.root(conn, second) == ("alert", first)
    for channel, alerts in (("ops", [1]), ("ops", [1, 2, 3]), ("mail", [1, 2])):
        assert deliveries.earlier(conn, channel, alerts) is None
