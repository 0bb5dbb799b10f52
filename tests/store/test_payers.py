"""Who paid how much of late: kept per tenant for two days, read by one at a time."""

from datetime import timedelta
from threading import Event, Thread

from psycopg import Connection

from billingwatch.model import Paid, Tenant
from billingwatch.store import payers
from billingwatch.store.connection import connect
from tests.factories import LIVE, NOON, TEST
from tests.waiting import until

AT = int(NOON.timestamp())
KEY, OTHER = "cus_1|usd|900", "card:x|jpy|500"
FIRST, SECOND = Paid(AT, "pi_1", False), Paid(AT + 60, "pi_2", True)


def read(
    conn: Connection, *keys: str, tenant: Tenant = LIVE, span: tuple[int, int] = (0, 2 * AT)
) -> dict[str, list[Paid]]:
    with conn.transaction():
        return {key: sorted(paid) for key, paid in payers.read(conn, tenant, keys, span).items()}


def test_payments_come_back_as_written_and_only_those_asked_for(conn: Connection) -> None:
    payers.write(conn, LIVE, {KEY: [SECOND, FIRST], OTHER: [FIRST]})
    assert read(conn, KEY, OTHER, "cus_2|usd|900") == {KEY: [FIRST, SECOND], OTHER: [FIRST]}
    assert read(conn, OTHER) == {OTHER: [FIRST]}
    assert read(conn) == {}


def test_tenants_do_not_see_each_others_payments(conn: Connection) -> None:
    payers.write(conn, LIVE, {KEY: [FIRST]})
    payers.write(conn, TEST, {KEY: [SECOND]})
    assert read(conn, KEY) == {KEY: [FIRST]}
    assert read(conn, KEY, tenant=TEST) == {KEY: [SECOND]}


def test_payment_that_is_remembered_stays_as_it_is(conn: Connection) -> None:
    payers.write(conn, LIVE, {KEY: [FIRST]})
    payers.write(conn, LIVE, {KEY: [FIRST._replace(created=AT + 5), SECOND]})
    payers.write(conn, LIVE, {})
    assert read(conn, KEY) == {KEY: [FIRST, SECOND]}


def test_span_holds_both_its_ends(conn: Connection) -> None:
    paid = [Paid(AT + n, f"pi_{n}", False) for n in range(5)]
    payers.write(conn, LIVE, {KEY: paid})
    assert read(conn, KEY, span=(AT + 1, AT + 3)) == {KEY: paid[1:4]}


def test_span_is_the_same_in_any_session_time_zone(conn: Connection) -> None:
    conn.execute("SET timezone = 'Asia/Kathmandu'")
    payers.write(conn, LIVE, {KEY: [FIRST]})
    assert read(conn, KEY, span=(AT, AT)) == {KEY: [FIRST]}


def test_old_payments_are_forgotten_a_portion_at_a_time_and_young_ones_never(conn: Connection) -> None:
    payers.write(conn, LIVE, {KEY: [Paid(AT - n, f"pi_{n}", False) for n in range(6)]})
    assert [payers.forget(conn, NOON, limit=3) for _ in range(3)] == [3, 2, 0]
    assert read(conn, KEY) == {KEY: [Paid(AT, "pi_0", False)]}
    assert payers.forget(conn, NOON + timedelta(seconds=1)) == 1


def test_second_reader_waits_for_the_first_and_sees_what_it_wrote(conn: Connection, database_url: str) -> None:
    """Two payments at once are each the other's twin; neither has a row yet that the other could wait for."""
    seen: list[dict[str, list[Paid]]] = []
    asked = Event()

    def second() -> None:
        with connect(database_url, "tests") as own, own.transaction():
            asked.set()
            seen.append(payers.read(own, LIVE, [KEY], (AT, AT)))

    with conn.transaction():
        assert payers.read(conn, LIVE, [KEY], (AT, AT)) == {}
        waiting = Thread(target=second)
        waiting.start()
        until(asked.is_set)
        until(lambda: lock_waiters(conn))
        payers.write(conn, LIVE, {KEY: [FIRST]})
    waiting.join(20)
    assert seen == [{KEY: [FIRST]}]


def test_two_tenants_do_not_wait_for_each_other(conn: Connection, database_url: str) -> None:
    with conn.transaction(), connect(database_url, "tests") as own, own.transaction():
        payers.read(conn, LIVE, [KEY], (AT, AT))
        own.execute("SET LOCAL lock_timeout = '5s'")
        assert payers.read(own, TEST, [KEY], (AT, AT)) == {}


def lock_waiters(conn: Connection) -> int:
    row = conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone()
    assert row is not None
    return int(row[0])
