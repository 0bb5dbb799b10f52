"""The key of signed links is made once, and each link works once for each act."""

from datetime import timedelta

from psycopg import Connection

from billingwatch.store import links
from billingwatch.store.connection import connect
from tests.factories import NOON
from tests.waiting import together


def test_key_is_made_once_even_by_eight_at_once(conn: Connection, database_url: str) -> None:
    def ask() -> bytes:
        with connect(database_url, "tests") as own:
            return links.key(own)

    (key,) = set(together(*[ask] * 8))
    assert len(key) == links.LENGTH
    assert links.key(conn) == key


def test_two_installations_have_two_keys(conn: Connection) -> None:
    first = links.key(conn)
    conn.execute("DELETE FROM keys")
    assert links.key(conn) != first


def test_link_is_used_once_for_each_act(conn: Connection) -> None:
    assert links.use(conn, "n1", "ack", NOON)
    assert not links.use(conn, "n1", "ack", NOON + timedelta(hours=1))
    assert links.use(conn, "n1", "expected", NOON)
    assert links.use(conn, "n2", "ack", NOON)
    assert links.used(conn, "n1") == {"ack": NOON, "expected": NOON}


def test_of_eight_who_use_a_link_at_once_one_has_used_it(conn: Connection, database_url: str) -> None:
    def use() -> bool:
        with connect(database_url, "tests") as own, own.transaction():
            return links.use(own, "n1", "ack", NOON)

    assert sorted(together(*[use] * 8)) == [False] * 7 + [True]


def test_used_links_are_forgotten_when_they_are_old(conn: Connection) -> None:
    links.use(conn, "old", "ack", NOON - timedelta(days=8))
    links.use(conn, "new", "ack", NOON)
    assert links.forget(conn, NOON - timedelta(days=7)) == 1
    assert (links.used(conn, "old"), links.used(conn, "new")) == ({}, {"ack": NOON})
