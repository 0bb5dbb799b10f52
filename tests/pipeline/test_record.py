"""From verified bytes to rows and counts: stored once, counted once, whatever the order and however often it comes."""

import json
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from psycopg import Connection

from billingwatch.model import Tenant, utc
from billingwatch.queues import Received
from billingwatch.rules import Rules
from billingwatch.simulator.objects import Account, Json, thin
from billingwatch.simulator.stream import Scenario, simulate
from billingwatch.store import incidents, quarantine
from billingwatch.store.connection import connect
from detectors.filter import Filter
from tests.factories import LIVE, NOON, TEST, arrived, event, failed, incident, paid, received, refunded
from tests.waiting import together
from worker.clock import run_housekeeping
from worker.record import Recorded, record, record_each

AT = int(NOON.timestamp())
PAYLOADS = Path(__file__).parents[1] / "payloads"
MIDNIGHT = datetime(2026, 3, 10, tzinfo=UTC)


def stored(conn: Connection) -> list[str]:
    return [id_ for (id_,) in conn.execute("SELECT id FROM events ORDER BY id")]


def totals(conn: Connection, tenant: Tenant | None = None) -> dict[tuple[str, str, int], tuple[int, int]]:
    """(metric, currency, grain) -> (count, amount) over all time and every stratum."""
    account, livemode = (tenant.account, tenant.livemode) if tenant else (None, None)
    rows = conn.execute(
        """
        SELECT metric, currency, grain, sum(count)::bigint, sum(amount)::bigint FROM rollups
        WHERE %s::text IS NULL OR (account = %s AND livemode = %s) GROUP BY 1, 2, 3
        """,
        (account, account, livemode),
    )
    return {(metric, currency, grain): (count, amount) for metric, currency, grain, count, amount in rows}


def count(conn: Connection, metric: str, tenant: Tenant = LIVE) -> int:
    return sum(n for (name, _, grain), (n, _) in totals(conn, tenant).items() if name == metric and grain == 60)


def body(**fields: Any) -> bytes:
    """A small event, changed; a field of None is left out."""
    plain = {"id": "evt_1", "object": "event", "type": "charge.failed", "created": AT, "livemode": True}
    return json.dumps({name: value for name, value in (plain | fields).items() if value is not None}).encode()


# what is received, and whether it is stored or held in quarantine
HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "quarantine"),
    "no JSON": (b"{", "quarantine"),
    "a list": (b"[]", "quarantine"),
    "a number": (b"1", "quarantine"),
    "null": (b"null", "quarantine"),
    "an empty object": (b"{}", "quarantine"),
    "invalid UTF-8": (b'{"id": "\xff"}', "quarantine"),
    "nested a hundred thousand deep": (b'{"id": ' + b"[" * 100_000, "quarantine"),
    "deep within the object": (
        body(data=None)[:-1] + b', "data": {"object": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
        "quarantine",
    ),
    "no id": (body(id=None), "quarantine"),
    "an empty id": (body(id=""), "quarantine"),
    "a number as id": (body(id=7), "quarantine"),
    "NUL in the id": (body(id="evt_\0"), "quarantine"),
    "an id of a megabyte": (body(id="evt_" + random.Random(1).randbytes(500_000).hex()), "quarantine"),
    "no type": (body(type=None), "quarantine"),
    "no created": (body(created=None), "quarantine"),
    "created in words": (body(created="yesterday"), "quarantine"),
    "created before Stripe": (body(created=0), "quarantine"),
    "created below zero": (body(created=-1), "quarantine"),
    "created in two days": (body(created=AT + 2 * 86_400), "quarantine"),
    "created beyond every calendar": (body(created=10**18), "quarantine"),
    "a number of five thousand digits": (body(created=None)[:-1] + b', "created": ' + b"9" * 5000 + b"}", "quarantine"),
    "livemode in words": (body(livemode="yes"), "quarantine"),
    "data that is a list": (body(data=[]), "quarantine"),
    "NUL in the payload": (body(data={"object": {"name": "a\0b"}}), "stored"),
    "NUL in the object's id": (body(data={"object": {"id": "ch_\0", "customer": "cus_\0"}}), "stored"),
    "half a character": (body()[:-1] + b', "data": {"object": {"name": "\\ud800"}}}', "stored"),
    "half a character as id": (body(id=None)[:-1] + b', "id": "evt_\\udfff"}', "stored"),
    "an object that is a list": (body(data={"object": []}), "stored"),
    "an object that is null": (body(data={"object": None}), "stored"),
    "a charge without an amount": (body(data={"object": {"id": "ch_1", "object": "charge"}}), "stored"),
    "an amount in words": (body(data={"object": {"id": "ch_1", "amount": "10", "currency": "usd"}}), "stored"),
    "an amount of thirty digits": (
        body(data={"object": {"id": "ch_1", "amount": 10**30, "currency": "usd"}}),
        "stored",
    ),
    "a number no float can hold": (body()[:-1] + b', "data": {"object": {"weight": 1e999}}}', "stored"),
    "the same key twice": (b'{"id": "evt_0", ' + body()[1:], "stored"),
    "a type nobody knows": (body(type="quantum.entangled"), "stored"),
    "a type of ten thousand letters": (body(type="x" * 10_000), "stored"),
    "an account of another world": (body(account="💶 'DROP TABLE events; --"), "stored"),
}


@pytest.mark.parametrize(("bytes_", "fate"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_body_is_stored_or_held_and_its_neighbours_are_unharmed(
    conn: Connection, bytes_: bytes, fate: str
) -> None:
    neighbours = arrived([paid(AT), failed(AT), refunded(AT)])
    batch = [*neighbours[:2], Received("default", float(AT), bytes_), neighbours[2]]
    recorded = record(conn, batch, NOON)
    held = quarantine.read_all(conn)
    assert recorded.new + recorded.refused == 4
    assert len(stored(conn)) == recorded.new
    assert len(held) == recorded.refused
    assert fate == ("quarantine" if held else "stored")
    assert [count(conn, metric) for metric in ("payment.succeeded", "refund.created")] == [1, 1]
    assert all(each.reason for each in held)


@pytest.mark.parametrize("field", ["id", "type", "created", "livemode", "account", "data"])
def test_reason_of_a_refusal_quotes_nothing_of_the_body(conn: Connection, field: str) -> None:
    private = {"email": "ada@example.com"}
    wrong = body(**{field: "ada@example.com" if field in {"created", "livemode", "data"} else private})
    assert record(conn, [Received("default", float(AT), wrong)], NOON).refused == 1
    (held,) = quarantine.read_all(conn)
    assert "ada" not in held.reason


def test_whole_hostile_set_in_one_batch_comes_out_as_one_by_one(conn: Connection) -> None:
    batch = [
        Received("default", float(AT), bytes_.replace(b'"evt_1"', b'"evt_%d"' % n, 1))
        for n, (bytes_, _) in enumerate(HOSTILE.values(), 1)
    ]
    recorded = record(conn, batch, NOON)
    assert (recorded.new + recorded.refused, recorded.seen) == (len(batch), 0)
    assert record(conn, batch, NOON).new == 0
    assert len(quarantine.read_all(conn)) == recorded.refused


def test_held_body_is_the_received_one_byte_for_byte(conn: Connection) -> None:
    record(conn, [Received("shop", AT + 0.5, b'{"id": "\xff\0"}')], NOON)
    (held,) = quarantine.read_all(conn)
    (refusal,) = quarantine.take(conn, [held.id])
    assert (refusal.source, refusal.received_at, refusal.body) == ("shop", AT + 0.5, b'{"id": "\xff\0"}')


@pytest.fixture(scope="module")
def day() -> list[Json]:
    """A simulated day with a little of everything."""
    return list(simulate(Scenario(seed=7, start=int(MIDNIGHT.timestamp()), days=1, volume=60)))


def batches(told: Sequence[Json], chance: random.Random) -> Iterable[list[Received]]:
    """Shuffled, three in ten of them twice, split anywhere."""
    copies = [*told, *chance.sample(told, len(told) * 3 // 10)]
    chance.shuffle(copies)
    while copies:
        size = chance.randint(1, 200)
        yield arrived(copies[:size])
        copies = copies[size:]


def test_shuffled_day_with_duplicates_counts_as_the_day_in_order(
    conn: Connection, database_url: str, day: list[Json]
) -> None:
    later = NOON + timedelta(days=1)
    record(conn, arrived(day), later)
    expected, ids = totals(conn), stored(conn)
    assert len(ids) == len(day)
    for seed in range(3):
        conn.execute("TRUNCATE events, rollups, claims, charges, payers, accounts")
        recorded = [record(conn, batch, later) for batch in batches(day, random.Random(seed))]
        assert sum(each.new for each in recorded) == len(day)
        assert sum(each.seen for each in recorded) == len(day) * 3 // 10
        assert stored(conn) == ids
        assert totals(conn) == expected


def test_two_workers_with_overlapping_halves_of_a_day_count_it_once(
    conn: Connection, database_url: str, day: list[Json]
) -> None:
    later = NOON + timedelta(days=1)
    record(conn, arrived(day), later)
    expected = totals(conn)
    conn.execute("TRUNCATE events, rollups, claims, charges, payers, accounts")
    third = len(day) // 3

    def work(part: list[Json]) -> int:
        with connect(database_url, "tests") as own:
            return sum(record(own, arrived(part[n : n + 100]), later).new for n in range(0, len(part), 100))

    new = together(lambda: work(day[: 2 * third]), lambda: work(day[third:][::-1]))
    assert sum(new) == len(day)
    assert totals(conn) == expected


def test_batch_recorded_twice_counts_once(conn: Connection) -> None:
    batch = arrived([paid(AT), failed(AT), refunded(AT), refunded(AT + 1)])
    assert record(conn, batch, NOON) == Recorded(new=4, seen=0, refused=0, tenants=(LIVE,))
    before = totals(conn)
    assert record(conn, batch, NOON) == Recorded(new=0, seen=4, refused=0, tenants=())
    assert record(conn, [*batch, *batch], NOON).seen == 8
    assert totals(conn) == before


def test_batch_whose_transaction_fails_leaves_nothing_and_may_come_again(conn: Connection) -> None:
    batch = arrived([paid(AT), refunded(AT)])
    with conn.transaction(force_rollback=True):
        assert record(conn, batch, NOON).new == 2
    assert (stored(conn), totals(conn)) == ([], {})
    assert record(conn, batch, NOON).new == 2


def test_accounts_and_modes_in_one_batch_are_kept_apart(conn: Connection) -> None:
    connected = Account(connected="acct_1Connected")
    batch = [
        *arrived([refunded(AT), refunded(AT)]),
        *arrived([refunded(AT, account=Account(livemode=False))]),
        *arrived([refunded(AT, account=connected) for _ in range(3)]),
        *arrived([refunded(AT) for _ in range(4)], source="shop"),
    ]
    tenants = [Tenant("acct_1Connected", True), TEST, LIVE, Tenant("shop", True)]
    recorded = record(conn, batch, NOON)
    assert set(recorded.tenants) == set(tenants)
    assert [count(conn, "refund.created", tenant) for tenant in tenants] == [3, 1, 2, 4]


def test_same_event_from_two_sources_is_each_sources_own(conn: Connection) -> None:
    told = refunded(AT)
    assert record(conn, [received(told), received(told, source="shop")], NOON).new == 2


def test_currencies_are_never_added(conn: Connection) -> None:
    batch = [refunded(AT, account=Account(currency=currency), amount=1000) for currency in ("usd", "jpy", "usd")]
    record(conn, arrived(batch), NOON)
    found = {key[1]: value for key, value in totals(conn, LIVE).items() if key[0] == "refund.created" and key[2] == 60}
    assert found == {"usd": (2, 2000), "jpy": (1, 1000)}


@pytest.mark.parametrize(
    "told",
    [
        event("quantum.entangled", {"id": "qe_1", "object": "quantum"}, AT),
        thin(
            Account(), "v1.charge.failed", {"id": "ch_1", "type": "charge", "url": "/v1/charges/ch_1"}, AT, id="evt_t"
        ),
    ],
    ids=["unknown type", "thin event"],
)
def test_what_tells_nothing_that_is_counted_is_stored_and_is_a_sign_of_life(conn: Connection, told: Json) -> None:
    assert record(conn, [received(told, at=AT)], NOON).new == 1
    assert count(conn, "object.any") == 1


@pytest.mark.parametrize(("ahead", "new"), [(86_400, 1), (86_401, 0)])
def test_event_may_be_a_day_ahead_and_no_more(conn: Connection, ahead: int, new: int) -> None:
    recorded = record(conn, arrived([paid(AT + ahead)]), NOON)
    assert (recorded.new, recorded.refused) == (new, 1 - new)


def test_event_at_a_time_leaves_the_uncountable_one_in_quarantine(conn: Connection) -> None:
    """A bucket that is full to 64 bits refuses what would overflow it; only that event is held."""
    batch = arrived([refunded(AT, amount=500), refunded(AT + 3600, amount=700), paid(AT)])
    record(conn, arrived([refunded(AT, amount=1)]), NOON)
    conn.execute("UPDATE rollups SET amount = 9223372036854775807 WHERE metric = 'refund.created'")
    recorded = record_each(conn, batch, NOON)
    assert (recorded.new, recorded.refused) == (2, 1)
    (held,) = quarantine.read_all(conn)
    assert quarantine.take(conn, [held.id])[0].body == batch[0].body
    assert len(stored(conn)) == 3


def again(created: int, *, customer: str | None = "cus_1", fingerprint: str = "Xt5", **options: Any) -> Json:
    """A charge by the same payer as every other one."""
    told = paid(created, **options)
    thing = told["data"]["object"]
    thing["customer"] = customer
    thing["payment_method_details"]["card"]["fingerprint"] = fingerprint
    return told


def test_payment_made_twice_is_found_whatever_is_told_first_and_in_whichever_batch(conn: Connection) -> None:
    told = [again(AT), again(AT + 90), again(AT + 500, amount=1), again(AT + 691)]
    for each in (told[1], told[3], told[0], told[2], *told):
        record(conn, arrived([each]), NOON)
    assert totals(conn, LIVE)["payment.duplicate", "usd", 60] == (1, 2900)


def test_guest_who_pays_twice_is_known_by_the_card(conn: Connection) -> None:
    told = [again(AT, customer=None), again(AT + 9, customer=None), again(AT + 9, customer=None, fingerprint="Zz9")]
    record(conn, arrived(told), NOON)
    assert count(conn, "payment.duplicate") == 1


def test_two_payments_of_one_payer_at_once_are_found_by_two_workers(conn: Connection, database_url: str) -> None:
    told = [(again(AT + 3600 * n), again(AT + 3600 * n + 1)) for n in range(10)]

    def work(side: int) -> None:
        with connect(database_url, "tests") as own:
            for pair in told:
                record(own, arrived([pair[side]]), NOON + timedelta(days=1))

    together(lambda: work(0), lambda: work(1))
    assert count(conn, "payment.duplicate") == 10


def test_events_are_counted_when_they_arrive_and_late_ones_apart(conn: Connection) -> None:
    batch = [received(refunded(AT), at=AT + delay) for delay in (0.9, 300.0, 300.5, 6 * 3600.0, 6 * 3600 + 1.0)]
    record(conn, batch, NOON)
    assert count(conn, "delivery.arrived") == len(batch)
    assert count(conn, "delivery.late") == 2
    rows = conn.execute(
        """
        SELECT extract(epoch FROM bucket)::bigint - %s, count FROM rollups
        WHERE metric = 'delivery.arrived' AND grain = 5 ORDER BY 1
        """,
        (AT,),
    )
    assert rows.fetchall() == [(0, 1), (300, 2), (6 * 3600, 2)]


def test_filters_count_apart_what_they_match(conn: Connection) -> None:
    told = [failed(AT), failed(AT + 1), paid(AT)]
    for each, brand in zip(told, ("visa", "amex", "visa"), strict=True):
        each["data"]["object"]["payment_method_details"]["card"]["brand"] = brand
    rule = Filter("visas", "payment.failed", brand="visa")
    record(conn, arrived(told[:1]), NOON, (rule,))
    record_each(conn, arrived(told), NOON, (rule,))
    assert count(conn, "rule.visas") == 1
    assert count(conn, "payment.failed") == 2


def test_renewal_is_counted_when_it_will_be_due(conn: Connection) -> None:
    for version in ("2024-06-20", "2025-03-31.basil", "2026-10-28.endive"):
        body = (PAYLOADS / f"customer.subscription.created.{version}.json").read_bytes()
        record(conn, [Received("default", float(AT), body)], utc(1789380000))
    rows = conn.execute(
        """
        SELECT extract(epoch FROM bucket)::bigint, count, amount FROM rollups
        WHERE metric = 'renewal.due' AND grain = 5
        """
    )
    assert rows.fetchall() == [(1791972000, 3, 3 * 8700)]


def test_retention_drops_old_months_and_never_an_incident(conn: Connection) -> None:
    long_ago = NOON - timedelta(days=500)
    record(conn, [received(refunded(int(long_ago.timestamp()))), received(refunded(AT))], NOON)
    made = incident(opened_at=long_ago, first_breach_at=long_ago, state="resolved", resolved_at=long_ago)
    id_ = incidents.open_incident(conn, made)
    assert id_ is not None
    incidents.log(conn, id_, long_ago, None, "open", "first", "billingwatch")
    quarantine.hold(conn, [quarantine.Refusal("default", long_ago.timestamp(), b"kept", "no JSON")])
    run_housekeeping(conn, Rules(retention_days=400), NOON)
    assert len(stored(conn)) == 1
    assert incidents.read_one(conn, id_) == msgspec.structs.replace(made, id=id_)
    assert len(incidents.read_log(conn, id_)) == 1
    assert len(quarantine.read_all(conn)) == 1


def test_housekeeping_makes_the_months_to_come_and_forgets_old_claims_and_payers(conn: Connection) -> None:
    record(conn, arrived([paid(AT)]), NOON)
    conn.execute("UPDATE claims SET claimed_at = %s", (NOON - timedelta(days=36),))
    conn.execute("UPDATE payers SET created = %s", (NOON - timedelta(days=2, seconds=1),))
    run_housekeeping(conn, Rules(), NOON)
    run_housekeeping(conn, Rules(), NOON)
    rows = conn.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass")
    assert {f"events_2026_{month:02d}" for month in range(3, 7)} == {name for (name,) in rows}
    assert conn.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM payers").fetchone() == (0,)
