"""Tell a watcher elsewhere that BillingWatch lives: a ping a minute, as Healthchecks and its like expect it.

Only what nobody here can tell is told this way: that the clock stands, or that no alert can leave. The address is a
secret, and stands in no log.
"""

import logging
import threading
from datetime import datetime
from functools import cache
from urllib.parse import urlsplit, urlunsplit

import structlog
import urllib3
from msgspec import Struct
from psycopg import Connection

from billingwatch.model import OWN, SEVERITIES
from billingwatch.store import incidents

log = structlog.get_logger(__name__)

LIMIT = 10.0  # seconds
LINGERING = 3  # pings that a server may keep open by sending a byte now and then, which no limit ends
GRAVE = SEVERITIES[SEVERITIES.index("high") :]


class Tally(Struct):
    """What became of the pings so far; `error` is why the last one failed, "" where it arrived."""

    arrived: int = 0
    failed: int = 0
    error: str = ""


class Heartbeat:
    """Pings from a thread of its own, so that whoever calls never waits for it."""

    def __init__(self, url: str, limit: float = LIMIT) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(total=limit), headers={"User-Agent": "BillingWatch"}
        )
        self._threads: list[threading.Thread] = []
        self.tally = Tally()
        _hush()

    def run_once(self, conn: Connection, now: datetime) -> bool:
        """Ping, that all is well or what is not; False where there is no address, and where too many pings have not
        ended: then it is a failed one.
        """
        if not self._url:
            return False
        trouble = grave(conn)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= LINGERING:
            self._failed("earlier pings have not ended")
            return False
        thread = threading.Thread(target=self._ping, args=(trouble,), name="heartbeat", daemon=True)
        self._threads.append(thread)
        thread.start()
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until the newest ping has ended; whether it has."""
        for thread in self._threads[-1:]:
            thread.join(seconds)
        return not any(thread.is_alive() for thread in self._threads[-1:])

    def _ping(self, trouble: str) -> None:
        method, url, body = ("POST", failing(self._url), trouble.encode()) if trouble else ("GET", self._url, None)
        try:
            answer = self._pool.request(method, url, body=body, redirect=False, preload_content=False)
            status = answer.status
            answer.close()  # nothing of it is read
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return self._failed(type(error).__name__)  # its text quotes the address
        if 200 <= status < 300:
            return self._arrived()
        return self._failed(f"status {status}")

    def _arrived(self) -> None:
        if self.tally.error:
            log.info("heartbeat_arrives_again", failed=self.tally.failed)
        self.tally = Tally(self.tally.arrived + 1, self.tally.failed)

    def _failed(self, error: str) -> None:
        if not self.tally.error:
            log.error("heartbeat_failed", why=error, hint="does BILLINGWATCH_HEARTBEAT_URL name a check that exists?")
        self.tally = Tally(self.tally.arrived, self.tally.failed + 1, error)


def grave(conn: Connection) -> str:
    """What is badly wrong with BillingWatch itself, a line each; "" where nothing is."""
    found = [each for each in incidents.read_open(conn, OWN) if each.severity in GRAVE]
    return "\n".join(f"{each.detector}{' ' if each.scope else ''}{each.scope}: {each.severity}" for each in found)


def failing(url: str) -> str:
    """The address that says that something is wrong: `…/fail`, before what the address asks."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/fail"))


@cache
def _hush() -> None:
    """Keep urllib3's log lines to ourselves: they quote addresses, at debug level and in some warnings."""
    logger = logging.getLogger("urllib3")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())  # else Python prints warnings to stderr
