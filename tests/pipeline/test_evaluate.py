"""From rollups to incidents and staged alerts: opened once, told once, resolved once, and never about the past."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import pytest
from psycopg import Connection
from redis import Redis

from billingwatch import queues
from billingwatch.model import Incident, Tenant
from billingwatch.queues import EVENTS, Job, Queue, enqueue_events
from billingwatch.simulator.incidents import parse
from billingwatch.simulator.objects import Account, Json
from billingwatch.simulator.stream import Scenario, simulate
from billingwatch.store import accounts, incidents, outbox
from billingwatch.store.connection import connect
from detectors.registry import configure
from notify.policy import Policy
from notify.route import Route
from tests.factories import LIVE, NOON, OWN, TEST, arrived, paid, received, refunded
from tests.factories import failed as failing
from tests.waiting import together
from worker import jobs
from worker.evaluate import evaluate
from worker.learn import learn
from worker.process import Process, start
from worker.record import record

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
CHANNELS = ("ops", "pager")
PLANS, _ = configure({})


@pytest.fixture(scope="module")
def week() -> list[Json]:
    """Eight quiet days until noon."""
    return list(simulate(Scenario(seed=3, start=epoch(NOON - 8 * DAY), days=8, volume=40)))


def epoch(moment: datetime) -> int:
    return int(moment.timestamp())


def happened(conn: Connection, told: Sequence[Json], now: datetime = NOON, **options: float) -> None:
    """The events arrive, each when it was created unless `at` says otherwise."""
    for start_ in range(0, len(told), 1000):
        record(conn, arrived(told[start_ : start_ + 1000], **options), now)


def burst(at: datetime, count: int = 40, account: Account = OWN) -> list[Json]:
    """So many refunds in the half hour before."""
    return [refunded(epoch(at) - n * 1800 // count, account=account) for n in range(count)]


def judge(conn: Connection, at: datetime, tenant: Tenant = LIVE, channels: Iterable[str] = CHANNELS) -> int:
    """How many alerts it staged."""
    policy = Policy(routes=(Route(channels=tuple(channels)),))
    return evaluate(conn, tenant, at, PLANS.of(tenant.account, tenant.livemode), policy)


def studied(conn: Connection, told: Sequence[Json], now: datetime = NOON, tenant: Tenant = LIVE) -> None:
    """They arrived over the days, and each night they were learnt."""
    happened(conn, told, now)
    assert learn(conn, tenant, now, PLANS.of(tenant.account, tenant.livemode))


def messages(conn: Connection) -> list[tuple[str, str]]:
    return list(conn.execute("SELECT channel, reason FROM alerts ORDER BY id"))


def only(conn: Connection) -> Incident:
    (found,) = incidents.read_all(conn)
    return found


def test_burst_after_a_quiet_week_is_told_once_and_its_end_once(conn: Connection, week: list[Json]) -> None:
    studied(conn, week)
    assert judge(conn, NOON) == 0
    assert incidents.read_all(conn) == []

    happened(conn, burst(NOON))
    assert judge(conn, NOON) == 2
    opened = only(conn)
    assert (opened.detector, opened.state, opened.observed >= 20) == ("refund_spike", "open", True)
    assert (opened.tenant, opened.opened_at) == (LIVE, NOON)
    assert opened.customers <= 3  # a refund names its charge: its customer is known where the charge's events are
    assert sum(money.amount for money in opened.at_risk) >= 20 * 2900
    assert messages(conn) == [("ops", "first"), ("pager", "first")]
    assert outbox.due_channels(conn, NOON) == []  # what opens meanwhile is told in the same message
    assert outbox.due_channels(conn, NOON + Route().group_wait) == ["ops", "pager"]
    assert [row["reason"] for row in incidents.read_log(conn, opened.id)] == ["first"]

    for minutes in (0, 1, 5, 20):
        assert judge(conn, NOON + minutes * MINUTE) == 0
    kept = only(conn)
    assert (kept.id, kept.last_breach_at) == (opened.id, NOON + 20 * MINUTE)

    calm = NOON + 95 * MINUTE
    assert judge(conn, calm) == 0
    assert only(conn).clear_since == calm
    assert judge(conn, calm + 29 * MINUTE) == 0
    assert judge(conn, calm + 30 * MINUTE) == 2
    assert judge(conn, calm + 31 * MINUTE) == 0
    over = only(conn)
    assert (over.state, over.resolved_at) == ("resolved", calm + 30 * MINUTE)
    assert messages(conn)[2:] == [("ops", "resolved"), ("pager", "resolved")]
    log = [(row["from_state"], row["to_state"], row["who"]) for row in incidents.read_log(conn, over.id)]
    assert log == [("", "open", "billingwatch"), ("open", "resolved", "billingwatch")]


def test_failures_that_grow_are_told_as_worse_once(conn: Connection, week: list[Json]) -> None:
    studied(conn, week)
    happened(
        conn, [paid(epoch(NOON) - n * 16) for n in range(200)] + [failing(epoch(NOON) - n * 100) for n in range(32)]
    )
    judge(conn, NOON, channels=["ops"])
    assert only(conn).severity in ("medium", "high")
    happened(conn, [failing(epoch(NOON) - n * 30) for n in range(100)])
    judge(conn, NOON + MINUTE, channels=["ops"])
    judge(conn, NOON + 2 * MINUTE, channels=["ops"])
    assert only(conn).severity == "critical"
    assert messages(conn) == [("ops", "first"), ("ops", "worse")]


def test_two_workers_at_the_same_moment_open_one_incident_and_stage_one_alert(
    conn: Connection, database_url: str, week: list[Json]
) -> None:
    studied(conn, week)
    happened(conn, burst(NOON))

    def work() -> int:
        with connect(database_url, "tests") as own:
            return judge(own, NOON, channels=["ops"])

    staged = together(*[work] * 4)
    assert sorted(staged) == [0, 0, 0, 1]
    assert only(conn).state == "open"
    assert messages(conn) == [("ops", "first")]


def test_two_workers_at_the_same_moment_resolve_once(conn: Connection, database_url: str, week: list[Json]) -> None:
    studied(conn, week)
    happened(conn, burst(NOON))
    judge(conn, NOON, channels=["ops"])
    judge(conn, NOON + 2 * HOUR, channels=["ops"])

    def work() -> int:
        with connect(database_url, "tests") as own:
            return judge(own, NOON + 3 * HOUR, channels=["ops"])

    together(*[work] * 4)
    assert messages(conn) == [("ops", "first"), ("ops", "resolved")]


def test_incident_resolved_by_hand_comes_again_only_with_new_evidence(conn: Connection, week: list[Json]) -> None:
    studied(conn, week)
    happened(conn, burst(NOON))
    judge(conn, NOON, channels=["ops"])
    incidents.set_state(conn, only(conn).id, ["open"], "resolved", NOON)
    judge(conn, NOON + MINUTE, channels=["ops"])
    assert only(conn).state == "resolved"
    happened(conn, burst(NOON + 2 * HOUR))
    judge(conn, NOON + 2 * HOUR, channels=["ops"])
    assert [each.state for each in incidents.read_all(conn)] == ["open", "resolved"]
    assert messages(conn) == [("ops", "first"), ("ops", "first")]


def test_acknowledged_incident_stays_so_and_is_told_when_it_is_over(conn: Connection, week: list[Json]) -> None:
    studied(conn, week)
    happened(conn, burst(NOON))
    judge(conn, NOON, channels=["ops"])
    incidents.set_state(conn, only(conn).id, ["open"], "acked", NOON)
    judge(conn, NOON + MINUTE, channels=["ops"])
    assert only(conn).state == "acked"
    for minutes in (95, 125):
        judge(conn, NOON + minutes * MINUTE, channels=["ops"])
    assert messages(conn) == [("ops", "first"), ("ops", "resolved")]


def test_events_of_last_week_that_arrive_now_open_nothing(conn: Connection, week: list[Json]) -> None:
    studied(conn, week)
    happened(conn, burst(NOON - 7 * DAY, 60), at=NOON.timestamp())
    assert judge(conn, NOON) == 0
    assert incidents.read_all(conn) == []


def test_replayed_month_with_an_incident_in_it_opens_nothing_and_replayed_again_changes_nothing(
    conn: Connection,
) -> None:
    planted = (parse("refund_spike@+20d,size=40,for=2h"), parse("failed_payments@+22d,size=0.9,for=3h"))
    month = list(simulate(Scenario(seed=5, start=epoch(NOON - 28 * DAY), days=28, volume=20, incidents=planted)))
    happened(conn, month, at=NOON.timestamp())
    assert judge(conn, NOON) == 0
    counted = conn.execute("SELECT sum(count), sum(amount) FROM rollups").fetchone()
    happened(conn, month, at=(NOON + HOUR).timestamp())
    assert judge(conn, NOON + MINUTE) == 0
    assert conn.execute("SELECT sum(count), sum(amount) FROM rollups").fetchone() == counted
    assert incidents.read_all(conn) == []


def test_burst_in_test_mode_is_no_news_about_live_money(conn: Connection, week: list[Json]) -> None:
    studied(conn, week)
    studied(conn, [{**told, "livemode": False} for told in week], tenant=TEST)
    happened(conn, burst(NOON, account=Account(livemode=False)))
    assert judge(conn, NOON) == 0
    assert judge(conn, NOON, TEST, ["ops"]) > 0
    assert only(conn).tenant == TEST


def test_one_connected_account_in_trouble_is_not_the_other(conn: Connection, week: list[Json]) -> None:
    shop, other = Account(connected="acct_shop"), Account(connected="acct_other")
    for account in (shop, other):
        studied(conn, [{**told, "account": account.connected} for told in week], tenant=Tenant(account.connected, True))
    happened(conn, burst(NOON, account=shop))
    assert judge(conn, NOON, Tenant("acct_other", True)) == 0
    judge(conn, NOON, Tenant("acct_shop", True))
    assert only(conn).tenant == Tenant("acct_shop", True)


def test_account_nobody_knows_is_not_judged(conn: Connection) -> None:
    assert judge(conn, NOON) == 0


def test_silence_opens_waits_while_a_backfill_arrives_and_ends_with_the_next_event(
    conn: Connection, week: list[Json]
) -> None:
    studied(conn, week)
    quiet = NOON + 26 * HOUR
    old = burst(NOON - 6 * DAY, 1)
    happened(conn, old, now=quiet, at=(quiet - 5 * MINUTE).timestamp())
    assert judge(conn, quiet) == 0  # something arrived five minutes ago, be it old

    assert judge(conn, quiet + 6 * MINUTE, channels=["ops"]) > 0
    assert (only(conn).detector, only(conn).first_breach_at <= NOON) == ("webhook_silence", True)

    back = quiet + HOUR
    happened(conn, [refunded(epoch(back))], now=back)
    for minutes in (0, 10):
        judge(conn, back + minutes * MINUTE, channels=["ops"])
    assert only(conn).state == "resolved"
    assert messages(conn) == [("ops", "first"), ("ops", "resolved")]


def test_without_a_channel_the_console_is_told(conn: Connection, week: list[Json]) -> None:
    studied(conn, week)
    happened(conn, burst(NOON))
    judge(conn, NOON, channels=[])
    assert messages(conn) == [("console", "first")]
    (row,) = outbox.read_for(conn, only(conn).id)
    assert row["route"] == "no channel configured"


def test_evaluation_that_fails_half_way_leaves_no_incident_and_no_alert(conn: Connection, week: list[Json]) -> None:
    studied(conn, week)
    happened(conn, burst(NOON))
    with conn.transaction(force_rollback=True):
        assert judge(conn, NOON) == 2
    assert (incidents.read_all(conn), messages(conn)) == ([], [])
    assert accounts.dirty(conn, NOON + 3650 * DAY) == [LIVE]
    assert judge(conn, NOON) == 2


def waiting_since(redis: Redis, since: datetime) -> str:
    """A queued job of one event that was made then; its id."""
    queue = Queue(EVENTS, redis)
    enqueue_events(queue, [received(refunded(epoch(since)))])
    job_id: str = queue.get_job_ids()[-1]
    redis.hset(Job.key_for(job_id), "created_at", since.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    return job_id


def test_backlog_holds_judgement_back_to_its_oldest_event(
    process: Process, conn: Connection, redis: Redis, now: datetime, week: list[Json]
) -> None:
    """Nothing came in for hours because the events stand in the queue: that is no silence."""
    shift = epoch(now) - epoch(NOON)
    happened(
        conn, [{**told, "created": told["created"] + shift} for told in week], now=now, at=(now - 30 * HOUR).timestamp()
    )
    conn.execute("UPDATE accounts SET newest_event = %s", (now - 30 * HOUR,))
    assert learn(conn, LIVE, now - 29 * HOUR, PLANS.of("default"))
    start(process)
    job_id = waiting_since(redis, now - 30 * HOUR)
    jobs.evaluate("default", True)
    assert conn.execute("SELECT evaluated_at FROM accounts").fetchone() == (now - 30 * HOUR,)
    assert incidents.read_all(conn) == []

    Queue(EVENTS, redis).remove(job_id)
    jobs.evaluate("default", True)
    assert [each.detector for each in incidents.read_all(conn)] == ["webhook_silence"]


def test_oldest_waiting_looks_at_what_is_queued_taken_and_being_worked_on(redis: Redis) -> None:
    queue = Queue(EVENTS, redis)
    assert queues.oldest_waiting(queue) is None
    waiting_since(redis, NOON)
    assert queues.oldest_waiting(queue) == NOON
    taken = waiting_since(redis, NOON - HOUR)
    redis.lrem(queue.key, 1, taken)
    redis.rpush(queue.intermediate_queue_key, taken)
    assert queues.oldest_waiting(queue) == NOON - HOUR
    working = waiting_since(redis, NOON - 2 * HOUR)
    redis.lrem(queue.key, 1, working)
    redis.zadd(queue.started_job_registry.key, {f"{working}:execution": epoch(NOON) + 10**9})
    assert queues.oldest_waiting(queue) == NOON - 2 * HOUR
    redis.delete(queue.key, queue.intermediate_queue_key, queue.started_job_registry.key)
    assert queues.oldest_waiting(queue) is None
