"""Drills: each is found by its detector, whenever it is played and however little sensitive; what is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from psycopg import Connection
from redis import Redis

from billingwatch.cli.exercise import Heard, Result, Stage, clean
from billingwatch.drill import DRILLS, Drill
from billingwatch.model import Incident
from billingwatch.queues import EVENTS, Queue, Received, enqueue_events
from billingwatch.settings import DEFAULT_SOURCE
from billingwatch.store import baselines, drill, incidents
from detectors.event import read_event
from detectors.registry import SHIPPED, Plans, configure
from detectors.vitals import THRESHOLDS
from notify.policy import Policy
from tests.pipeline.command import isolate, run
from worker.evaluate import evaluate
from worker.learn import learn
from worker.record import record

# The least sensitive there is; and it may not matter which day it is, or where.
STRICT: dict[str, object] = {"sensitivity": "strict", "holidays": "DE", "time_zone": "Europe/Berlin"}
MOMENTS = {
    "afternoon": datetime(2026, 10, 14, 13, 7, tzinfo=UTC),
    "after midnight on the 1st, a week after the clocks changed": datetime(2026, 10, 31, 23, 1, tzinfo=UTC),
    "on a holiday": datetime(2026, 10, 3, 19, 59, 50, tzinfo=UTC),
}


def test_every_built_in_detector_has_a_drill() -> None:
    assert DRILLS.keys() == SHIPPED.keys()


class Life:
    """An account's life by the clock of its events, without queues."""

    def __init__(self, conn: Connection, of: Drill, plans: Plans) -> None:
        self.conn = conn
        self.tenant = of.tenant
        self.plan = plans.of(self.tenant.account, self.tenant.livemode)

    def arrive(self, bodies: Iterator[bytes], at: datetime) -> int:
        batch = [Received(DEFAULT_SOURCE, at.timestamp(), body) for body in bodies]
        for start in range(0, len(batch), 1000):
            record(self.conn, batch[start : start + 1000], at)
        return len(batch)

    def judge(self, at: datetime) -> list[Incident]:
        """What is open then."""
        evaluate(self.conn, self.tenant, at, self.plan, Policy())
        return incidents.read_open(self.conn, self.tenant)

    def learn(self, at: datetime) -> bool:
        return learn(self.conn, self.tenant, at, self.plan)


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("detector", DRILLS)
def test_a_drill_is_found_and_nothing_before_it(conn: Connection, detector: str, moment: datetime) -> None:
    plans, wrong = configure(STRICT)
    assert not wrong
    played = DRILLS[detector]
    life = Life(conn, played, plans)
    if life.arrive(played.past(int(moment.timestamp())), moment):
        assert life.judge(moment) == []
        assert life.learn(moment + timedelta(seconds=1)) == played.learnt
        assert life.judge(moment + timedelta(seconds=2)) == []
    later = moment + timedelta(seconds=30)
    assert life.arrive(played.plant(int(later.timestamp())), later)
    found = life.judge(later + timedelta(seconds=1))
    if not (played.quick or played.learnt):
        assert found == []
        assert life.learn(later + timedelta(seconds=1))
        found = life.judge(later + timedelta(seconds=2))
    (one,) = found
    assert detector in {each["detector"] for each in one.evidence["signals"]}
    assert drill.clean(conn, [played.tenant.account])
    assert baselines.read_forecast(conn, played.tenant) is None


@pytest.mark.parametrize("detector", DRILLS)
def test_events_of_a_drill_are_its_accounts_and_lie_in_the_past(detector: str) -> None:
    at, played = 1_800_000_000, DRILLS[detector]
    events = [read_event(body) for body in (*played.past(at), *played.plant(at))]
    assert {each.account for each in events} == {played.tenant.account}
    assert all(each.livemode for each in events)
    assert max(each.created for each in events) <= at
    assert len({each.id for each in events}) == len(events)
    past = [read_event(body).created for body in played.past(at)]
    assert past == sorted(past)


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"fault": "no incident"}, False),
        ({"heard": ()}, False),
        ({"heard": (Heard("ops", 31.0, 30.0, "sent"), Heard("pager", None, 30.0, "given_up", "HTTP 404"))}, False),
    ],
)
def test_a_drill_is_good_when_all_heard_of_it(changes: dict[str, object], good: bool) -> None:
    told = Result("refund_spike", "drill_refund_spike", "60 refunds", heard=(Heard("ops", 31.0, 30.0, "sent"),))
    assert msgspec.structs.replace(told, **changes).good == good


def test_events_that_wait_are_waited_for_before_cleaning(
    conn: Connection, redis: Redis, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded after the cleaning, they would stay."""
    monkeypatch.setattr("billingwatch.cli.exercise.DRAINED", 0.2)
    stage = Stage(conn, redis, "", "", configure({})[0], Policy())
    name = DRILLS["webhook_lag"].tenant.account
    assert clean(stage, [name])
    enqueue_events(Queue(EVENTS, redis), [Received(DEFAULT_SOURCE, now.timestamp(), b"{}")])
    assert not clean(stage, [name])
    assert clean(stage, [name], sent=False)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No server is named, and none runs beside."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_drill")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name detectors, or --all"),
        (("refund_spike", "--all"), "name detectors, or --all"),
        (("refund_spikes",), "no drill for 'refund_spikes'"),
        *(((name,), "is about BillingWatch itself") for name in (*THRESHOLDS, "channel_broken")),
        (("--clean", "refund_spike"), "--clean goes with no detector"),
        (("refund_spike",), "no `billingwatch up` runs"),
        (("--clean",), "no `billingwatch up` runs"),
    ],
)
def test_what_cannot_be_drilled_is_said(away: None, arguments: tuple[str, ...], said: str) -> None:
    result = run("drill", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_without_workers_and_clock_nothing_is_planted(
    away: None, conn: Connection, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    result = run("drill", "refund_spike")
    assert result.exit_code == 1
    assert "no worker on the queue events" in result.stderr
    assert "no clock" in result.stderr
    assert drill.leftovers(conn) == []
    monkeypatch.delenv("STRIPE_WEBHOOK_SECRET")
    result = run("drill", "refund_spike")
    assert result.exit_code == 2
    assert "STRIPE_WEBHOOK_SECRET" in result.stderr


def test_of_two_drills_the_second_ends(
    away: None, conn: Connection, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    assert drill.begin(conn)
    result = run("drill", "--clean")
    assert (result.exit_code, result.stderr) == (1, "Another drill is under way.\n")
