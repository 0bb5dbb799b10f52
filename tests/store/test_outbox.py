"""An alert has one sender at a time, and only the sender whose claim still holds says what became of it."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from psycopg import Connection

from billingwatch.model import Alert
from billingwatch.store import incidents, outbox
from billingwatch.store.connection import connect
from tests.factories import NOON, incident
from tests.waiting import together

SECOND = timedelta(seconds=1)


@pytest.fixture
def alert(conn: Connection) -> int:
    """A staged alert's id."""
    return outbox.stage(conn, None, "ops", "test", "default route", "Title", "Body", NOON)


def claimed(conn: Connection, alert: int, at: datetime = NOON) -> Alert:
    found = outbox.claim(conn, alert, at)
    assert found is not None
    return found


def state(conn: Connection, alert: int) -> tuple[str, int, str | None]:
    row = conn.execute("SELECT state, attempts, error FROM alerts WHERE id = %s", (alert,)).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def test_claimed_alert_is_what_was_staged(conn: Connection) -> None:
    number = incidents.open_incident(conn, incident())
    id_ = outbox.stage(conn, number, "ops", "first", "default route", "Title – é", "Line 1\nLine 2", NOON)
    assert outbox.claim(conn, id_, NOON) == Alert(
        id=id_,
        incident=number,
        channel="ops",
        reason="first",
        title="Title – é",
        body="Line 1\nLine 2",
        staged_at=NOON,
        attempts=1,
    )


def test_alert_cannot_be_claimed_before_its_time(conn: Connection, alert: int) -> None:
    assert outbox.claim(conn, alert, NOON - SECOND) is None
    assert outbox.claim(conn, alert + 1, NOON) is None
    assert claimed(conn, alert).attempts == 1


def test_of_eight_senders_exactly_one_gets_the_alert(conn: Connection, database_url: str) -> None:
    alerts = [outbox.stage(conn, None, "ops", "test", "", "Title", "", NOON) for _ in range(10)]

    def claim_all() -> list[int]:
        with connect(database_url, "tests") as own:
            found = [outbox.claim(own, id_, NOON) for id_ in alerts]
            return [each.id for each in found if each]

    assert sorted(id_ for each in together(*[claim_all] * 8) for id_ in each) == alerts


def test_alert_of_a_sender_that_died_is_taken_over_and_not_a_moment_sooner(conn: Connection, alert: int) -> None:
    claimed(conn, alert)
    assert outbox.claim(conn, alert, NOON + outbox.CLAIM - SECOND) is None
    assert outbox.due(conn, NOON + outbox.CLAIM - SECOND) == []
    assert outbox.due(conn, NOON + outbox.CLAIM) == [alert]
    assert claimed(conn, alert, NOON + outbox.CLAIM).attempts == 2


Mark = Callable[[Connection, Alert], bool]
MARKS: dict[str, Mark] = {
    "sent": lambda conn, alert: outbox.mark_sent(conn, alert, NOON),
    "staged": lambda conn, alert: outbox.mark_retry(conn, alert, NOON, "HTTP 500"),
    "given_up": lambda conn, alert: outbox.mark_given_up(conn, alert, NOON, "HTTP 404"),
}


@pytest.mark.parametrize("name", MARKS)
def test_sender_whose_alert_was_taken_over_marks_nothing(conn: Connection, alert: int, name: str) -> None:
    slow = claimed(conn, alert)
    quick = claimed(conn, alert, NOON + outbox.CLAIM)
    assert not MARKS[name](conn, slow)
    assert state(conn, alert) == ("sending", 2, None)
    assert MARKS[name](conn, quick)
    assert state(conn, alert)[0] == name


@pytest.mark.parametrize("name", MARKS)
def test_alert_is_marked_once(conn: Connection, alert: int, name: str) -> None:
    own = claimed(conn, alert)
    assert MARKS[name](conn, own)
    assert [mark(conn, own) for mark in MARKS.values()] == [False, False, False]


@pytest.mark.parametrize("end", ["sent", "given_up"])
def test_alert_that_is_over_is_never_due_again(conn: Connection, alert: int, end: str) -> None:
    MARKS[end](conn, claimed(conn, alert))
    later = NOON + timedelta(days=30)
    assert outbox.claim(conn, alert, later) is None
    assert outbox.due(conn, later) == []


def test_failed_alert_waits_for_its_next_try_and_then_forgets_the_error(conn: Connection, alert: int) -> None:
    next_try = NOON + timedelta(minutes=5)
    outbox.mark_retry(conn, claimed(conn, alert), next_try, "HTTP 500")
    assert state(conn, alert) == ("staged", 1, "HTTP 500")
    assert outbox.due(conn, next_try - SECOND) == []
    assert outbox.claim(conn, alert, next_try - SECOND) is None
    assert outbox.due(conn, next_try) == [alert]
    outbox.mark_sent(conn, claimed(conn, alert, next_try), next_try)
    assert state(conn, alert) == ("sent", 2, None)


def test_staged_in_a_transaction_that_fails_is_not_staged(conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        outbox.stage(conn, None, "ops", "test", "", "Title", "", NOON)
    assert outbox.due(conn, NOON) == []


def test_due_alerts_come_oldest_first_and_no_more_than_asked_for(conn: Connection) -> None:
    ids = [outbox.stage(conn, None, "ops", "test", "", "Title", "", NOON - n * SECOND) for n in range(4)]
    assert outbox.due(conn, NOON, limit=3) == ids[:0:-1]


def test_messages_of_an_incident_are_read_with_why_they_went_where_they_went(conn: Connection) -> None:
    number = incidents.open_incident(conn, incident())
    assert number is not None
    id_ = outbox.stage(conn, number, "ops", "first", "default route", "Title", "", NOON)
    outbox.stage(conn, None, "ops", "test", "", "Another", "", NOON)
    outbox.mark_given_up(conn, claimed(conn, id_), NOON, "HTTP 404")
    (row,) = outbox.read_for(conn, number)
    told = [row[name] for name in ("channel", "reason", "route", "state", "error")]
    assert told == ["ops", "first", "default route", "given_up", "HTTP 404"]
