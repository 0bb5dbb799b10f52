"""Real servers, started once for all tests; each test has a database of its own, copied from a migrated template."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from hypothesis import settings
from msgspec import Struct
from psycopg import Connection, sql
from redis import Redis

from billingwatch import embedded
from billingwatch.rules import Rules
from billingwatch.schema import migrate
from billingwatch.settings import Stores
from billingwatch.store.connection import connect
from detectors.registry import configure
from worker.process import Process

TEMPLATE = "billingwatch_template"
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}  # a test's server may lose its data
_names = itertools.count(1)

settings.register_profile("billingwatch", deadline=None)  # a machine under load is slow, and that is no failure
settings.load_profile("billingwatch")


MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes
FAULTS = Path(__file__).parent / "faults"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the tests out among pytest's processes: each file is one's, and all faults, which load the machine and wait
    the longest, are the first one's, from the beginning on.
    """
    items.sort(key=lambda item: not item.path.is_relative_to(FAULTS))  # else in their random order
    for item in items:
        file = "faults" if item.path.is_relative_to(FAULTS) else item.path.stem
        item.add_marker(pytest.mark.xdist_group(file))


class Servers(Struct, frozen=True):
    """The session's servers. `folder` is theirs, for tests that look for their processes."""

    folder: Path
    database_url: str
    redis_url: str


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """One Postgres and one Valkey for the whole session."""
    with tempfile.TemporaryDirectory(prefix="billingwatch-tests-", dir=_quick()) as name:
        folder = Path(name)
        folder.chmod(0o755)  # root's Postgres runs as another user, who must be able to enter
        try:
            database_url = embedded.start_postgres(folder, FAST)
            redis_url = embedded.start_valkey(folder)
            with connect(database_url, "tests") as conn:
                conn.execute(f"CREATE DATABASE {TEMPLATE}")
            migrate(_database(database_url, TEMPLATE))
            yield Servers(folder, database_url, redis_url)
        finally:
            embedded.stop_valkey(folder)
            embedded.stop_postgres(folder)


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    """A database with the newest schema and nothing in it."""
    name = f"test_{next(_names)}"
    with connect(servers.database_url, "tests") as conn:
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(*map(sql.Identifier, (name, TEMPLATE)))
        )
        yield _database(servers.database_url, name)
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    with connect(database_url, "tests") as conn:
        yield conn


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """An empty Redis; tests run one after the other."""
    Redis.from_url(servers.redis_url).flushall()
    return servers.redis_url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def process(database_url: str, redis_url: str, redis: Redis) -> Iterator[Process]:
    """What a worker process holds, with the shipped detectors and no channel but the console."""
    process = Process(Stores(database_url, redis_url), redis, Rules(), configure({})[0], "tests")
    yield process
    process.drop()


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def _quick() -> str | None:
    """A folder in memory where there is one with room: a database is five hundred files, and each test makes one."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM
    return str(MEMORY) if roomy else None


def _database(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}"))
