"""One forecast and one archive a tenant, replaced by the next night's."""

from datetime import timedelta

from psycopg import Connection

from billingwatch.store import accounts, baselines
from billingwatch.store.accounts import Account
from tests.factories import LIVE, NOON, TEST

DAY = timedelta(days=1)


def test_next_night_replaces_what_was_learnt(conn: Connection) -> None:
    baselines.write(conn, LIVE, NOON, b"forecast \x00\xff", b"archive \x00\xff")
    baselines.write(conn, LIVE, NOON + DAY, b"newer forecast", b"newer archive")
    assert baselines.read_forecast(conn, LIVE) == b"newer forecast"
    assert baselines.read_archive(conn, LIVE) == b"newer archive"


def test_bytes_come_back_as_they_were_written(conn: Connection) -> None:
    every = bytes(range(256))
    baselines.write(conn, LIVE, NOON, every, every[::-1])
    assert (baselines.read_forecast(conn, LIVE), baselines.read_archive(conn, LIVE)) == (every, every[::-1])


def test_of_a_tenant_that_was_never_learnt_there_is_nothing(conn: Connection) -> None:
    baselines.write(conn, LIVE, NOON, b"forecast", b"archive")
    assert baselines.read_forecast(conn, TEST) is None
    assert baselines.read_archive(conn, TEST) is None


def test_forgotten_tenant_is_to_be_learnt_from_its_beginning_and_the_other_is_not(conn: Connection) -> None:
    for tenant in (LIVE, TEST):
        accounts.touch(conn, Account(tenant, NOON, NOON + DAY, NOON + DAY))
        baselines.write(conn, tenant, NOON + DAY, b"forecast", b"archive")
    baselines.forget(conn, LIVE)
    learnt = {lesson.account.tenant: lesson.learned_until for lesson in accounts.lessons(conn, NOON)}
    assert learnt == {LIVE: None, TEST: NOON + DAY}
    assert baselines.read_archive(conn, LIVE) is None
