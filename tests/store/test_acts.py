"""What each act of a person changes: the incident, its log, the audit, markers and silences; once, and in its order."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

import pytest
from psycopg import Connection

from billingwatch.model import OWN, Feedback, Incident, Silence, State
from billingwatch.store import accounts, acts, audit, feedback, incidents, markers, silences
from billingwatch.store.accounts import Account
from billingwatch.store.acts import Outcome
from billingwatch.store.connection import connect
from billingwatch.store.feedback import Precision, Said
from tests.factories import LIVE, NOON, TEST, incident
from tests.waiting import together

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LATER = NOON + 40 * MINUTE


def opened(conn: Connection, **changes: Any) -> int:
    """The id of a stored incident that began ten minutes before it opened."""
    id_ = incidents.open_incident(conn, incident(**{"first_breach_at": NOON - 10 * MINUTE} | changes))
    assert id_ is not None
    return id_


def act(conn: Connection, do: Callable[..., Outcome], *arguments: Any, **options: Any) -> Outcome:
    with conn.transaction():
        return do(conn, *arguments, **options)


def found(conn: Connection, id_: int) -> Incident:
    stored = incidents.read_one(conn, id_)
    assert stored is not None
    return stored


def log(conn: Connection, id_: int) -> list[tuple[str, str, str, str]]:
    return [(row["from_state"], row["to_state"], row["reason"], row["who"]) for row in incidents.read_log(conn, id_)]


def audited(conn: Connection) -> list[tuple[str, str, str, str]]:
    """Oldest first."""
    return [(row["who"], row["act"], row["subject"], row["detail"]) for row in reversed(audit.read(conn))]


# --- acknowledge, resolve ---------------------------------------------------------------------------------------------


def test_acknowledged_is_acked_logged_and_audited_and_nothing_else(conn: Connection) -> None:
    id_ = opened(conn)
    done = act(conn, acts.ack, id_, "ada", LATER, "on it")
    assert (done.done, done.said, done.incident) == (True, "is acked", found(conn, id_))
    assert found(conn, id_) == incident(id=id_, first_breach_at=NOON - 10 * MINUTE, state="acked")
    assert log(conn, id_) == [("open", "acked", "by hand", "ada")]
    assert audited(conn) == [("ada", "ack", f"incident {id_}", "on it")]
    assert audit.read_for(conn, f"incident {id_}")[0]["at"] == LATER
    assert (markers.read_all(conn), silences.read_all(conn)) == ([], [])


def test_resolved_ends_now_and_is_logged_and_audited(conn: Connection) -> None:
    id_ = opened(conn, state="acked")
    done = act(conn, acts.resolve, id_, "ada", LATER)
    assert (done.done, done.said) == (True, "is resolved")
    assert (found(conn, id_).state, found(conn, id_).resolved_at) == ("resolved", LATER)
    assert log(conn, id_) == [("acked", "resolved", "by hand", "ada")]
    assert audited(conn) == [("ada", "resolve", f"incident {id_}", "")]


# (the state before, the act, why nothing is done)
REFUSED: list[tuple[State, Callable[..., Outcome], str]] = [
    ("acked", acts.ack, "is acked already"),
    ("resolved", acts.ack, "is resolved already"),
    ("resolved", acts.resolve, "is resolved already"),
]


@pytest.mark.parametrize(("state", "do", "why"), REFUSED)
def test_what_is_done_already_is_told_and_leaves_no_trace(
    conn: Connection, state: State, do: Callable[..., Outcome], why: str
) -> None:
    id_ = opened(conn, state=state, resolved_at=NOON if state == "resolved" else None)
    before = found(conn, id_)
    assert act(conn, do, id_, "ada", LATER) == Outcome(done=False, said=why, incident=before)
    assert (found(conn, id_), log(conn, id_), audited(conn)) == (before, [], [])


@pytest.mark.parametrize(
    ("do", "arguments"),
    [
        (acts.ack, ("ada", NOON)),
        (acts.resolve, ("ada", NOON)),
        (acts.snooze, (HOUR, "ada", NOON)),
        (acts.feedback, ("expected", "ada", NOON)),
    ],
)
def test_nothing_is_done_to_an_incident_that_is_not_there(
    conn: Connection, do: Callable[..., Outcome], arguments: tuple[Any, ...]
) -> None:
    assert act(conn, do, 404, *arguments) == acts.NOBODY
    assert (audited(conn), silences.read_all(conn), markers.read_all(conn)) == ([], [], [])


def test_act_of_a_transaction_that_fails_leaves_nothing(conn: Connection) -> None:
    id_ = opened(conn)
    with conn.transaction(force_rollback=True):
        assert acts.feedback(conn, id_, "new_normal", "ada", LATER).done
    assert found(conn, id_).state == "open"
    assert (log(conn, id_), audited(conn), markers.read_all(conn)) == ([], [], [])
    assert feedback.latest(conn, id_) is None


def test_of_eight_who_acknowledge_at_once_one_has_done_it(conn: Connection, database_url: str) -> None:
    id_ = opened(conn)

    def acknowledge() -> bool:
        with connect(database_url, "tests") as own, own.transaction():
            return acts.ack(own, id_, "ada", LATER).done

    assert sorted(together(*[acknowledge] * 8)) == [False] * 7 + [True]
    assert (len(log(conn, id_)), len(audited(conn))) == (1, 1)


def test_act_waits_until_the_account_is_judged_and_is_then_done(conn: Connection, database_url: str) -> None:
    """Done in between, an evaluation that ends the incident would find it changed, and forget it unresolved."""
    accounts.touch(conn, Account(LIVE, NOON, NOON, NOON))
    id_ = opened(conn)
    with connect(database_url, "tests") as judge, conn.transaction():
        with judge.transaction():
            assert accounts.begin_evaluation(judge, LIVE, NOON)
            conn.execute("SET LOCAL lock_timeout = '200 ms'")
            with pytest.raises(Exception, match="lock timeout"), conn.transaction():
                acts.ack(conn, id_, "ada", LATER)
            assert incidents.update(judge, incident(id=id_, severity="critical"), "open")
        done = acts.ack(conn, id_, "ada", LATER)
    assert done.incident is not None
    assert (done.done, done.incident.state, done.incident.severity) == (True, "acked", "critical")


# --- snooze -----------------------------------------------------------------------------------------------------------


def test_snoozed_is_silenced_for_so_long_and_goes_on_as_it_was(conn: Connection) -> None:
    id_ = opened(conn)
    done = act(conn, acts.snooze, id_, HOUR, "ada", LATER, "deploying")
    assert (done.done, done.said) == (True, "is snoozed until 2026-03-10 13:40 UTC")
    (made,) = silences.read_all(conn)
    expected = Silence(
        id=made.id,
        matchers={"incident": str(id_)},
        starts_at=LATER,
        ends_at=LATER + HOUR,
        why="deploying",
        who="ada",
    )
    assert made == done.silence == expected
    assert (found(conn, id_).state, log(conn, id_)) == ("open", [])
    detail = f"until 2026-03-10 13:40 UTC; silence {made.id}; deploying"
    assert audited(conn) == [("ada", "snooze", f"incident {id_}", detail)]
    assert silences.read_current(conn, LATER + HOUR) == []


def test_newest_snooze_of_an_incident_is_the_one_that_holds(conn: Connection) -> None:
    id_, other = opened(conn), opened(conn, scope="price_1")
    act(conn, acts.snooze, other, HOUR, "ada", LATER)
    act(conn, acts.snooze, id_, 24 * HOUR, "ada", LATER)
    act(conn, acts.snooze, id_, HOUR, "bob", LATER + MINUTE)
    holding = [(each.matchers["incident"], each.who) for each in silences.read_current(conn, LATER + 2 * MINUTE)]
    assert holding == [(str(other), "ada"), (str(id_), "bob")]


def test_what_is_over_is_not_snoozed(conn: Connection) -> None:
    id_ = opened(conn, state="resolved", resolved_at=NOON)
    done = act(conn, acts.snooze, id_, HOUR, "ada", LATER)
    assert (done.done, done.said) == (False, "is resolved already")
    assert (silences.read_all(conn), audited(conn)) == ([], [])


# --- feedback ---------------------------------------------------------------------------------------------------------

# (verdict, the state afterwards, what stands in the log)
SAID: list[tuple[Feedback, State, str]] = [
    ("confirmed", "acked", "by hand: a real incident"),
    ("expected", "acked", "by hand: expected"),
    ("false_alarm", "acked", "by hand: a false alarm"),
    ("new_normal", "resolved", "by hand: the new normal"),
]


@pytest.mark.parametrize(("verdict", "state", "reason"), SAID)
def test_feedback_is_kept_and_acknowledges_or_resolves(
    conn: Connection, verdict: Feedback, state: State, reason: str
) -> None:
    id_ = opened(conn)
    done = act(conn, acts.feedback, id_, verdict, "ada", LATER, "see chat")
    assert done.done
    assert found(conn, id_).state == state
    assert log(conn, id_) == [("open", state, reason, "ada")]
    assert feedback.read_for(conn, id_) == [Said(verdict, "see chat", "ada", LATER)]
    ((who, name, subject, detail),) = audited(conn)
    assert (who, name, subject) == ("ada", "feedback", f"incident {id_}")
    assert detail.split("; ")[0] == verdict
    assert detail.split("; ")[-2:] == [state, "see chat"]
    assert silences.read_all(conn) == []


@pytest.mark.parametrize("verdict", ["confirmed", "false_alarm"])
def test_what_was_real_or_nothing_changes_no_baseline(conn: Connection, verdict: Feedback) -> None:
    assert act(conn, acts.feedback, opened(conn), verdict, "ada", LATER).marker is None
    assert markers.read_all(conn) == []


def test_expected_marks_the_span_from_the_first_breach_until_now(conn: Connection) -> None:
    id_ = opened(conn)
    done = act(conn, acts.feedback, id_, "expected", "ada", LATER)
    (marker,) = markers.read_all(conn)
    assert marker == done.marker
    assert (marker.tenant, marker.kind, marker.who) == (LIVE, "expected", "ada")
    assert (marker.starts_at, marker.ends_at) == (NOON - 10 * MINUTE, LATER)
    assert marker.text == f"incident {id_} was expected"
    assert f"marker {marker.id}" in audited(conn)[0][3]


def test_expected_marks_the_span_of_what_is_over_until_its_end(conn: Connection) -> None:
    id_ = opened(conn, state="resolved", resolved_at=NOON + MINUTE)
    done = act(conn, acts.feedback, id_, "expected", "ada", LATER)
    (marker,) = markers.read_all(conn)
    assert (marker.starts_at, marker.ends_at) == (NOON - 10 * MINUTE, NOON + MINUTE)
    assert (done.said, found(conn, id_).state, log(conn, id_)) == ("is called expected", "resolved", [])


def test_new_normal_begins_where_the_incident_began(conn: Connection) -> None:
    id_ = opened(conn, tenant=TEST)
    act(conn, acts.feedback, id_, "new_normal", "ada", LATER)
    (marker,) = markers.read_all(conn)
    assert (marker.tenant, marker.kind) == (TEST, "new_normal")
    assert marker.starts_at == marker.ends_at == NOON - 10 * MINUTE


@pytest.mark.parametrize("verdict", ["expected", "new_normal"])
def test_account_is_learnt_anew_after_its_normal_was_changed(conn: Connection, verdict: Feedback) -> None:
    accounts.touch(conn, Account(LIVE, NOON, NOON, NOON))
    act(conn, acts.feedback, opened(conn), verdict, "ada", LATER)
    assert [each.rewritten for each in accounts.lessons(conn, NOON - HOUR)] == [True]


@pytest.mark.parametrize(("verdict", "state"), [("expected", "acked"), ("new_normal", "resolved")])
def test_of_our_own_health_nothing_is_learnt_and_so_nothing_marked(
    conn: Connection, verdict: Feedback, state: State
) -> None:
    id_ = opened(conn, tenant=OWN, detector="channel_broken", scope="ops")
    assert act(conn, acts.feedback, id_, verdict, "ada", LATER).done
    assert (found(conn, id_).state, markers.read_all(conn)) == (state, [])


def test_same_word_twice_is_one_and_another_takes_its_marker_back(conn: Connection) -> None:
    id_ = opened(conn)
    mine = markers.add(
        conn, markers.Marker(tenant=LIVE, kind="expected", starts_at=NOON, ends_at=LATER, text="a sale", who="ada")
    )
    first = act(conn, acts.feedback, id_, "expected", "ada", LATER)
    again = act(conn, acts.feedback, id_, "expected", "bob", LATER + MINUTE)
    assert (again.done, again.said, again.marker) == (False, "was called expected already", None)
    assert first.marker is not None
    assert {each.id for each in markers.read_all(conn)} == {mine, first.marker.id}
    act(conn, acts.feedback, id_, "confirmed", "bob", LATER + MINUTE)
    assert [each.id for each in markers.read_all(conn)] == [mine]
    assert audited(conn)[-1][3] == f"confirmed; marker {first.marker.id} taken back"
    assert [each.verdict for each in feedback.read_for(conn, id_)] == ["expected", "confirmed"]
    latest = feedback.latest(conn, id_)
    assert latest is not None
    assert latest.who == "bob"


def test_precision_counts_the_newest_word_about_each_incident_by_detector(conn: Connection) -> None:
    words: list[tuple[str, list[Feedback]]] = [
        ("refund_spike", ["false_alarm", "confirmed"]),
        ("refund_spike", ["confirmed", "false_alarm"]),
        ("refund_spike", ["expected"]),
        ("churn_spike", []),
    ]
    for n, (detector, verdicts) in enumerate(words):
        id_ = opened(conn, detector=detector, scope=f"price_{n}")
        for verdict in verdicts:
            act(conn, acts.feedback, id_, verdict, "ada", LATER)
    opened(conn, detector="volume_drop", opened_at=NOON - HOUR)
    assert feedback.precision(conn, NOON - MINUTE) == [
        Precision("churn_spike", 1, 0, 0),
        Precision("refund_spike", 3, 1, 1),
    ]


def test_audit_is_read_newest_first_and_no_more_than_asked_for(conn: Connection) -> None:
    for n in range(3):
        audit.note(conn, NOON + n * MINUTE, "ada", "mark.add", f"marker {n}", "é")
    assert [(row["at"], row["subject"]) for row in audit.read(conn, 2)] == [
        (NOON + 2 * MINUTE, "marker 2"),
        (NOON + MINUTE, "marker 1"),
    ]
    assert audit.read_for(conn, "marker 2")[0]["detail"] == "é"


def test_every_verdict_has_words() -> None:
    assert set(acts.VERDICTS) == set(get_args(Feedback))
