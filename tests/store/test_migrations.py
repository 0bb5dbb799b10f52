"""The schema comes from nothing, comes once, and is known to be there or not."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
from psycopg import Connection, sql

from billingwatch.schema import migrate, pending
from billingwatch.store.connection import StoreAwayError, connect
from tests.conftest import Servers
from tests.waiting import together

TABLES = [
    "accounts",
    "alembic_version",
    "alerts",
    "audit",
    "baselines",
    "charges",
    "claims",
    "deliveries",
    "digests",
    "events",
    "feedback",
    "incident_log",
    "incidents",
    "keys",
    "markers",
    "payers",
    "quarantine",
    "rollups",
    "silences",
    "used_links",
]
_names = itertools.count(1)


@pytest.fixture
def empty_url(servers: Servers) -> Iterator[str]:
    """A database with nothing in it, not even our schema."""
    name = f"empty_{next(_names)}"
    with connect(servers.database_url, "tests") as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def tables(conn: Connection) -> list[str]:
    rows = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return [name for (name,) in rows]


def version(conn: Connection) -> list[str]:
    return [number for (number,) in conn.execute("SELECT version_num FROM alembic_version")]


def test_empty_database_gets_every_table_and_says_so(empty_url: str) -> None:
    with connect(empty_url, "tests") as conn:
        assert pending(conn)
        migrate(empty_url)
        assert tables(conn) == TABLES
        assert not pending(conn)


def test_second_run_changes_nothing_and_keeps_the_data(empty_url: str) -> None:
    migrate(empty_url)
    with connect(empty_url, "tests") as conn:
        conn.execute("INSERT INTO claims VALUES ('default', true, 'ch_1')")
        before = version(conn)
        migrate(empty_url)
        assert version(conn) == before
        assert conn.execute("SELECT count(*) FROM claims").fetchone() == (1,)


def test_three_releases_started_at_once_migrate_once(empty_url: str) -> None:
    def release() -> int:
        # A process each, as in life: Alembic keeps the environment it runs in a global of the process.
        command = [sys.executable, "-m", "billingwatch", "migrate"]
        return subprocess.run(
            command, env={**os.environ, "DATABASE_URL": empty_url}, check=False, timeout=20
        ).returncode

    assert together(release, release, release) == [0, 0, 0]
    with connect(empty_url, "tests") as conn:
        assert tables(conn) == TABLES
        assert len(version(conn)) == 1


def test_both_spellings_of_the_address_do(empty_url: str) -> None:
    migrate(empty_url.replace("postgresql://", "postgres://", 1))
    with connect(empty_url, "tests") as conn:
        assert not pending(conn)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", False),
        ("DELETE FROM alembic_version", True),
    ],
    ids=["a newer release migrated it", "its version is lost"],
)
def test_pending_is_what_this_release_lacks(conn: Connection, statement: str, expected: bool) -> None:
    conn.execute(statement)
    assert pending(conn) is expected


def test_asking_leaves_the_connection_usable_where_nothing_is_there(empty_url: str) -> None:
    with connect(empty_url, "tests") as conn, conn.transaction():
        assert pending(conn)
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_database_that_does_not_answer_is_away_and_its_password_is_not_told() -> None:
    with pytest.raises(StoreAwayError) as raised:
        connect("postgresql://ada:hunter2@127.0.0.1:1/none", "tests")
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None
