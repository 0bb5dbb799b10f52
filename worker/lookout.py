"""While Redis does not answer, nobody can wake the channels: an alerts worker looks into the outbox by itself.

That webhooks are refused is what people must hear of first. The claims stand in Postgres, so that with any number of
workers that look, each message is sent once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event, Thread

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from billingwatch.store import outbox
from worker.lanes import Lanes
from worker.process import Process

log = structlog.get_logger(__name__)

EVERY = 2.0  # seconds between two looks
TIMEOUT = 2.0  # seconds after which Redis counts as away


class Lookout:
    """Starts the channels for which something is due, as long as Redis does not answer."""

    def __init__(self, process: Process, lanes: Lanes) -> None:
        self.away = False
        self._process = process
        self._lanes = lanes
        # Its own, for it has to hear soon that nobody answers; one that waits for jobs is patient.
        self._redis = Redis.from_url(
            process.stores.redis_url,
            socket_connect_timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )

    def run_once(self, now: datetime) -> list[str]:
        """The channels that were started. Raises StoreAwayError where Postgres is away, too."""
        try:
            self._redis.ping()
        except (RedisError, OSError) as error:
            if not self.away:
                log.warning("redis_away", error=type(error).__name__, hint="alerts are sent nevertheless")
            self.away = True
        else:
            if self.away:
                log.info("redis_back")
            self.away = False
            return []
        channels = self._process.store(lambda conn: outbox.due_channels(conn, now))
        for channel in channels:
            self._lanes.start(channel)
        return channels

    def run(self, stop: Event) -> None:
        """Look, and again until `stop` is set; close what was opened for it."""
        try:
            while True:
                try:
                    self.run_once(datetime.now(UTC))
                except Exception as error:  # noqa: BLE001 - whatever it is, the next look may find what is due
                    log.error("lookout_failed", error=type(error).__name__)
                if stop.wait(EVERY):
                    return
        finally:
            self._redis.close()
            self._process.drop()


@contextmanager
def looking(process: Process, lanes: Lanes) -> Iterator[None]:
    """Inside, a thread looks; at the end it has stopped."""
    stop = Event()
    lookout = Lookout(process.twin(f"{process.name} lookout"), lanes)
    thread = Thread(target=lookout.run, args=(stop,), name="lookout", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
