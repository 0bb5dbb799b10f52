"""Events are stored once, whoever brings them, and nothing that one event holds harms its neighbours."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from psycopg import Connection
from psycopg.errors import CheckViolation, LockNotAvailable

from billingwatch.model import Tenant
from billingwatch.store import events
from billingwatch.store.connection import connect
from billingwatch.store.events import Insertion, NewEvent
from tests.factories import LIVE, NOON, TEST, new_event
from tests.waiting import together

MARCH = date(2026, 3, 1)


@pytest.fixture
def months(conn: Connection) -> None:
    """A partition for the month of the factory's events."""
    events.ensure_months(conn, [MARCH])


def insert(conn: Connection, batch: list[NewEvent]) -> Insertion:
    with conn.transaction():
        return events.insert(conn, batch)


def stored(conn: Connection) -> list[str]:
    return [id_ for (id_,) in conn.execute("SELECT id FROM events ORDER BY id")]


def partitions(conn: Connection) -> list[str]:
    rows = conn.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass ORDER BY 1"
    )
    return [name for (name,) in rows]


@pytest.mark.usefixtures("months")
def test_event_twice_in_a_batch_and_again_in_the_next_is_stored_once(conn: Connection) -> None:
    one, two, three = (new_event(id=f"evt_{n}") for n in range(3))
    assert insert(conn, [one, two, one]).new == {one.key, two.key}
    assert insert(conn, [two, three]).new == {three.key}
    assert insert(conn, [one, two, three]) == Insertion(new=set(), refused=[])
    assert stored(conn) == ["evt_0", "evt_1", "evt_2"]


@pytest.mark.usefixtures("months")
def test_same_id_of_another_account_or_mode_is_another_event(conn: Connection) -> None:
    batch = [new_event(id="evt_1", tenant=tenant) for tenant in (LIVE, TEST, Tenant("acct_1", True))]
    assert insert(conn, batch).new == {each.key for each in batch}
    assert stored(conn) == ["evt_1"] * 3


@pytest.mark.usefixtures("months")
def test_every_field_comes_back_as_it_was_given(conn: Connection) -> None:
    given = new_event(body='{"é": [1, 2.50, null]}'.encode(), api_version="2024-06-20", customer="")
    insert(conn, [given])
    row = conn.execute(
        "SELECT account, livemode, id, type, created, api_version, object_id, customer, received_at, payload, raw"
        " FROM events"
    ).fetchone()
    assert row == (
        "default",
        True,
        given.id,
        "charge.succeeded",
        NOON,
        "2024-06-20",
        "ch_1",
        "",
        datetime.fromtimestamp(given.received_at, UTC),
        {"é": [1, 2.5, None]},
        None,
    )


@pytest.mark.parametrize(
    "body",
    [b'{"name": "a\\u0000b"}', b'{"name": "\\ud800"}', b'{"name": "\\udc00\\ud800"}'],
    ids=["NUL", "lone high surrogate", "surrogates the wrong way round"],
)
@pytest.mark.usefixtures("months")
def test_payload_that_jsonb_refuses_is_kept_as_raw_bytes(conn: Connection, body: bytes) -> None:
    strange, plain = new_event(id="evt_strange", body=body), new_event(id="evt_plain")
    assert insert(conn, [strange, plain]) == Insertion(new={strange.key, plain.key}, refused=[])
    kept = {id_: (payload, raw) for id_, payload, raw in conn.execute("SELECT id, payload, raw FROM events")}
    assert kept["evt_strange"] == (None, body)
    assert kept["evt_plain"][1] is None


POISON: list[tuple[str, dict[str, Any]]] = [
    ("NUL in the type", {"type": "charge\0"}),
    ("half a character in the type", {"type": "charge.\ud800"}),
    ("an id too long for the index", {"id": "evt_" + "".join(f"{n:05d}" for n in range(4000))}),
    ("a month that has no partition", {"created": int(datetime(1999, 1, 1, tzinfo=UTC).timestamp())}),
]


@pytest.mark.parametrize("poison", [changes for _, changes in POISON], ids=[name for name, _ in POISON])
@pytest.mark.parametrize("place", [0, 17, 50])
@pytest.mark.usefixtures("months")
def test_one_refused_event_harms_none_of_its_fifty_neighbours(
    conn: Connection, poison: dict[str, Any], place: int
) -> None:
    good = [new_event(id=f"evt_{n:02d}") for n in range(50)]
    bad = new_event(**{"id": f"evt_{place:02d}x", **poison})
    insertion = insert(conn, [*good[:place], bad, *good[place:]])
    assert insertion.new == {each.key for each in good}
    assert [each for each, _ in insertion.refused] == [bad]
    assert stored(conn) == [each.id for each in good]


@pytest.mark.usefixtures("months")
def test_several_kinds_of_poison_in_one_batch_are_each_told_with_a_reason_and_without_data(conn: Connection) -> None:
    good = [new_event(id=f"evt_{n:02d}") for n in range(20)]
    bad = [new_event(**{"id": f"evt_bad{n}", "customer": "secret", **changes}) for n, (_, changes) in enumerate(POISON)]
    insertion = insert(conn, [event for pair in zip(good, bad * 5, strict=True) for event in pair])
    assert insertion.new == {each.key for each in good}
    reasons = [reason for _, reason in insertion.refused]
    assert {event for event, _ in insertion.refused} == set(bad)
    assert all(reason and "secret" not in reason and "charge" not in reason for reason in reasons)


@pytest.mark.usefixtures("months")
def test_fault_of_the_store_is_raised_and_nothing_is_bisected_away(conn: Connection, database_url: str) -> None:
    conn.execute("SET lock_timeout = '50ms'")
    with connect(database_url, "tests") as other, other.transaction():
        other.execute("LOCK TABLE events IN SHARE MODE")  # as a CREATE INDEX holds it
        with pytest.raises(LockNotAvailable):
            insert(conn, [new_event(), new_event()])
    assert stored(conn) == []


@pytest.mark.parametrize("poison", [[], [{"type": "charge\0"}]], ids=["all well", "one refused, so in pieces"])
@pytest.mark.usefixtures("months")
def test_same_events_in_opposite_order_from_two_connections_are_stored_once_without_deadlock(
    conn: Connection, database_url: str, poison: list[dict[str, Any]]
) -> None:
    def bring(order: list[NewEvent]) -> set[tuple[Tenant, str]]:
        with connect(database_url, "tests") as own:
            return insert(own, order).new

    for turn in range(5):
        good = [new_event(id=f"evt_{turn}_{n:03d}") for n in range(200)]
        batch = [*good, *(new_event(id=f"evt_{turn}_100x", **changes) for changes in poison)]
        first, second = together(lambda: bring(batch), lambda: bring(batch[::-1]))  # noqa: B023 - done within the turn
        assert not first & second
        assert first | second == {each.key for each in good}
    assert len(stored(conn)) == 5 * 200


def test_rolled_back_batch_leaves_nothing_and_may_come_again(conn: Connection) -> None:
    events.ensure_months(conn, [MARCH])
    batch = [new_event(id=f"evt_{n}") for n in range(3)]
    with conn.transaction(force_rollback=True):
        assert len(events.insert(conn, batch).new) == 3
    assert stored(conn) == []
    assert len(insert(conn, batch).new) == 3


def test_an_event_is_stored_as_payload_or_as_bytes_and_never_as_both(conn: Connection) -> None:
    events.ensure_months(conn, [MARCH])
    with pytest.raises(CheckViolation):
        conn.execute(
            "INSERT INTO events VALUES ('default', true, 'evt_1', 't', %s, '', '', '', %s, '{}', '\\x00')", (NOON, NOON)
        )


def test_months_are_made_once_however_many_ask_at_the_same_moment(conn: Connection, database_url: str) -> None:
    months = [date(2026, month, 1) for month in range(1, 13)]

    def make(order: list[date]) -> None:
        with connect(database_url, "tests") as own:
            events.ensure_months(own, order)

    together(*(lambda order=order: make(order) for order in (months, months[::-1], months[6:], months[:6])))
    assert partitions(conn) == [f"events_2026_{month:02d}" for month in range(1, 13)]


def test_months_are_made_while_another_transaction_inserts(conn: Connection, database_url: str) -> None:
    events.ensure_months(conn, [MARCH])
    with connect(database_url, "tests") as inserting, inserting.transaction():
        events.insert(inserting, [new_event()])
        conn.execute("SET lock_timeout = '5s'")
        events.ensure_months(conn, [date(2026, 4, 1)])
    assert partitions(conn) == ["events_2026_03", "events_2026_04"]


@pytest.mark.parametrize(
    ("created", "partition"),
    [
        (datetime(2010, 1, 1, tzinfo=UTC), "events_2010_01"),
        (datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC), "events_2025_12"),
        (datetime(2026, 1, 1, tzinfo=UTC), "events_2026_01"),
        (datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC), "events_2028_02"),
    ],
)
def test_event_of_any_month_lands_in_that_months_partition(conn: Connection, created: datetime, partition: str) -> None:
    conn.execute("SET timezone = 'Pacific/Kiritimati'")  # 14 h ahead: bounds are UTC whatever the session says
    events.ensure_months(conn, [created.date().replace(day=1)])
    insert(conn, [new_event(created=int(created.timestamp()))])
    assert conn.execute("SELECT tableoid::regclass::text FROM events").fetchall() == [(partition,)]


def test_month_is_dropped_only_when_its_last_event_is_too_old(conn: Connection) -> None:
    events.ensure_months(conn, [date(2026, 2, 1), MARCH, date(2026, 4, 1)])
    last_of_march = new_event(id="evt_last", created=int(datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC).timestamp()))
    insert(conn, [last_of_march])
    assert events.drop_months_before(conn, datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC)) == ["events_2026_02"]
    assert stored(conn) == ["evt_last"]
    assert events.drop_months_before(conn, datetime(2026, 4, 1, tzinfo=UTC)) == ["events_2026_03"]
    assert partitions(conn) == ["events_2026_04"]


def test_customers_of_a_span_are_counted_once_each_and_guests_not_at_all(conn: Connection) -> None:
    events.ensure_months(conn, [MARCH])
    noon = int(NOON.timestamp())
    insert(
        conn,
        [
            new_event(type="charge.failed", customer="cus_1", created=noon),
            new_event(type="charge.failed", customer="cus_1", created=noon + 1),
            new_event(type="charge.failed", customer="cus_2", created=noon + 59),
            new_event(type="charge.failed", customer="", created=noon),
            new_event(type="charge.failed", customer="cus_3", created=noon + 60),
            new_event(type="charge.failed", customer="cus_4", created=noon - 1),
            new_event(type="charge.succeeded", customer="cus_5", created=noon),
            new_event(type="charge.failed", customer="cus_6", created=noon, tenant=TEST),
        ],
    )
    end = datetime.fromtimestamp(noon + 60, UTC)
    assert events.customers(conn, LIVE, ["charge.failed"], NOON, end) == 2
