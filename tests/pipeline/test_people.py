"""What people say to an incident, and how it is judged from then on."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg import Connection

from billingwatch.model import Bucket, Incident
from billingwatch.store import accounts, acts, baselines, incidents, markers, rollups
from billingwatch.store.accounts import Account
from billingwatch.store.acts import Outcome
from detectors import facts
from detectors.almanac import Almanac
from detectors.registry import configure
from notify.policy import Policy
from tests.factories import LIVE, NOON
from worker.evaluate import evaluate
from worker.learn import learn

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PLAN = configure({})[0].of("default")


def counted(conn: Connection, metric: str, counts: dict[datetime, int]) -> None:
    """So much was counted in the 5 minutes from each instant on."""
    stratum = "" if metric == facts.REFUND else facts.CHECKOUT
    rollups.grow(
        conn, LIVE, [Bucket(metric, stratum, "usd", 5, int(at.timestamp()), n, 2900 * n) for at, n in counts.items()]
    )
    accounts.touch(conn, Account(LIVE, min(counts), max(counts), max(counts)))


def failing(conn: Connection, at: datetime, each: int, of: int = 40) -> None:
    """So many of so many payments fail in each of the two bins before, of an account that is a day old."""
    bins = [at - 10 * MINUTE, at - 5 * MINUTE]
    counted(conn, facts.PAYMENT_FAILED, {NOON - DAY: 1} | dict.fromkeys(bins, each))
    counted(conn, facts.PAYMENT_SUCCEEDED, {NOON - DAY: 20} | dict.fromkeys(bins, of - each))


def judge(conn: Connection, at: datetime) -> Incident:
    """The only incident after it was judged."""
    evaluate(conn, LIVE, at, PLAN, Policy())
    return only(conn)


def only(conn: Connection) -> Incident:
    (found,) = incidents.read_all(conn)
    return found


def act(conn: Connection, do: Callable[..., Outcome], *arguments: Any) -> None:
    with conn.transaction():
        assert do(conn, only(conn).id, *arguments).done


def log(conn: Connection) -> list[tuple[str, str, str]]:
    return [(row["from_state"], row["to_state"], row["reason"]) for row in incidents.read_log(conn, only(conn).id)]


def reasons(conn: Connection) -> list[str]:
    return [reason for (reason,) in conn.execute("SELECT reason FROM alerts ORDER BY id")]


def test_acknowledged_incident_that_gets_worse_is_told_and_stays_acknowledged(conn: Connection) -> None:
    failing(conn, NOON, 12)
    before = judge(conn, NOON)
    act(conn, acts.ack, "ada", NOON + MINUTE)
    failing(conn, NOON + 10 * MINUTE, 38)
    after = judge(conn, NOON + 10 * MINUTE)
    assert (before.state, after.state) == ("open", "acked")
    assert (before.severity, after.severity) == ("high", "critical")
    assert after.observed > before.observed
    assert log(conn) == [("", "open", "first"), ("open", "acked", "by hand"), ("acked", "acked", "worse")]
    assert reasons(conn) == ["first", "worse"]


def recovered(conn: Connection, minutes: int = 0) -> datetime:
    """Two hours of payments that succeed, judged until the incident is over; when it was."""
    start = NOON + minutes * MINUTE
    counted(conn, facts.PAYMENT_SUCCEEDED, {start + n * 5 * MINUTE: 40 for n in range(24)})
    at = start
    while judge(conn, at).state != "resolved":
        at += 5 * MINUTE
        assert at < start + 2 * HOUR
    return at


def test_acknowledged_incident_is_over_by_itself_and_what_comes_again_is_told_as_open(conn: Connection) -> None:
    failing(conn, NOON, 20)
    judge(conn, NOON)
    act(conn, acts.ack, "ada", NOON)
    over = recovered(conn)
    assert reasons(conn) == ["first", "resolved"]
    again = over + 10 * MINUTE
    counted(conn, facts.PAYMENT_FAILED, {again - n * 5 * MINUTE: 120 for n in (1, 2)})
    evaluate(conn, LIVE, again, PLAN, Policy())
    newest, *_ = incidents.read_all(conn)
    assert newest.state == "open"
    assert reasons(conn) == ["first", "resolved", "first"]


def test_resolved_by_a_person_it_comes_again_only_of_new_evidence(conn: Connection) -> None:
    failing(conn, NOON, 20)
    judge(conn, NOON)
    act(conn, acts.resolve, "ada", NOON + MINUTE)
    for minutes in (1, 5, 20):
        assert judge(conn, NOON + minutes * MINUTE).state == "resolved"
    failing(conn, NOON + 2 * HOUR, 20)
    evaluate(conn, LIVE, NOON + 2 * HOUR, PLAN, Policy())
    assert [each.state for each in incidents.read_all(conn)] == ["open", "resolved"]


def test_expected_incident_goes_on_until_it_is_over(conn: Connection) -> None:
    failing(conn, NOON, 20)
    judge(conn, NOON)
    act(conn, acts.feedback, "expected", "ada", NOON + MINUTE)
    assert judge(conn, NOON + MINUTE).state == "acked"
    recovered(conn)
    assert log(conn)[-2:] == [("open", "acked", "by hand: expected"), ("acked", "resolved", "resolved")]
    (marker,) = markers.read(conn, LIVE)
    assert (marker.starts_at, marker.ends_at) == (only(conn).first_breach_at, NOON + MINUTE)


@pytest.fixture
def refunds(conn: Connection) -> int:
    """Two an hour for five days, ten an hour for five more, all learnt, and an incident since the change; its id."""
    counted(conn, facts.REFUND, {NOON - n * HOUR: 2 if n > 120 else 10 for n in range(1, 241)})
    assert learn(conn, LIVE, NOON, PLAN)
    made = Incident(
        tenant=LIVE,
        detector="refund_spike",
        metric=facts.REFUND,
        severity="high",
        opened_at=NOON - 119 * HOUR,
        first_breach_at=NOON - 120 * HOUR,
        last_breach_at=NOON,
        observed=10,
        expected=2,
        limit=6,
        peak=10,
        window=3600,
        why="10 refunds",
    )
    id_ = incidents.open_incident(conn, made)
    assert id_ is not None
    return id_


def almanac(conn: Connection) -> Almanac:
    packed = baselines.read_archive(conn, LIVE)
    assert packed
    found = Almanac.unpack(PLAN.calendar, packed)
    assert found
    return found


@pytest.mark.usefixtures("refunds")
def test_baseline_forgets_what_was_expected(conn: Connection) -> None:
    assert almanac(conn).baselines["refund"].level > 3
    act(conn, acts.feedback, "expected", "ada", NOON)
    assert learn(conn, LIVE, NOON, PLAN)
    assert almanac(conn).baselines["refund"].level == pytest.approx(2.0, rel=0.1)
    act(conn, acts.feedback, "confirmed", "ada", NOON)
    assert learn(conn, LIVE, NOON, PLAN)
    assert almanac(conn).baselines["refund"].level > 3


@pytest.mark.usefixtures("refunds")
def test_baseline_begins_anew_where_the_new_normal_began(conn: Connection) -> None:
    act(conn, acts.feedback, "new_normal", "ada", NOON)
    assert only(conn).state == "resolved"
    assert learn(conn, LIVE, NOON, PLAN)
    assert almanac(conn).since == int((NOON - 120 * HOUR).timestamp()) // 3600
    assert almanac(conn).baselines["refund"].level == pytest.approx(10.0, rel=0.1)
