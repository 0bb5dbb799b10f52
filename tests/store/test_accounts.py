"""What is known of a tenant widens with each batch; of two evaluations of one tenant the second waits."""

from datetime import datetime, timedelta
from threading import Thread

import msgspec
from psycopg import Connection

from billingwatch.model import Tenant
from billingwatch.store import accounts, baselines, incidents
from billingwatch.store.accounts import Account, Lesson
from billingwatch.store.connection import connect
from tests.factories import LIVE, NOON, TEST, incident
from tests.waiting import until

HOUR = timedelta(hours=1)


def touch(conn: Connection, first: datetime, newest: datetime, received: datetime, tenant: Tenant = LIVE) -> None:
    accounts.touch(conn, Account(tenant, first, newest, received))


def test_span_widens_both_ways_and_never_shrinks(conn: Connection) -> None:
    touch(conn, NOON, NOON + HOUR, NOON + HOUR)
    touch(conn, NOON - HOUR, NOON, NOON + 2 * HOUR)
    touch(conn, NOON, NOON, NOON)
    known = accounts.begin_evaluation(conn, LIVE, NOON)
    assert known == Account(LIVE, NOON - HOUR, NOON + HOUR, NOON + 2 * HOUR)


def test_unknown_tenant_has_nothing_to_evaluate(conn: Connection) -> None:
    touch(conn, NOON, NOON, NOON)
    assert accounts.begin_evaluation(conn, TEST, NOON) is None


def test_news_wait_from_the_first_of_them_until_an_evaluation_begins(conn: Connection) -> None:
    def later() -> datetime:
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        moment: datetime = row[0]
        return moment

    before = later()
    touch(conn, NOON, NOON, NOON)
    between = later()
    touch(conn, NOON, NOON, NOON)
    assert accounts.dirty(conn, before) == []
    assert accounts.dirty(conn, between) == [LIVE]
    accounts.begin_evaluation(conn, LIVE, NOON)
    assert accounts.dirty(conn, later()) == []
    touch(conn, NOON, NOON, NOON)
    assert accounts.dirty(conn, later()) == [LIVE]


def test_life_of_a_tenant_comes_back_with_its_next_evaluation(conn: Connection) -> None:
    for tenant in (LIVE, TEST):
        touch(conn, NOON, NOON, NOON, tenant)
    accounts.write_life(conn, LIVE, b"life \x00\xff")
    lives = [accounts.begin_evaluation(conn, tenant, NOON) for tenant in (LIVE, TEST)]
    assert lives == [Account(LIVE, NOON, NOON, NOON, b"life \x00\xff"), Account(TEST, NOON, NOON, NOON)]
    touch(conn, NOON, NOON + HOUR, NOON)
    assert accounts.begin_evaluation(conn, LIVE, NOON) == Account(LIVE, NOON, NOON + HOUR, NOON, b"life \x00\xff")


def test_lessons_are_told_of_tenants_with_fresh_events_and_how_far_each_was_learnt(conn: Connection) -> None:
    learnt, new, quiet = (Tenant(name, True) for name in ("acct_learnt", "acct_new", "acct_quiet"))
    for tenant in (learnt, new):
        touch(conn, NOON - HOUR, NOON, NOON, tenant)
    touch(conn, NOON - HOUR, NOON, NOON - HOUR, quiet)
    baselines.write(conn, learnt, NOON, b"forecast", b"archive")
    account = Account(learnt, NOON - HOUR, NOON, NOON)
    assert accounts.lessons(conn, NOON) == [
        Lesson(account, NOON, rewritten=False),
        Lesson(msgspec.structs.replace(account, tenant=new), None, rewritten=False),
    ]
    assert accounts.begin_lesson(conn, learnt) == Lesson(account, NOON, rewritten=False)
    assert accounts.begin_lesson(conn, TEST) is None


def test_past_that_is_being_told_anew_is_learnt_when_the_telling_has_paused(conn: Connection) -> None:
    def rewritten() -> bool:
        (lesson,) = accounts.lessons(conn, NOON)
        return lesson.rewritten

    accounts.touch(conn, Account(LIVE, NOON, NOON, NOON, rewritten=True))
    touch(conn, NOON, NOON, NOON)
    assert not rewritten()
    conn.execute("UPDATE accounts SET rewritten_at = rewritten_at - interval '11 seconds'")
    assert rewritten()
    accounts.learnt(conn, LIVE)
    assert not rewritten()


def test_evaluation_that_rolls_back_leaves_its_news_waiting(conn: Connection) -> None:
    touch(conn, NOON, NOON, NOON)
    with conn.transaction(force_rollback=True):
        accounts.begin_evaluation(conn, LIVE, NOON)
    assert accounts.dirty(conn, datetime.max.replace(tzinfo=NOON.tzinfo)) == [LIVE]


def test_active_are_those_with_fresh_events_or_with_an_incident_that_is_not_over(conn: Connection) -> None:
    fresh, quiet, troubled = (Tenant(name, True) for name in ("acct_fresh", "acct_quiet", "acct_troubled"))
    touch(conn, NOON, NOON, NOON, fresh)
    touch(conn, NOON, NOON, NOON - HOUR, quiet)
    touch(conn, NOON, NOON, NOON - HOUR, troubled)
    id_ = incidents.open_incident(conn, incident(tenant=troubled))
    assert accounts.active(conn, NOON) == [fresh, troubled]
    assert id_ is not None
    incidents.set_state(conn, id_, ["open"], "resolved", NOON)
    assert accounts.active(conn, NOON) == [fresh]


def test_second_evaluation_of_a_tenant_waits_for_the_first_and_another_tenants_does_not(
    conn: Connection, database_url: str
) -> None:
    touch(conn, NOON, NOON, NOON)
    touch(conn, NOON, NOON, NOON, TEST)
    done: list[str] = []

    def second() -> None:
        with connect(database_url, "tests") as own, own.transaction():
            accounts.begin_evaluation(own, LIVE, NOON)
            done.append("second")

    with conn.transaction():
        accounts.begin_evaluation(conn, LIVE, NOON)
        waiting = Thread(target=second)
        waiting.start()
        until(lambda: conn.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone())
        with connect(database_url, "tests") as other, other.transaction():
            other.execute("SET LOCAL lock_timeout = '5s'")
            assert accounts.begin_evaluation(other, TEST, NOON) is not None
        done.append("first")
    waiting.join(20)
    assert done == ["first", "second"]
