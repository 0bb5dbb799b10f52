"""Nothing of a drill stays, and nothing of anybody else goes."""

from collections.abc import Iterator
from datetime import timedelta

import msgspec
import pytest
from psycopg import Connection, sql

from billingwatch.drill import DRILLS
from billingwatch.model import Tenant
from billingwatch.store import accounts, baselines, deliveries, drill, outbox
from billingwatch.store import incidents as store
from billingwatch.store.connection import connect
from detectors.registry import configure
from tests.factories import NOON, incident, received, refunded
from tests.waiting import together, until
from worker.record import record

MINE, OTHERS = DRILLS["refund_spike"].tenant, Tenant("drill-bits-shop", True)


def tables_with(conn: Connection, name: str) -> set[str]:
    """The tables that have a column of this name, without partitions."""
    rows = conn.execute(
        """
        SELECT c.table_name FROM information_schema.columns AS c JOIN pg_class AS t ON t.relname = c.table_name
        WHERE c.table_schema = 'public' AND c.column_name = %s AND NOT t.relispartition ORDER BY 1
        """,
        (name,),
    )
    return {table for (table,) in rows}


def test_every_table_with_accounts_or_incidents_is_cleaned(conn: Connection) -> None:
    """A new table has to be named in the store, or a drill's rows would stay in it."""
    assert tables_with(conn, "account") == {*drill.BY_ACCOUNT, "incidents"}
    assert tables_with(conn, "incident") == {*drill.BY_INCIDENT}


def fill(conn: Connection, tenant: Tenant) -> int:
    """A row of the tenant in every table; the id of its incident."""
    now = NOON
    at = int(now.timestamp())
    record(conn, [received(refunded(at - n), source=tenant.account) for n in range(3)], now)
    conn.execute("INSERT INTO payers VALUES (%s, true, 'key', 'pi_1', %s, false)", (tenant.account, now))
    baselines.write(conn, tenant, now, b"forecast", b"archive")
    id_ = store.open_incident(conn, incident(tenant=tenant))
    assert id_
    store.log(conn, id_, now, None, "open", "first", "billingwatch")
    outbox.stage(conn, id_, "ops", "first", "default route", now, now)
    conn.execute("INSERT INTO feedback (incident, verdict, who, at) VALUES (%s, 'confirmed', 'ada', %s)", (id_, now))
    conn.execute("INSERT INTO audit (at, who, act, subject) VALUES (%s, 'ada', 'ack', %s)", (now, f"incident {id_}"))
    conn.execute(
        """
        INSERT INTO markers (account, livemode, kind, starts_at, ends_at, text, who)
        VALUES (%s, true, 'deploy', %s, %s, 'a deploy', 'ada')
        """,
        (tenant.account, now, now),
    )
    conn.execute("INSERT INTO digests (account, kind, day) VALUES (%s, 'daily', %s)", (tenant.account, now))
    once = deliveries.Delivery(channel="ops", kind="alert", tenant=tenant, title="Title", body="Body")
    deliveries.begin(conn, msgspec.structs.replace(once, repeats=deliveries.begin(conn, once, now)), now)
    return id_


def rows(conn: Connection) -> dict[str, int]:
    """How many rows each table has."""
    counted = {}
    for table in (*drill.BY_ACCOUNT, *drill.BY_INCIDENT, "incidents", "audit", "quarantine", "silences"):
        (count,) = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone() or (0,)
        counted[table] = count
    return counted


@pytest.fixture
def others(conn: Connection) -> Iterator[dict[str, int]]:
    """What others have; it is the same at the end."""
    fill(conn, OTHERS)
    before = rows(conn)
    yield before
    assert rows(conn) == before


def test_nothing_stays_of_a_drill_and_all_of_the_others(conn: Connection, others: dict[str, int]) -> None:
    fill(conn, MINE)
    filled = rows(conn)
    assert all(filled[table] > others[table] for table in (*drill.BY_ACCOUNT, *drill.BY_INCIDENT, "incidents", "audit"))
    assert drill.leftovers(conn) == [MINE.account]
    assert drill.clean(conn, [MINE.account]) == 3 + 2 + 1  # events, deliveries, the incident
    assert drill.leftovers(conn) == []


def test_cleaning_twice_is_cleaning_once(conn: Connection, others: dict[str, int]) -> None:
    fill(conn, MINE)
    assert drill.clean(conn, [MINE.account])
    assert drill.clean(conn, [MINE.account]) == 0


def test_nobody_elses_account_is_ever_cleaned(conn: Connection, others: dict[str, int]) -> None:
    """A source may be called so; its name cannot hold an underscore."""
    for name in (OTHERS.account, "default", "acct_1", "billingwatch", ""):
        with pytest.raises(ValueError, match="not a drill's account"):
            drill.clean(conn, [MINE.account, name])
    assert OTHERS.account not in drill.leftovers(conn)


def test_who_judges_or_sends_at_that_moment_ends_first(conn: Connection, database_url: str) -> None:
    """An alert staged while its incident was being deleted would be refused, or stay without one."""
    id_ = fill(conn, MINE)
    with connect(database_url, "judge") as judge:

        def stage() -> int:
            with judge.transaction():
                accounts.lock(judge, MINE)
                if store.read_one(judge, id_) is None:
                    return 0
                return outbox.stage(judge, id_, "ops", "worse", "", NOON, NOON)

        together(stage, lambda: drill.clean(conn, [MINE.account]))
    assert rows(conn)["alerts"] == rows(conn)["incidents"] == 0


def test_of_two_drills_the_second_is_refused_until_the_first_is_gone(conn: Connection, database_url: str) -> None:
    with connect(database_url, "drill") as other:
        assert drill.begin(other)
        assert not drill.begin(conn)
    until(lambda: drill.begin(conn))


def test_what_is_known_of_a_drill(conn: Connection) -> None:
    id_ = fill(conn, MINE)
    conn.execute("""UPDATE incidents SET evidence = '{"signals": [{"detector": "refund_spike"}]}'""")
    (found,) = drill.incidents(conn, [MINE.account, "drill_unheard_of"])
    assert (found.id, found.account, [*found.detectors]) == (id_, MINE.account, ["refund_spike"])
    assert drill.stored(conn, MINE.account) == 3
    outbox.stage(conn, id_, "ops", "worse", "", NOON, NOON)
    outbox.stage(conn, id_, "pager", "first", "", NOON, NOON + timedelta(seconds=30))
    ops, pager = drill.told(conn, id_)
    assert (ops.channel, ops.over, pager.wait) == ("ops", False, timedelta(seconds=30))


def test_accounts_of_drills_keep_no_public_holidays() -> None:
    plans, wrong = configure({"holidays": "DE"})
    assert not wrong
    assert plans.of(OTHERS.account).calendar.holidays
    assert not plans.of(MINE.account).calendar.holidays
    assert plans.of(MINE.account).detectors == plans.of(OTHERS.account).detectors
