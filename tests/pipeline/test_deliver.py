"""From what is staged to a message that arrived: decided, sent once, tried again when that can help, and told elsewhere
when it cannot. Each story on a real database, with a real server at the other end.
"""

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from psycopg import Connection
from redis import Redis

from billingwatch import queues
from billingwatch.model import Channel, Reason, Silence, Tenant
from billingwatch.queues import ALERTS, Queue
from billingwatch.store import incidents, outbox, silences
from notify import interval
from notify.message import again, sample
from notify.policy import Policy
from notify.retry import LIMIT
from notify.route import Route, Span
from notify.telling import Message
from tests.factories import LIVE, incident
from tests.pipeline.senders import Moody
from tests.pipeline.sink import Sink, listening
from tests.waiting import together, until
from worker import jobs, remind
from worker.claim import take
from worker.clock import run_channels
from worker.deliver import drain, retire
from worker.desk import Desk
from worker.lanes import Lanes
from worker.process import Process, start
from worker.stage import stage

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
ROUTE = Route(channels=("ops",))


@pytest.fixture
def sink() -> Iterator[Sink]:
    with listening() as sink:
        yield sink


@pytest.fixture
def desk(process: Process, sink: Sink) -> Process:
    """A process whose one channel, `ops`, is the sink."""
    configured(process, Policy(routes=(ROUTE,)), ops=sink.url)
    return process


def configured(process: Process, policy: Policy, **urls: str) -> None:
    channels = {name: Channel(url) for name, url in urls.items()}
    process.rules = replace(process.rules, channels=channels, members={name: (name,) for name in urls})
    process.policy = policy


def opened(conn: Connection, at: datetime, policy: Policy, account: str = LIVE.account, **changes: Any) -> int:
    """An incident that is opened and staged as an evaluation does it; its id."""
    fields: dict[str, Any] = {"tenant": Tenant(account, True), "opened_at": at, "first_breach_at": at}
    found = incident(**(fields | {"last_breach_at": at} | changes))
    id_ = incidents.open_incident(conn, found)
    assert id_ is not None
    stage(conn, replace(found, id=id_), "first", at, policy)
    return id_


def changed(conn: Connection, id_: int, reason: Reason, at: datetime, policy: Policy, **changes: Any) -> None:
    """The incident goes on as these changes say, and that is staged."""
    before = incidents.read_one(conn, id_)
    assert before is not None
    after = replace(before, **changes)
    assert incidents.update(conn, after, before.state)
    stage(conn, after, reason, at, policy, told=before.told)


def send(process: Process, at: datetime, channel: str = "ops") -> int:
    return drain(process, channel, lambda: at)


def rows(conn: Connection, id_: int) -> list[tuple[str, str, str]]:
    return [(row["reason"], row["state"], row["verdict"]) for row in outbox.read_for(conn, id_)]


def state(conn: Connection, id_: int) -> tuple[str, int, datetime, str | None]:
    """Of the incident's only alert: state, attempts, next try, error."""
    (row,) = outbox.read_for(conn, id_)
    return row["state"], row["attempts"], row["next_try"], row["error"]


# --- once, and again ------------------------------------------------------------------------------------------------


def test_alert_is_sent_once_though_its_job_runs_five_times(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    id_ = opened(conn, now, desk.policy)
    assert [send(desk, now + 30 * SECOND) for _ in range(5)] == [1, 0, 0, 0, 0]
    (title,) = sink.titles()
    assert title == "HIGH: refund spike on default: 12, usually 0.5"
    assert "12 refunds in the last hour; usually 0.5 an hour" in sink.posted[0]["message"]
    assert state(conn, id_)[:2] == ("sent", 1)
    assert rows(conn, id_) == [("first", "sent", "sent: first")]


def test_alert_is_sent_once_though_four_workers_have_it_at_the_same_moment(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    for number in range(3):
        opened(conn, now, desk.policy, f"acct_{number}")

    def work() -> int:
        own = desk.twin("another")
        try:
            return send(own, now + 30 * SECOND)
        finally:
            own.drop()

    assert sum(together(*[work] * 4)) == 3
    assert len(sink.posted) == 3


def test_refused_delivery_is_tried_again_when_its_time_has_come(
    desk: Process, conn: Connection, redis: Redis, sink: Sink, now: datetime
) -> None:
    sink.status = 503
    id_, due = opened(conn, now, desk.policy), now + 30 * SECOND
    assert send(desk, due) == 1
    status, attempts, next_try, error = state(conn, id_)
    assert (status, attempts) == ("staged", 1)
    assert error is not None
    assert "503" in error

    before, queue = next_try - timedelta(milliseconds=1), Queue(ALERTS, redis)
    run_channels(conn, redis, before)
    assert queue.count == 0
    assert send(desk, before) == 0
    run_channels(conn, redis, next_try)
    assert [list(job.args) for job in queue.get_jobs()] == [["ops"]]

    sink.status = 200
    assert send(desk, next_try) == 1
    assert state(conn, id_)[::3] == ("sent", None)
    assert len(sink.posted) == 2
    outcomes = conn.execute("SELECT outcome, repeats FROM deliveries ORDER BY id").fetchall()
    assert outcomes == [("failed", None), ("sent", None)]


def test_the_clock_wakes_a_channel_once_until_its_job_begins(
    desk: Process, conn: Connection, redis: Redis, now: datetime
) -> None:
    opened(conn, now - HOUR, desk.policy)
    run_channels(conn, redis, now)
    run_channels(conn, redis, now)
    assert Queue(ALERTS, redis).count == 1
    queues.begin_sending(redis, "ops")
    run_channels(conn, redis, now)
    assert Queue(ALERTS, redis).count == 2


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 410])
def test_what_can_never_arrive_is_given_up_at_once(
    desk: Process, conn: Connection, sink: Sink, now: datetime, status: int
) -> None:
    sink.status = status
    id_ = opened(conn, now, desk.policy)
    assert send(desk, now + MINUTE) == 1
    assert state(conn, id_)[:2] == ("given_up", 1)
    assert outbox.due_channels(conn, now + timedelta(days=1)) == []
    assert len(sink.posted) == 1


def test_alert_that_nobody_could_send_for_a_day_is_given_up(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    sink.status = 500
    id_ = opened(conn, now, desk.policy)
    send(desk, now + MINUTE)
    assert state(conn, id_)[0] == "staged"
    send(desk, now + MINUTE + LIMIT)
    assert state(conn, id_)[0] == "given_up"


def test_what_is_for_a_channel_that_is_not_configured_waits_for_a_day_in_case_it_comes_back(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    """A worker with an older file may be the one that asks."""
    id_, known = opened(conn, now, desk.policy), desk.rules
    desk.rules = replace(desk.rules, channels={"other": Channel("json://127.0.0.1:1/")})
    assert send(desk, now + MINUTE) == 0
    assert rows(conn, id_) == [("first", "staged", "held: the channel is not configured any more")]
    later = opened(conn, now + 23 * HOUR, desk.policy, "acct_2")
    assert send(desk, now + 24 * HOUR) == 0
    assert rows(conn, id_) == [("first", "dropped", "dropped: the channel is not configured any more")]
    desk.rules = known
    assert send(desk, now + 25 * HOUR) == 1
    assert state(conn, later)[0] == "sent"


def test_a_failed_message_is_the_same_message_at_its_next_try_and_says_when_it_may_have_arrived(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    opened(conn, now, desk.policy)
    due, ends = now + MINUTE, iter(["failed", "unknown", "failed"])
    sink.status = 503
    for hours, outcome in enumerate(ends):
        send(desk, due + hours * HOUR)
        conn.execute("UPDATE deliveries SET outcome = %s WHERE id = (SELECT max(id) FROM deliveries)", (outcome,))
    sink.status = 200
    send(desk, due + 3 * HOUR)
    assert conn.execute("SELECT id, message, repeats FROM deliveries ORDER BY id").fetchall() == [
        (1, None, None),
        (2, 1, None),
        (3, 1, 2),
        (4, 1, 2),
    ]
    assert ["may have reached you already" in each["message"] for each in sink.posted] == [False, False, True, True]


def test_giving_up_takes_nothing_fresh_along(desk: Process, conn: Connection, sink: Sink, now: datetime) -> None:
    sink.status = 500
    id_ = opened(conn, now, desk.policy)
    send(desk, now + MINUTE)
    last = now + MINUTE + LIMIT
    changed(conn, id_, "worse", last - SECOND, desk.policy, severity="critical")
    send(desk, last)
    assert [row[1] for row in rows(conn, id_)] == ["given_up", "staged"]
    (fresh,) = [row for row in outbox.read_for(conn, id_) if row["state"] == "staged"]
    assert fresh["next_try"] - last <= 15 * SECOND  # its first failure


def test_the_end_does_not_overtake_the_beginning(desk: Process, conn: Connection, sink: Sink, now: datetime) -> None:
    id_, due = opened(conn, now, desk.policy), now + MINUTE
    claimed = take(conn, "ops", Desk.of(desk), due)
    assert claimed is not None
    changed(conn, id_, "resolved", due, desk.policy, state="resolved", resolved_at=due)
    assert send(desk, due) == 0  # another worker has the beginning under way
    assert send(desk, due + outbox.CLAIM) == 1  # and died of it
    (message,) = sink.posted
    assert message["title"].startswith("RESOLVED")
    assert [row[1] for row in rows(conn, id_)] == ["sent", "sent"]


def test_a_cause_that_the_channel_does_not_hear_of_explains_nothing_to_it(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    silenced(conn, now, detector="webhook_silence")
    opened(conn, now, desk.policy, detector="webhook_silence", severity="critical")
    drop = opened(conn, now, desk.policy, detector="volume_drop", metric="payment.succeeded")
    send(desk, now + MINUTE)
    assert send(desk, now + 2 * MINUTE) + len(sink.posted) >= 1
    assert state(conn, drop)[0] == "sent"


def test_doubtful_summaries_and_digests_say_so() -> None:
    for message in (again(sample()), again(digest_like())):
        assert "may have reached you already" in message.text
    assert "may have reached you already" in again(digest_like()).markdown
    assert "may have reached you already" in again(digest_like()).html


def digest_like() -> Message:
    return Message("Digest", "text", "**md**", "<p>html</p>")


def test_dead_channel_keeps_its_address_and_secret_to_itself(process: Process, conn: Connection, now: datetime) -> None:
    configured(process, Policy(routes=(ROUTE,)), ops="json://ada:hunter2secret@127.0.0.1:1/token12345")
    opened(conn, now, process.policy)
    assert send(process, now + MINUTE) == 1
    everything = str(conn.execute("SELECT to_jsonb(a), to_jsonb(d) FROM alerts a, deliveries d").fetchall())
    assert "connection refused" in everything
    assert "hunter2secret" not in everything
    assert "token12345" not in everything


def test_without_any_channel_the_alert_is_printed(
    process: Process, conn: Connection, now: datetime, capsys: pytest.CaptureFixture[str]
) -> None:
    id_ = opened(conn, now, process.policy)
    assert send(process, now + MINUTE, "console") == 1
    printed = capsys.readouterr().out
    assert "refund spike" in printed
    assert state(conn, id_)[0] == "sent"


def test_one_broken_channel_repeats_nothing_on_the_other(
    process: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    configured(process, Policy(routes=(Route(channels=("ops", "pager")),)), ops=sink.url, pager="json://127.0.0.1:1/")
    opened(conn, now, process.policy)
    assert [send(process, now + MINUTE, name) for name in ("ops", "pager")] == [1, 1]
    assert [send(process, now + HOUR, name) for name in ("ops", "pager")] == [0, 1]
    assert len(sink.posted) == 1


def test_message_of_a_sender_that_was_killed_is_sent_once_more_and_says_so(
    desk: Process, conn: Connection, redis: Redis, sink: Sink, now: datetime
) -> None:
    id_, due = opened(conn, now, desk.policy), now + MINUTE
    assert take(conn, "ops", Desk.of(desk), due) is not None  # and then it was killed
    assert send(desk, due) == 0
    later = due + outbox.CLAIM
    run_channels(conn, redis, later)
    assert Queue(ALERTS, redis).count == 1
    assert send(desk, later) == 1
    assert "This may have reached you already" in sink.posted[0]["message"]
    assert state(conn, id_)[:2] == ("sent", 2)
    outcomes = conn.execute("SELECT outcome, repeats FROM deliveries ORDER BY id").fetchall()
    assert outcomes == [("unknown", None), ("sent", 1)]


def test_job_takes_its_channels_from_the_rules(desk: Process, conn: Connection, sink: Sink, now: datetime) -> None:
    start(desk)
    opened(conn, now - HOUR, desk.policy)
    jobs.send("ops")
    jobs.send("ops")
    assert len(sink.posted) == 1


def test_job_of_the_release_before_sends_what_its_channel_waits_for(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    start(desk)
    opened(conn, now - HOUR, desk.policy)
    (alert,) = outbox.waiting(conn, "ops", now)
    jobs.deliver(alert.id)
    jobs.deliver(alert.id + 99)
    assert len(sink.posted) == 1


# --- group ----------------------------------------------------------------------------------------------------------


def test_an_accounts_incidents_within_the_wait_are_one_message(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    first = opened(conn, now, desk.policy)
    second = opened(conn, now + 20 * SECOND, desk.policy, detector="churn_spike", metric="subscription.canceled")
    other = opened(conn, now + 20 * SECOND, desk.policy, "acct_2")
    assert send(desk, now + 29 * SECOND) == 0
    assert send(desk, now + 30 * SECOND) == 1
    assert state(conn, first)[0] == state(conn, second)[0] == "sent"
    assert state(conn, other)[0] == "staged"
    (message,) = sink.posted
    assert "refund spike" in message["title"]
    assert "cancellation spike" in message["title"] + message["message"]
    assert rows(conn, first)[0][2] == "sent: grouped: 2 incidents"


def test_updates_come_at_most_every_interval_and_as_the_incident_is_then(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    id_, due = opened(conn, now, desk.policy), now + 30 * SECOND
    send(desk, due)
    changed(conn, id_, "worse", due + SECOND, desk.policy, severity="critical", observed=40.0)
    assert send(desk, due + 2 * SECOND) == 0
    assert rows(conn, id_)[1] == ("worse", "staged", "held: grouped: updates every 5 min")
    changed(conn, id_, "resolved", due + MINUTE, desk.policy, state="resolved", resolved_at=due + MINUTE)
    assert send(desk, due + 5 * MINUTE) == 1
    assert [row[1] for row in rows(conn, id_)] == ["sent", "sent", "sent"]
    assert sink.titles()[1].startswith("RESOLVED: refund spike")
    assert len(sink.posted) == 2


def test_what_gets_worse_in_the_first_seconds_is_told_with_the_first_message(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    id_ = opened(conn, now, desk.policy)
    changed(conn, id_, "worse", now + 5 * SECOND, desk.policy, severity="critical", observed=40.0)
    assert send(desk, now + 29 * SECOND) == 0
    assert send(desk, now + 30 * SECOND) == 1
    assert [row[:2] for row in rows(conn, id_)] == [("first", "sent"), ("worse", "sent")]
    (title,) = sink.titles()
    assert title == "CRITICAL: refund spike on default: 40, usually 0.5"


def test_what_gets_critical_waits_for_no_quiet_hours_with_the_first_message(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    desk.policy = Policy(routes=(Route(channels=("ops",), quiet=Span(interval.read("mon-sun"))),))
    id_, due = opened(conn, now, desk.policy), now + 30 * SECOND
    assert send(desk, due) == 0
    assert rows(conn, id_)[0][2].startswith("held: quiet")
    changed(conn, id_, "worse", due + SECOND, desk.policy, severity="critical")
    assert send(desk, due + 2 * SECOND) == 1
    assert sink.titles()[0].startswith("CRITICAL")


# --- silence, inhibit, quiet hours ----------------------------------------------------------------------------------


def silenced(conn: Connection, now: datetime, span: timedelta = HOUR, **matchers: str) -> int:
    until_ = now + span
    return silences.add(
        conn, Silence(matchers=matchers, starts_at=now - MINUTE, ends_at=until_, why="load test", who="ada")
    )


def test_what_was_silenced_is_told_when_the_silence_ends_if_it_is_still_open(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    number = silenced(conn, now, detector="refund_spike")
    id_ = opened(conn, now, desk.policy)
    for seconds in range(30, 3600, 30):
        assert send(desk, now + seconds * SECOND) == 0
    assert rows(conn, id_) == [("first", "staged", f"held: silenced by {number} (load test)")]
    assert send(desk, now + HOUR) == 1
    assert len(sink.posted) == 1


def test_what_was_silenced_and_ended_meanwhile_is_not_told(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    silenced(conn, now, account="default")
    id_ = opened(conn, now, desk.policy)
    send(desk, now + MINUTE)
    changed(conn, id_, "resolved", now + 2 * MINUTE, desk.policy, state="resolved", resolved_at=now + 2 * MINUTE)
    for hours in (0.1, 0.5, 1, 2, 30):
        assert send(desk, now + hours * HOUR) == 0
    assert {row[1] for row in rows(conn, id_)} == {"dropped"}
    assert sink.posted == []


def test_a_silence_that_is_ended_early_holds_nothing_for_longer_than_half_a_minute(
    desk: Process, conn: Connection, now: datetime
) -> None:
    number = silenced(conn, now)
    opened(conn, now, desk.policy)
    send(desk, now + MINUTE)
    assert silences.end(conn, number, now + MINUTE) is not None
    assert outbox.due_channels(conn, now + 90 * SECOND) == ["ops"]
    assert send(desk, now + 90 * SECOND) == 1


def test_what_a_cause_explains_is_attached_to_its_message(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    drop = opened(conn, now, desk.policy, detector="volume_drop", metric="payment.succeeded")
    silence = opened(conn, now + SECOND, desk.policy, detector="webhook_silence", severity="critical")
    assert send(desk, now + 30 * SECOND) == 1
    assert rows(conn, drop) == [("first", "staged", f"held: inhibited by incident {silence} (webhook_silence)")]
    changed(conn, silence, "worse", now + MINUTE, desk.policy, observed=3.0)
    assert send(desk, now + 6 * MINUTE) == 1
    assert "fewer payments than usual" in sink.posted[1]["message"]
    changed(conn, silence, "resolved", now + HOUR, desk.policy, state="resolved", resolved_at=now + HOUR)
    assert send(desk, now + HOUR) == 1  # that the cause is over, and what it explained is open all the same
    assert [row[1] for row in rows(conn, drop)] == ["sent"]


def test_quiet_hours_hold_what_is_not_critical_and_tell_it_in_the_morning(
    process: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    quiet = Route(channels=("ops",), quiet=Span(interval.read("00:00-07:00")))
    configured(process, Policy(routes=(quiet,)), ops=sink.url)
    calm = opened(conn, midnight + HOUR, process.policy)
    grave = opened(conn, midnight + HOUR, process.policy, "acct_2", severity="critical")
    assert send(process, midnight + 2 * HOUR) == 1
    assert state(conn, grave)[0] == "sent"
    assert rows(conn, calm) == [("first", "staged", "held: quiet hours (00:00-07:00)")]
    assert outbox.due_channels(conn, midnight + 7 * HOUR - SECOND) == []
    assert send(process, midnight + 7 * HOUR) == 1
    assert state(conn, calm)[0] == "sent"


# --- repeat and escalate --------------------------------------------------------------------------------------------


def test_what_nobody_acknowledges_is_repeated_and_escalated_until_somebody_does(
    process: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    route = Route(channels=("ops",), escalate=("cto",), escalate_after=15 * MINUTE)
    configured(process, Policy(routes=(route,)), ops=sink.url, cto=sink.url)
    id_, due = opened(conn, now, process.policy, severity="critical"), now + 30 * SECOND
    send(process, due)
    desk = Desk.of(process)
    assert remind.run_once(conn, desk, due + 14 * MINUTE) == 0
    assert [remind.run_once(conn, desk, due + 15 * MINUTE) for _ in range(2)] == [1, 0]
    assert send(process, due + 15 * MINUTE, "cto") == 1
    assert sink.titles()[1].startswith("ESCALATED, CRITICAL: refund spike")
    assert "Nobody has acknowledged it for 15 min" in sink.posted[1]["message"]
    assert remind.run_once(conn, desk, due + 4 * HOUR) == 1
    assert send(process, due + 4 * HOUR) == 1
    told = [(row["channel"], row["reason"], row["route"]) for row in outbox.read_for(conn, id_)]
    assert told == [
        ("ops", "first", "default route"),
        ("cto", "escalate", "escalation 1 of default route: not acknowledged"),
        ("ops", "repeat", "default route"),
    ]
    assert "Nobody has acknowledged it" in sink.posted[2]["message"]
    assert incidents.set_state(conn, id_, ["open"], "acked", due + 5 * HOUR) == "open"
    assert remind.run_once(conn, desk, due + 48 * HOUR) == 0


def test_a_reminder_of_what_was_acknowledged_on_its_way_is_not_sent(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    id_, due = opened(conn, now, desk.policy), now + 30 * SECOND
    send(desk, due)
    assert remind.run_once(conn, Desk.of(desk), due + 4 * HOUR) == 1
    incidents.set_state(conn, id_, ["open"], "acked", due + 4 * HOUR)
    assert send(desk, due + 4 * HOUR) == 0
    assert rows(conn, id_)[1] == ("repeat", "dropped", "dropped: acked meanwhile")


# --- budget ---------------------------------------------------------------------------------------------------------


def test_of_a_hundred_incidents_a_channel_gets_its_budget_and_one_summary_that_tells_all_the_rest(
    process: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    configured(process, Policy(routes=(ROUTE,), budget=5), ops=sink.url)
    for number in range(100):
        opened(conn, now + number * SECOND / 2, process.policy, f"acct_{number:03}", customers=number)
    due = now + 30 * SECOND
    for seconds in range(0, 120, 5):
        send(process, due + seconds * SECOND)
    assert len(sink.posted) == 6
    states = conn.execute("SELECT state, count(*) FROM alerts GROUP BY state").fetchall()
    assert states == [("sent", 100)]
    kinds = conn.execute("SELECT kind, sum(cardinality(alerts)) FROM deliveries GROUP BY kind ORDER BY kind").fetchall()
    assert kinds == [("alert", 5), ("summary", 95)]
    told = "".join(message["title"] + message["message"] for message in sink.posted)
    assert [number for number in range(100) if f"acct_{number:03}" not in told] == []


# --- channels that do not work --------------------------------------------------------------------------------------


def test_a_channel_that_refuses_is_told_on_the_others_at_once_and_not_on_itself(
    process: Process, conn: Connection, answering: tuple[Moody, int], sink: Sink, now: datetime
) -> None:
    moody, _ = answering
    both = Policy(routes=(Route(channels=("ops", "bad")),))
    configured(process, both, ops=sink.url, bad=moody.url("401"))
    opened(conn, now, process.policy)
    for name in ("ops", "bad"):
        send(process, now + 30 * SECOND, name)
    (broken,) = [each for each in incidents.read_all(conn) if each.detector == "channel_broken"]
    assert (broken.scope, broken.state) == ("bad", "open")
    assert "HTTP 401" in broken.why
    assert [row["channel"] for row in outbox.read_for(conn, broken.id)] == ["ops"]
    send(process, now + 60 * SECOND)
    assert "channel bad is broken" in sink.titles()[1]
    assert "refund spike on default" in sink.posted[1]["message"]  # what did not arrive there

    configured(process, both, ops=sink.url, bad=moody.url("200"))
    opened(conn, now + HOUR, process.policy, "acct_2")
    send(process, now + 2 * HOUR, "bad")
    assert incidents.read_one(conn, broken.id).state == "resolved"  # type: ignore[union-attr]


def test_a_broken_channel_that_alone_is_routed_is_told_on_every_other(
    process: Process, conn: Connection, answering: tuple[Moody, int], sink: Sink, now: datetime
) -> None:
    moody, _ = answering
    critical = Route(name="routes.1", channels=("phone",), matchers={"severity": ("critical",)})
    configured(process, Policy(routes=(critical, Route(channels=("bad",)))), phone=sink.url, bad=moody.url("401"))
    opened(conn, now, process.policy)
    send(process, now + MINUTE, "bad")
    (broken,) = [each for each in incidents.read_all(conn) if each.detector == "channel_broken"]
    assert [row["channel"] for row in outbox.read_for(conn, broken.id)] == ["phone"]


def test_the_incident_of_a_channel_that_was_taken_out_of_the_rules_ends(
    process: Process, conn: Connection, answering: tuple[Moody, int], sink: Sink, now: datetime
) -> None:
    moody, _ = answering
    configured(process, Policy(routes=(Route(channels=("ops", "bad")),)), ops=sink.url, bad=moody.url("401"))
    opened(conn, now, process.policy)
    send(process, now + MINUTE, "bad")
    assert retire(conn, Desk.of(process), now + MINUTE) == 0
    configured(process, Policy(routes=(ROUTE,)), ops=sink.url)
    assert [retire(conn, Desk.of(process), now + HOUR) for _ in range(2)] == [1, 0]
    (broken,) = [each for each in incidents.read_all(conn) if each.detector == "channel_broken"]
    assert broken.state == "resolved"


def test_an_incident_that_nobody_has_words_for_is_told_all_the_same(
    desk: Process, conn: Connection, sink: Sink, now: datetime
) -> None:
    """As the evidence of another release may be."""
    id_ = opened(conn, now, desk.policy, evidence={"contributors": [{"odd": 1}], "changes": 7})
    assert send(desk, now + MINUTE) == 1
    assert sink.titles() == [f"HIGH: refund_spike, incident {id_}"]


def test_a_channel_that_fails_and_fails_is_told_and_left_alone_for_a_minute(
    process: Process, conn: Connection, answering: tuple[Moody, int], sink: Sink, now: datetime
) -> None:
    moody, _ = answering
    configured(process, Policy(routes=(Route(channels=("bad",)),)), ops=sink.url, bad=moody.url("500"))
    for number in range(12):
        opened(conn, now, process.policy, f"acct_{number}")
    at = now + 30 * SECOND
    assert send(process, at, "bad") == 10  # the breaker opens
    assert len(moody.seen) == 10
    assert [each.scope for each in incidents.read_all(conn) if each.detector == "channel_broken"] == ["bad"]
    verdicts = {verdict for (verdict,) in conn.execute("SELECT verdict FROM alerts WHERE state = 'staged'")}
    assert "held: the channel failed too often; it is tried again in a minute" in verdicts
    assert send(process, at + 59 * SECOND, "bad") == 0
    assert send(process, at + 61 * SECOND, "bad") == 1


def test_a_channel_that_hangs_holds_up_nobody(
    process: Process, conn: Connection, answering: tuple[Moody, int], sink: Sink, now: datetime
) -> None:
    moody, _ = answering
    both = Policy(routes=(Route(channels=("slow", "ops")),))
    configured(process, both, ops=sink.url, slow=moody.url("hang"))
    opened(conn, now - HOUR, process.policy)
    arrived = threading.Event()

    def work(channel: str) -> None:
        own = process.twin(channel)
        try:
            drain(own, channel)
        finally:
            own.drop()
        if channel == "ops":
            arrived.set()

    lanes = Lanes(work)
    lanes.start("slow")
    until(lambda: len(moody.seen) == 1)
    lanes.start("ops")
    assert arrived.wait(10)
    assert len(sink.posted) == 1
    assert conn.execute("SELECT outcome FROM deliveries WHERE channel = 'slow'").fetchall() == [(None,)]
    moody.closing.set()
    lanes.close()


def test_a_lane_that_fails_is_a_lane_that_works_again() -> None:
    worked: list[str] = []

    def work(channel: str) -> None:
        worked.append(channel)
        if len(worked) == 1:
            raise RuntimeError("once")

    lanes = Lanes(work)
    lanes.start("ops")
    until(lambda: worked == ["ops"])
    lanes.start("ops")
    until(lambda: worked == ["ops", "ops"])
    lanes.close()
