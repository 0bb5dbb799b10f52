"""Rollups grow exactly, claims are made once, and the book of a charge's refunds has one writer at a time."""

from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import msgspec
from psycopg import Connection

from billingwatch.model import Bucket, RefundBook, Tenant
from billingwatch.store import rollups
from billingwatch.store.connection import connect
from tests.factories import LIVE, NOON, TEST
from tests.waiting import together, until

START = int(NOON.timestamp())
CONNECTED = Tenant("acct_1", True)


def bucket(count: int = 1, amount: int = 100, *, metric: str = "refund.created", **changes: object) -> Bucket:
    plain = Bucket(metric, "", "usd", 60, START, count, amount)
    return msgspec.structs.replace(plain, **changes)


def read(conn: Connection, tenant: Tenant = LIVE, grain: int = 60) -> list[Bucket]:
    rows = conn.execute(
        """
        SELECT metric, stratum, currency, grain, extract(epoch FROM bucket)::bigint, count, amount FROM rollups
        WHERE account = %s AND livemode = %s AND grain = %s
        """,
        (tenant.account, tenant.livemode, grain),
    )
    return [Bucket(*row) for row in rows]


def test_a_key_is_claimed_by_the_first_who_asks_and_by_each_tenant_for_itself(conn: Connection) -> None:
    assert rollups.claim(conn, LIVE, ["ch_1:payment.failed", "ch_2:payment.failed"]) == {
        "ch_1:payment.failed",
        "ch_2:payment.failed",
    }
    assert rollups.claim(conn, LIVE, ["ch_2:payment.failed", "ch_3:payment.failed"]) == {"ch_3:payment.failed"}
    assert rollups.claim(conn, TEST, ["ch_1:payment.failed"]) == {"ch_1:payment.failed"}
    assert rollups.claim(conn, LIVE, []) == set()


def test_keys_claimed_by_four_at_once_in_any_order_have_one_owner_each(conn: Connection, database_url: str) -> None:
    keys = [f"ch_{n:03d}" for n in range(300)]

    def claim(order: list[str]) -> set[str]:
        with connect(database_url, "tests") as own, own.transaction():
            return rollups.claim(own, LIVE, order)

    claimed = together(*(lambda order=order: claim(order) for order in (keys, keys[::-1], keys[150:], keys[:150])))
    assert sorted(key for each in claimed for key in each) == keys


def test_claim_of_a_rolled_back_batch_is_free_again(conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        assert rollups.claim(conn, LIVE, ["ch_1"]) == {"ch_1"}
    assert rollups.claim(conn, LIVE, ["ch_1"]) == {"ch_1"}


def test_old_claims_are_forgotten_a_portion_at_a_time_and_young_ones_never(conn: Connection) -> None:
    rollups.claim(conn, LIVE, [f"old_{n}" for n in range(5)])
    conn.execute("UPDATE claims SET claimed_at = %s", (NOON - timedelta(days=40),))
    rollups.claim(conn, LIVE, ["young"])
    cutoff = NOON - timedelta(days=35)
    assert [rollups.forget_claims(conn, cutoff, limit=3) for _ in range(3)] == [3, 2, 0]
    assert conn.execute("SELECT key FROM claims").fetchall() == [("young",)]


def test_claims_of_renewals_ahead_are_kept_a_year_longer(conn: Connection) -> None:
    rollups.claim(conn, LIVE, ["due:sub_1:1:900", "due:sub_1:1:900:undone", "ch_1"])
    conn.execute("UPDATE claims SET claimed_at = %s", (NOON,))
    assert rollups.forget_claims(conn, NOON + timedelta(days=1)) == 1
    assert rollups.forget_claims(conn, NOON + timedelta(days=366)) == 0
    assert rollups.forget_claims(conn, NOON + timedelta(days=366, seconds=1)) == 2


def test_buckets_grow_by_what_is_added_and_the_others_stay(conn: Connection) -> None:
    rollups.grow(conn, LIVE, [bucket(2, 300), bucket(1, 50, currency="eur"), bucket(1, 0, stratum="retry")])
    rollups.grow(conn, LIVE, [bucket(3, 700), bucket(1, 10, grain=5)])
    rollups.grow(conn, LIVE, [])
    assert sorted(read(conn), key=lambda row: (row.stratum, row.currency)) == [
        bucket(1, 50, currency="eur"),
        bucket(5, 1000),
        bucket(1, 0, stratum="retry"),
    ]
    assert read(conn, grain=5) == [bucket(1, 10, grain=5)]


def test_tenants_are_never_added_together(conn: Connection) -> None:
    for count, tenant in enumerate((LIVE, TEST, CONNECTED), 1):
        rollups.grow(conn, tenant, [bucket(count)])
    assert [read(conn, tenant) for tenant in (LIVE, TEST, CONNECTED)] == [[bucket(1)], [bucket(2)], [bucket(3)]]


def test_money_that_shrinks_and_sums_beyond_32_bits_are_exact(conn: Connection) -> None:
    rollups.grow(conn, LIVE, [bucket(1, -900)])
    rollups.grow(conn, LIVE, [bucket(1, 10**15)])
    assert read(conn) == [bucket(2, 10**15 - 900)]


def test_bins_come_by_series_from_the_start_of_a_span_up_to_its_end(conn: Connection) -> None:
    bins = [bucket(n + 1, 100 * n, grain=5, start=START + n * 300) for n in range(4)]
    rollups.grow(conn, LIVE, [*bins, bucket(grain=5, currency="jpy"), bucket(grain=60), bucket(grain=5, metric="no")])
    jpy, usd = rollups.read_bins(conn, LIVE, ["refund.created"], START, START + 900)
    assert (jpy.currency, usd.currency) == ("jpy", "usd")
    assert dict(zip(usd.starts.tolist(), usd.counts.tolist(), strict=True)) == {
        START: 1,
        START + 300: 2,
        START + 600: 3,
    }
    assert sorted(usd.amounts.tolist()) == [0, 100, 200]
    assert rollups.read_bins(conn, LIVE, [], START, START + 900) == []
    assert rollups.read_bins(conn, TEST, ["refund.created"], START, START + 900) == []


def test_same_buckets_grown_by_four_at_once_lose_nothing(conn: Connection, database_url: str) -> None:
    rows = [bucket(start=START + n * 3600) for n in range(20)]

    def grow(order: list[Bucket]) -> None:
        with connect(database_url, "tests") as own:
            for _ in range(10):
                with own.transaction():
                    rollups.grow(own, LIVE, order)

    together(*(lambda order=order: grow(order) for order in (rows, rows[::-1], rows[10:] + rows[:10], rows)))
    found = read(conn)
    assert [(row.count, row.amount) for row in found] == [(40, 4000)] * 20


def test_book_of_refunds_comes_back_as_written(conn: Connection) -> None:
    known = RefundBook("usd", 2, 500, 1, 700, 2, 700)
    rollups.write_refunds(conn, LIVE, {"ch_1": known, "ch_2": RefundBook("jpy")})
    rollups.write_refunds(conn, LIVE, {"ch_1": msgspec.structs.replace(known, refunds=3), "ch_3": known})
    rollups.write_refunds(conn, LIVE, {})
    assert rollups.read_refunds(conn, LIVE, ["ch_1", "ch_2", "ch_9"]) == {
        "ch_1": msgspec.structs.replace(known, refunds=3),
        "ch_2": RefundBook("jpy"),
    }
    assert rollups.read_refunds(conn, TEST, ["ch_1"]) == {}
    assert rollups.read_refunds(conn, LIVE, []) == {}


def test_second_reader_of_a_charge_that_nobody_wrote_yet_waits_for_the_first(
    conn: Connection, database_url: str
) -> None:
    """Two first tellings about one charge find no row that could be locked; the second must see the first's."""
    seen: list[dict[str, RefundBook]] = []
    asked = Event()

    def second() -> None:
        with connect(database_url, "tests") as own, own.transaction():
            asked.set()
            seen.append(rollups.read_refunds(own, LIVE, ["ch_1"]))

    with conn.transaction():
        assert rollups.read_refunds(conn, LIVE, ["ch_1"]) == {}
        waiting = Thread(target=second)
        waiting.start()
        until(asked.is_set)
        until(lambda: lock_waiters(conn))
        rollups.write_refunds(conn, LIVE, {"ch_1": RefundBook("usd", refunds=1)})
    waiting.join(20)
    assert seen == [{"ch_1": RefundBook("usd", refunds=1)}]


def test_books_of_two_tenants_do_not_wait_for_each_other(conn: Connection, database_url: str) -> None:
    with conn.transaction(), connect(database_url, "tests") as own, own.transaction():
        rollups.read_refunds(conn, LIVE, ["ch_1"])
        own.execute("SET LOCAL lock_timeout = '5s'")
        assert rollups.read_refunds(own, TEST, ["ch_1"]) == {}
        assert rollups.read_refunds(own, CONNECTED, ["ch_1"]) == {}


def lock_waiters(conn: Connection) -> int:
    row = conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone()
    assert row is not None
    return int(row[0])


def test_bucket_starts_survive_any_session_time_zone(conn: Connection) -> None:
    conn.execute("SET timezone = 'Asia/Kathmandu'")  # 5 h 45 min: no whole hours
    rollups.grow(conn, LIVE, [bucket()])
    assert read(conn) == [bucket()]
    row = conn.execute("SELECT bucket FROM rollups").fetchone()
    assert row is not None
    assert row[0].astimezone(UTC) == datetime(2026, 3, 10, 12, tzinfo=UTC)
