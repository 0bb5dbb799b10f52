"""The ping a minute, to a real server: that all is well, what is not, and that nobody waits for it."""

import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from psycopg import Connection

from billingwatch.log import configure
from billingwatch.model import OWN
from billingwatch.settings import Logs
from billingwatch.store import incidents
from tests.factories import incident
from worker.heartbeat import LIMIT, LINGERING, Heartbeat, failing


class Watcher(ThreadingHTTPServer):
    """A check: keeps what it was sent, and answers as it is told to: a status, "hang" or "drip"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.mood = "200"
        self.seen: list[tuple[str, str, str]] = []
        self.asked = threading.Semaphore(0)
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ping/s3cret"


class Answer(BaseHTTPRequestHandler):
    server: Watcher

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.seen.append((self.command, self.path, body))
        self.server.asked.release()
        if self.server.mood == "hang":
            self.server.closing.wait(30)
        elif self.server.mood == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.server.closing.wait(0.02):
                self.wfile.write(b"x")
        else:
            self.send_response(int(self.server.mood))
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: tests read `seen`."""


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    server = Watcher()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join(10)
    server.server_close()


def ping(heartbeat: Heartbeat, conn: Connection, now: datetime) -> None:
    assert heartbeat.run_once(conn, now)
    assert heartbeat.wait(10)


def test_all_is_well(conn: Connection, watcher: Watcher, now: datetime) -> None:
    heartbeat = Heartbeat(watcher.url)
    ping(heartbeat, conn, now)
    assert watcher.seen == [("GET", "/ping/s3cret", "")]
    assert (heartbeat.tally.arrived, heartbeat.tally.failed) == (1, 0)


def test_grave_incident_about_billingwatch_itself_is_a_failure_that_says_which(
    conn: Connection, watcher: Watcher, now: datetime
) -> None:
    heartbeat = Heartbeat(watcher.url)
    incidents.open_incident(conn, incident())  # about an account: that is what alerts are for
    incidents.open_incident(conn, incident(tenant=OWN, detector="pipeline_lag", severity="medium"))
    ping(heartbeat, conn, now)
    id_ = incidents.open_incident(
        conn, incident(tenant=OWN, detector="worker_missing", scope="alerts", severity="critical")
    )
    assert id_ is not None
    ping(heartbeat, conn, now)
    incidents.set_state(conn, id_, ["open"], "acked", now)
    ping(heartbeat, conn, now)
    incidents.set_state(conn, id_, ["acked"], "resolved", now)
    ping(heartbeat, conn, now)
    well, fail = ("GET", "/ping/s3cret", ""), ("POST", "/ping/s3cret/fail", "worker_missing alerts: critical")
    assert watcher.seen == [well, fail, fail, well]
    assert heartbeat.tally.arrived == 4


def test_failures_are_counted_and_logged_once_without_the_address(
    conn: Connection, watcher: Watcher, now: datetime, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(Logs(level="debug"))  # at which urllib3 would write down every address
    heartbeat = Heartbeat(watcher.url)
    for watcher.mood in ("404", "500", "200"):
        ping(heartbeat, conn, now)
    assert (heartbeat.tally.arrived, heartbeat.tally.failed, heartbeat.tally.error) == (1, 2, "")
    logged = capsys.readouterr().err
    assert logged.count("heartbeat_failed") == 1
    assert "status 404" in logged
    assert "heartbeat_arrives_again" in logged
    assert "s3cret" not in logged


def test_redirect_is_not_followed(conn: Connection, watcher: Watcher, now: datetime) -> None:
    watcher.mood = "302"
    heartbeat = Heartbeat(watcher.url)
    ping(heartbeat, conn, now)
    assert [path for _, path, _ in watcher.seen] == ["/ping/s3cret"]
    assert heartbeat.tally.error == "status 302"


def test_nobody_there_is_a_failure_whose_words_hold_no_address(
    conn: Connection, closed_port: int, now: datetime
) -> None:
    heartbeat = Heartbeat(f"http://127.0.0.1:{closed_port}/s3cret")
    ping(heartbeat, conn, now)
    assert heartbeat.tally.error == "NewConnectionError"


def test_watcher_that_hangs_keeps_nobody_and_is_given_up(conn: Connection, watcher: Watcher, now: datetime) -> None:
    watcher.mood = "hang"
    heartbeat = Heartbeat(watcher.url, limit=1.0)
    assert heartbeat.run_once(conn, now)
    assert heartbeat.tally.failed == 0  # it was not waited for
    assert watcher.asked.acquire(timeout=10)
    assert heartbeat.wait(10)
    assert heartbeat.tally.error == "ReadTimeoutError"
    assert LIMIT == 10


def test_watcher_that_never_ends_its_answer_keeps_a_few_threads_at_most(
    conn: Connection, watcher: Watcher, now: datetime
) -> None:
    watcher.mood = "drip"
    heartbeat = Heartbeat(watcher.url)
    for _ in range(LINGERING):
        assert heartbeat.run_once(conn, now)
        assert watcher.asked.acquire(timeout=10)
    assert not heartbeat.run_once(conn, now)
    assert heartbeat.tally.error == "earlier pings have not ended"
    assert len(watcher.seen) == LINGERING


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hc-ping.com/1-2", "https://hc-ping.com/1-2/fail"),
        ("https://hc-ping.com/1-2/", "https://hc-ping.com/1-2/fail"),
        ("https://x.org/ping?key=1", "https://x.org/ping/fail?key=1"),
    ],
)
def test_failure_has_an_address_beside_the_ping(url: str, expected: str) -> None:
    assert failing(url) == expected


def test_without_an_address_nobody_is_asked(conn: Connection, now: datetime) -> None:
    heartbeat = Heartbeat("")
    assert not heartbeat.run_once(conn, now)
    assert (heartbeat.tally.arrived, heartbeat.tally.failed) == (0, 0)
