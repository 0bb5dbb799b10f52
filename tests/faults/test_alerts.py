"""An alerts worker is killed in each window of a delivery: the alert arrives, twice at most, and then it says so."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import pytest

from billingwatch import queues
from billingwatch.model import Channel, Incident, Tenant
from billingwatch.queues import ALERTS
from billingwatch.rules import Rules
from billingwatch.settings import Stores
from billingwatch.store import incidents, outbox
from notify.policy import Policy
from notify.route import Route
from tests.factories import incident as make
from tests.faults import dying_sender
from tests.faults.rig import PLANS, START, Rig
from tests.pipeline.sink import Sink, listening
from tests.waiting import until
from worker.deliver import drain
from worker.health import live_workers
from worker.process import Process

CONFIG = """
channels.ops = "{url}"
alerts.group_wait = "0s"
"""
TIMES = 5
AGAIN = "This may have reached you already"


Fault = Callable[[Rig], AbstractContextManager[None]]


@pytest.fixture
def sink(rig: Rig) -> Iterator[Sink]:
    with listening() as sink:
        config = rig.folder / "billingwatch.toml"
        config.write_text(CONFIG.format(url=sink.url))
        rig.environment["BILLINGWATCH_CONFIG"] = str(config)
        yield sink


def stage(rig: Rig, number: int = 0) -> int:
    """An incident, and that it is to be told."""
    now = datetime.now(UTC)
    told: Incident = make(tenant=Tenant(f"acct_{number}", True), opened_at=now, first_breach_at=now, last_breach_at=now)
    with rig.connect() as conn:
        id_ = incidents.open_incident(conn, told)
        assert id_ is not None
        outbox.stage(conn, id_, "ops", "first", "default route", now, now)
    return id_


def killed_at(rig: Rig, moment: str) -> None:
    """A worker takes the channel's job, and dies."""
    queues.begin_sending(rig.redis, "ops")
    queues.enqueue_sending(rig.queue(ALERTS), "ops")
    assert rig.start(moment, module="tests.faults.dying_sender").wait() == -signal.SIGKILL


def pass_time(rig: Rig) -> None:
    """Make the claims of the dead as old as they have to be before another may send."""
    with rig.connect() as conn:
        conn.execute("UPDATE alerts SET claimed_at = claimed_at - %s", (outbox.CLAIM,))


def send_all(rig: Rig, sink: Sink) -> None:
    """Another worker's work."""
    rules = Rules(channels={"ops": Channel(sink.url)}, members={"ops": ("ops",)})
    process = Process(
        Stores(rig.database_url, rig.redis_url),
        rig.redis,
        rules,
        PLANS,
        "rig",
        Policy(routes=(Route(channels=("ops",)),)),
    )
    drain(process, "ops")
    process.drop()


@pytest.mark.parametrize(
    ("moment", "before", "after", "marked"),
    [
        (dying_sender.DECIDING, 0, 1, False),  # nothing was committed, so nothing is in doubt
        (dying_sender.CLAIMED, 0, 1, True),  # it did not go out, which nobody can know
        (dying_sender.SENT, 1, 2, True),
        (dying_sender.MARKING, 1, 2, True),
        (dying_sender.MARKED, 1, 1, False),
    ],
)
def test_alert_of_a_killed_worker_arrives_five_times_out_of_five(
    rig: Rig, sink: Sink, moment: str, before: int, after: int, marked: bool
) -> None:
    for turn in range(TIMES):
        known = len(sink.posted)
        stage(rig, turn)
        killed_at(rig, moment)
        assert len(sink.posted) == known + before
        send_all(rig, sink)
        assert len(sink.posted) == known + (before if moment != dying_sender.DECIDING else after)
        pass_time(rig)
        send_all(rig, sink)
        pass_time(rig)
        send_all(rig, sink)
        arrived = sink.posted[known:]
        assert [AGAIN in message["message"] for message in arrived] == [False] * (after - marked) + [True] * marked
        assert all(f"acct_{turn}" in message["title"] for message in arrived)
        with rig.connect() as conn:
            assert conn.execute("SELECT state FROM alerts ORDER BY id DESC LIMIT 1").fetchone() == ("sent",)
            rows = conn.execute("SELECT outcome, repeats IS NOT NULL FROM deliveries ORDER BY id").fetchall()
        told = [("unknown", False), ("sent", True)] if marked else [("sent", False)]
        assert rows == told * (turn + 1)


@pytest.mark.parametrize("fault", [Rig.missing_valkey, Rig.hanging_valkey, Rig.full_valkey])
def test_alert_arrives_once_while_redis_cannot_wake_anybody(rig: Rig, sink: Sink, fault: Fault) -> None:
    rig.start("worker", ALERTS)
    until(lambda: live_workers(rig.redis, ALERTS, datetime.now(UTC)), START)
    with fault(rig):
        stage(rig)
        until(lambda: sink.posted, START)
    until(rig.redis.ping)
    queues.enqueue_sending(rig.queue(ALERTS), "ops")
    until(lambda: not rig.queue(ALERTS).count, START)
    send_all(rig, sink)
    (message,) = sink.posted
    assert AGAIN not in message["message"]


def test_worker_that_starts_without_redis_sends_what_is_due_and_goes_to_work_when_it_is_back(
    rig: Rig, sink: Sink
) -> None:
    log = rig.folder / "programs.log"
    before = log.stat().st_size if log.exists() else 0
    with rig.missing_valkey():
        stage(rig)
        worker = rig.start("worker", ALERTS, "--in-process")
        until(lambda: sink.posted, START)
    until(lambda: live_workers(rig.redis, ALERTS, datetime.now(UTC)), START)
    worker.process.terminate()
    assert worker.wait() == 0
    said = log.read_bytes()[before:].decode()
    assert [said.count(word) for word in ("redis_away", "redis_back", "Traceback")] == [1, 1, 0]


def test_worker_that_is_told_to_stop_while_redis_hangs_begins_nothing_more(rig: Rig, sink: Sink) -> None:
    worker = rig.start("worker", ALERTS, "--in-process")
    until(lambda: live_workers(rig.redis, ALERTS, datetime.now(UTC)), START)
    with rig.hanging_valkey():
        stage(rig)
        with rig.connect() as conn:
            until(lambda: conn.execute("SELECT FROM alerts WHERE state = 'sent'").fetchone() is not None, START)
        worker.process.terminate()
        stage(rig, 1)
        code = worker.wait(90)
    assert (code, len(sink.posted)) == (0, 1)
    send_all(rig, sink)
    assert len(sink.posted) == 2
