"""From a staged alert to a message that arrived: sent once, tried again when that can help, given up when it cannot."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from psycopg import Connection
from redis import Redis

from billingwatch.queues import ALERTS, Queue
from billingwatch.rules import Rules
from billingwatch.store import outbox
from billingwatch.store.connection import connect
from notify.retry import LIMIT
from tests.pipeline.sink import Sink, listening
from tests.waiting import together
from worker import jobs
from worker.clock import run_due
from worker.deliver import deliver
from worker.process import Process, start


@pytest.fixture
def sink() -> Iterator[Sink]:
    with listening() as sink:
        yield sink


def stage(conn: Connection, at: datetime, channel: str = "ops") -> int:
    return outbox.stage(conn, None, channel, "test", "default route", "Refund spike", "12 refunds", at)


def state(conn: Connection, alert: int) -> tuple[str, int, datetime, str | None]:
    row = conn.execute("SELECT state, attempts, next_try, error FROM alerts WHERE id = %s", (alert,)).fetchone()
    assert row is not None
    return row[0], row[1], row[2], row[3]


def test_alert_is_sent_once_though_its_job_runs_five_times(conn: Connection, sink: Sink, now: datetime) -> None:
    alert = stage(conn, now)
    assert [deliver(conn, alert, {"ops": sink.url}, now) for _ in range(5)] == [True, None, None, None, None]
    assert sink.titles() == ["Refund spike"]
    assert sink.posted[0]["message"].strip() == "12 refunds"
    assert state(conn, alert)[:2] == ("sent", 1)


def test_alert_is_sent_once_though_four_workers_have_it_at_the_same_moment(
    conn: Connection, database_url: str, sink: Sink, now: datetime
) -> None:
    alerts = [stage(conn, now) for _ in range(3)]

    def work() -> list[bool | None]:
        with connect(database_url, "tests") as own:
            return [deliver(own, alert, {"ops": sink.url}, now) for alert in alerts]

    delivered = together(*[work] * 4)
    assert [sum(each is True for each in column) for column in zip(*delivered, strict=True)] == [1, 1, 1]
    assert len(sink.posted) == 3


def test_refused_delivery_is_tried_again_when_its_time_has_come(
    conn: Connection, redis: Redis, sink: Sink, now: datetime
) -> None:
    sink.status = 503
    alert = stage(conn, now)
    assert deliver(conn, alert, {"ops": sink.url}, now) is False
    status, attempts, next_try, error = state(conn, alert)
    assert (status, attempts) == ("staged", 1)
    assert error is not None
    assert "503" in error

    before, queue = next_try - timedelta(milliseconds=1), Queue(ALERTS, redis)
    run_due(conn, redis, before)
    assert queue.count == 0
    assert deliver(conn, alert, {"ops": sink.url}, before) is None
    run_due(conn, redis, next_try)
    assert [job.args for job in queue.get_jobs()] == [(alert,)] or [list(job.args) for job in queue.get_jobs()] == [
        [alert]
    ]

    sink.status = 200
    assert deliver(conn, alert, {"ops": sink.url}, next_try) is True
    assert state(conn, alert)[::3] == ("sent", None)
    assert len(sink.posted) == 2


def test_clock_enqueues_nothing_while_alerts_are_still_being_worked_on(
    conn: Connection, redis: Redis, now: datetime
) -> None:
    stage(conn, now)
    run_due(conn, redis, now)
    run_due(conn, redis, now)
    assert Queue(ALERTS, redis).count == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_can_never_arrive_is_given_up_at_once(
    conn: Connection, redis: Redis, sink: Sink, now: datetime, status: int
) -> None:
    sink.status = status
    alert = stage(conn, now)
    assert deliver(conn, alert, {"ops": sink.url}, now) is False
    assert state(conn, alert)[:2] == ("given_up", 1)
    run_due(conn, redis, now + timedelta(days=1))
    assert Queue(ALERTS, redis).count == 0
    assert len(sink.posted) == 1


def test_alert_that_nobody_could_send_for_a_day_is_given_up(conn: Connection, sink: Sink, now: datetime) -> None:
    sink.status = 500
    alert = stage(conn, now - LIMIT - timedelta(seconds=1))
    assert deliver(conn, alert, {"ops": sink.url}, now) is False
    assert state(conn, alert)[0] == "given_up"


def test_channel_that_was_taken_out_of_the_rules_is_given_up(conn: Connection, now: datetime) -> None:
    alert = stage(conn, now)
    assert deliver(conn, alert, {}, now) is False
    assert state(conn, alert)[::3] == ("given_up", "the channel is not configured any more")


def test_dead_channel_keeps_its_address_and_secret_to_itself(conn: Connection, now: datetime) -> None:
    alert = stage(conn, now)
    assert deliver(conn, alert, {"ops": "json://ada:hunter2secret@127.0.0.1:1/token12345"}, now) is False
    status, _, _, error = state(conn, alert)
    assert status == "staged"
    assert error
    assert "hunter2secret" not in error
    assert "token12345" not in error


def test_without_any_channel_the_alert_is_printed(
    conn: Connection, now: datetime, capsys: pytest.CaptureFixture[str]
) -> None:
    alert = stage(conn, now, channel="console")
    assert deliver(conn, alert, {}, now) is True
    printed = capsys.readouterr().out
    assert "Refund spike" in printed
    assert "12 refunds" in printed
    assert state(conn, alert)[0] == "sent"


def test_one_broken_channel_repeats_nothing_on_the_other(conn: Connection, sink: Sink, now: datetime) -> None:
    channels = {"ops": sink.url, "pager": "json://127.0.0.1:1/"}
    alerts = [stage(conn, now, channel) for channel in channels]
    assert [deliver(conn, alert, channels, now) for alert in alerts] == [True, False]
    later = now + LIMIT / 2
    assert [deliver(conn, alert, channels, later) for alert in alerts] == [None, False]
    assert len(sink.posted) == 1


def test_alert_of_a_sender_that_was_killed_is_sent_by_another(
    conn: Connection, redis: Redis, sink: Sink, now: datetime
) -> None:
    alert = stage(conn, now)
    assert outbox.claim(conn, alert, now) is not None  # and then it was killed
    assert deliver(conn, alert, {"ops": sink.url}, now) is None
    later = now + outbox.CLAIM
    run_due(conn, redis, later)
    assert Queue(ALERTS, redis).count == 1
    assert deliver(conn, alert, {"ops": sink.url}, later) is True
    assert len(sink.posted) == 1


def test_job_takes_its_channels_from_the_rules(process: Process, conn: Connection, sink: Sink, now: datetime) -> None:
    process.rules = Rules(channels={"ops": sink.url})
    start(process)
    alert = stage(conn, now)
    jobs.deliver(alert)
    jobs.deliver(alert)
    assert sink.titles() == ["Refund spike"]
