"""What could not be stored is kept whole, once, and leaves only to be tried again."""

import pytest
from psycopg import Connection

from billingwatch.store import quarantine
from billingwatch.store.quarantine import Held, Refusal
from tests.factories import NOON

AT = NOON.timestamp() + 0.25
BYTES = bytes(range(256))


def refusal(body: bytes = BYTES, source: str = "default", reason: str = "no JSON") -> Refusal:
    return Refusal(source, AT, body, reason)


def test_held_twice_it_is_kept_once_with_its_first_reason(conn: Connection) -> None:
    assert quarantine.hold(conn, [refusal(), refusal(b"other")]) == 2
    assert quarantine.hold(conn, [refusal(reason="another reason"), refusal(b"third")]) == 1
    assert [(row.reason, row.bytes) for row in quarantine.read_all(conn)] == [
        ("no JSON", 256),
        ("no JSON", 5),
        ("no JSON", 5),
    ]


def test_same_bytes_from_another_source_are_kept_beside_it(conn: Connection) -> None:
    assert quarantine.hold(conn, [refusal(), refusal(source="shop")]) == 2


def test_list_tells_everything_but_the_body(conn: Connection) -> None:
    quarantine.hold(conn, [refusal()])
    (held,) = quarantine.read_all(conn)
    assert (held.source, held.received_at.timestamp(), held.reason, held.bytes) == ("default", AT, "no JSON", 256)
    assert "body" not in Held.__struct_fields__


def test_taken_rows_come_back_byte_for_byte_and_are_gone(conn: Connection) -> None:
    quarantine.hold(conn, [refusal(), refusal(b"stays")])
    first, second = (row.id for row in quarantine.read_all(conn))
    assert quarantine.take(conn, [first, first, 404]) == [refusal()]
    assert quarantine.take(conn, [first]) == []
    assert [row.id for row in quarantine.read_all(conn)] == [second]


def test_rows_taken_in_a_transaction_that_fails_are_still_held(conn: Connection) -> None:
    quarantine.hold(conn, [refusal()])
    (held,) = quarantine.read_all(conn)
    with conn.transaction(force_rollback=True):
        assert len(quarantine.take(conn, [held.id])) == 1
    assert quarantine.read_all(conn) == [held]


@pytest.mark.parametrize("body", [b"", b"\0", b"x" * (1 << 20)], ids=["empty", "NUL", "1 MiB"])
def test_any_bytes_are_kept(conn: Connection, body: bytes) -> None:
    quarantine.hold(conn, [refusal(body)])
    (held,) = quarantine.read_all(conn)
    assert held.bytes == len(body)
    assert quarantine.take(conn, [held.id]) == [refusal(body)]


def test_list_is_cut_where_it_is_asked_to_be(conn: Connection) -> None:
    quarantine.hold(conn, [refusal(b"%d" % n) for n in range(5)])
    assert len(quarantine.read_all(conn, limit=3)) == 3
