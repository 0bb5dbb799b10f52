"""What one worker process holds between jobs: its Postgres connection, its Redis, its rules."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import TypeVar

import psycopg
import structlog
from psycopg import Connection
from psycopg.pq import TransactionStatus
from redis import Redis

from billingwatch.queues import Queue
from billingwatch.rules import Rules
from billingwatch.settings import Stores
from billingwatch.store.connection import RefusedError, StoreAwayError, away, connect, refused
from detectors.registry import Plans
from notify.policy import Policy
from notify.template import SHIPPED, Templates
from worker.lanes import Lanes

log = structlog.get_logger(__name__)

T = TypeVar("T")

DEADLOCKED = "40P01"
TRIES = 5  # of a transaction that Postgres sacrificed to another
PATIENCE = timedelta(seconds=15)  # how long a job waits for Postgres to come back; below every job's time limit


DEFAULT = Policy()


class Process:
    """A worker's belongings. Jobs get it from `current()`, since RQ calls them with nothing but ids and bytes.

    `base_url` is the console's public address, `folder` where embedded servers keep their data, `heartbeat_url` what is
    asked while all is well. With `lanes` messages are sent beside the jobs, else within them.
    """

    def __init__(
        self,
        stores: Stores,
        redis: Redis,
        rules: Rules,
        plans: Plans,
        name: str,
        policy: Policy = DEFAULT,
        base_url: str = "",
        *,
        templates: Templates = SHIPPED,
        folder: Path | None = None,
        heartbeat_url: str = "",
    ) -> None:
        self.stores = stores
        self.redis = redis
        self.rules = rules
        self.plans = plans
        self.policy = policy
        self.base_url = base_url
        self.templates = templates
        self.folder = folder
        self.heartbeat_url = heartbeat_url
        self.name = name
        self.lanes: Lanes | None = None
        self.stopping = Event()  # nothing new is to be begun
        self._conn: Connection | None = None

    def twin(self, name: str) -> "Process":
        """The same with a connection of its own, for a thread beside this one. Both are told to stop together."""
        twin = Process(
            self.stores,
            self.redis,
            self.rules,
            self.plans,
            name,
            self.policy,
            self.base_url,
            templates=self.templates,
        )
        twin.stopping = self.stopping
        return twin

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

    def store(self, work: Callable[[Connection], T]) -> T:
        """Do `work` on the connection. Where Postgres went away, wait for it once.

        Raises StoreAwayError or RefusedError, without the row's contents that Postgres quotes.
        """
        for attempt in range(TRIES):
            try:
                return work(self.conn())
            except (psycopg.Error, StoreAwayError) as error:
                self.drop()
                if isinstance(error, psycopg.Error) and refused(error):
                    raise RefusedError(type(error).__name__) from None
                reason = error if isinstance(error, StoreAwayError) else away(error)
                if attempt and DEADLOCKED not in str(reason):
                    raise reason from None
                log.warning("store_error", error=str(reason))
                self.wait(PATIENCE.total_seconds())
        raise StoreAwayError(f"deadlocked {TRIES} times")

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
