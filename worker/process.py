"""What one worker process holds between jobs: its Postgres connection, its Redis, its rules."""

import time
from datetime import timedelta

import psycopg
import structlog
from psycopg import Connection
from psycopg.pq import TransactionStatus
from redis import Redis

from billingwatch.queues import Queue
from billingwatch.rules import Rules
from billingwatch.settings import Stores
from billingwatch.store.connection import StoreAwayError, away, connect
from detectors.registry import Plans

log = structlog.get_logger(__name__)

PATIENCE = timedelta(seconds=15)  # how long a job waits for Postgres to come back; below every job's time limit


class Process:
    """A worker's belongings. Jobs get it from `current()`, since RQ calls them with nothing but ids and bytes."""

    def __init__(self, stores: Stores, redis: Redis, rules: Rules, plans: Plans, name: str) -> None:
        self.stores = stores
        self.redis = redis
        self.rules = rules
        self.plans = plans
        self.name = name
        self._conn: Connection | None = None

    def queue(self, name: str) -> Queue:
        return Queue(name, connection=self.redis)

    def conn(self) -> Connection:
        """The connection, opened anew when it was lost. Raises StoreAwayError."""
        if self._conn is not None and self._conn.info.transaction_status != TransactionStatus.IDLE:
            self.drop()  # a job was interrupted in mid-statement
        if self._conn is None:
            self._conn = connect(self.stores.database_url, self.name)
        return self._conn

    def drop(self) -> None:
        """Close the connection; the next `conn()` opens another."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def check(self) -> None:
        """Ask Postgres for an answer. Raises StoreAwayError."""
        try:
            self.conn().execute("SELECT 1")
        except psycopg.Error as error:
            self.drop()
            raise away(error) from None

    def wait(self, seconds: float) -> None:
        """Wait until Postgres answers, `seconds` at most. Raises StoreAwayError when it does not."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.check()
            except StoreAwayError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.25)


_current: Process | None = None


def start(process: Process) -> None:
    """Make this the process that jobs get from `current()`."""
    global _current  # noqa: PLW0603 - RQ calls jobs by name, so their process stands in the module
    _current = process


def current() -> Process:
    if _current is None:
        raise RuntimeError("no worker was started in this process; use `billingwatch worker`")
    return _current
