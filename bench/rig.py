"""What is measured: real servers in a folder of their own and the pipeline's processes, started as users start them.

Waits on conditions with an end. Whatever it started it stops, and what it is killed over stops by itself.
"""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import Connection
from redis import Redis

from bench import machine, traffic
from billingwatch import embedded
from billingwatch.queues import EVENTS, Queue
from billingwatch.schema import migrate
from billingwatch.signing import sign
from billingwatch.store.connection import connect
from billingwatch.supervisor import PARENT

WORKERS = ("events", "evaluate", "alerts")
EVERYTHING = ("ingest", *WORKERS, "clock")
SINK = "json://127.0.0.1:{port}"
READY = 30.0  # seconds for a process to start
GRACE = 45.0  # seconds for a process to stop

# Tells when each row was committed, so that the way from the receiver to the table is measured without watching it.
TIMED = {"track_commit_timestamp": "on"}


class Rig:
    """A folder, its servers, and the processes that were started on them, by name."""

    def __init__(self, folder: Path, database_url: str, redis_url: str, channel: str, config: str) -> None:
        self.folder = folder
        self.database_url = database_url
        self.redis_url = redis_url
        self.redis = Redis.from_url(redis_url)
        self.port = free_port()
        self._read, self._write = os.pipe()  # the children end when it does
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._log = (folder / "processes.log").open("ab")
        self._environment = {
            **os.environ,
            "REDIS_URL": redis_url,
            "DATABASE_URL": database_url,
            "STRIPE_WEBHOOK_SECRET": traffic.SECRET,
            "BILLINGWATCH_CONFIG": str(_written(folder / "billingwatch.toml", config)) if config else "",
            "BILLINGWATCH_APPRISE_URLS": channel,
            "LOG_LEVEL": "warning",
        }

    @property
    def traffic(self) -> Path:
        """Where the events to send are written."""
        return self.folder / "events.jsonl"

    def make(self, count: int, seed: int = 1) -> str:
        """Make the events to send; their file, as a plan wants it."""
        traffic.make(self.traffic, count, seed)
        return str(self.traffic)

    def start(self, name: str) -> int:
        """Start a process of the pipeline: the receiver, the clock, or the workers of a queue, supervised."""
        arguments = ["worker", name] if name in WORKERS else [name]
        if name == "ingest":
            arguments += ["--port", str(self.port)]
        return self.run(name, "billingwatch", *arguments)

    def run(self, name: str, *module: str) -> int:
        """Start `python -m MODULE …` under this name; its process id."""
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            env={**self._environment, PARENT: str(self._read)},
            stdout=self._log,
            stderr=self._log,
            pass_fds=(self._read,),
            start_new_session=True,
        )
        self._processes[name] = process
        return process.pid

    def start_all(self) -> None:
        """Start the whole pipeline and wait until it works."""
        for name in EVERYTHING:
            self.start(name)
        self.expect_ready("/readyz")
        expect(lambda: self.redis.scard("rq:workers") == len(WORKERS), READY, "the workers to start")

    def expect_ready(self, path: str) -> None:
        """Wait until the receiver answers there, whatever it says but an error of its own."""
        expect(lambda: answers(f"http://127.0.0.1:{self.port}{path}"), READY, f"an answer at {path}")

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def child(self, name: str) -> int:
        """The process that a supervisor started."""
        expect(lambda: machine.children(self.pid(name)) != [], READY, f"a child of {name}")
        return machine.children(self.pid(name))[0]

    def kill(self, name: str) -> None:
        """kill -9."""
        self._processes[name].kill()
        self._processes[name].wait(GRACE)

    def stop(self, *names: str) -> None:
        """SIGTERM to these, or to all, and wait until they are gone."""
        chosen = [self._processes.pop(name) for name in names or tuple(self._processes)]
        for process in chosen:
            process.terminate()
        for process in chosen:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(GRACE)

    def ended(self, name: str) -> bool:
        """Whether the process is over, by itself or not."""
        return self._processes[name].poll() is not None

    def post(self, body: bytes) -> None:
        """Deliver one event. Raises RuntimeError where it is not taken."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"stripe-signature": sign(body, traffic.SECRET, int(time.time()))}
            connection.request("POST", "/webhook", body, headers)
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != 200:
            raise RuntimeError(f"the receiver answered {status}")

    def connect(self) -> Connection:
        return connect(self.database_url, "bench")

    def stored(self) -> int:
        """How many events are stored; -1 while Postgres is away."""
        try:
            with self.connect() as conn:
                return number(conn, "SELECT count(*) FROM events")
        except (psycopg.Error, OSError, RuntimeError):
            return -1

    def backlog(self) -> int:
        """Jobs of events that wait or are worked on."""
        queue = Queue(EVENTS, self.redis)
        working = queue.started_job_registry.get_job_ids(cleanup=False)
        return len(queue) + int(self.redis.llen(queue.intermediate_queue_key)) + len(working)

    def close(self) -> None:
        try:
            self.stop()
        finally:
            os.close(self._write)
            os.close(self._read)
            self._log.close()
            self.redis.close()


@contextmanager
def rig(
    *,
    postgres: Mapping[str, str] | None = None,
    valkey: Mapping[str, str] | None = None,
    channel: str = "",
    config: str = "",
) -> Iterator[Rig]:
    """Servers with these settings, Postgres only where some are given (they may be empty), its schema the newest.

    `channel` is the Apprise URL that alerts go to; without one they are written to the processes' log. `config` is what
    the TOML file says.
    """
    folder = Path(tempfile.mkdtemp(prefix="billingwatch-bench-"))
    folder.chmod(0o755)  # root's Postgres runs as another user, who must be able to enter
    try:
        database_url = "" if postgres is None else embedded.start_postgres(folder, postgres)
        if database_url:
            migrate(database_url)
        started = Rig(folder, database_url, embedded.start_valkey(folder, valkey or {}), channel, config)
        try:
            yield started
        finally:
            started.close()
    finally:
        embedded.stop_valkey(folder)
        embedded.stop_postgres(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def number(conn: Connection, query: str, *arguments: object) -> int:
    """The one number that the query answers."""
    row = conn.execute(query.encode(), arguments or None).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def until(condition: Callable[[], bool], seconds: float, every: float = 0.02) -> bool:
    """Look until it is so (True) or the time is over (False)."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(every)
    return True


def expect(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look until it is so. Raises TimeoutError that says what never came."""
    if not until(condition, seconds):
        raise TimeoutError(f"waited {seconds:.0f} s for {what}")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own receiver on the loopback
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kill_server(pid: int | None) -> None:
    """kill -9 of a Postgres or Valkey."""
    if pid is None:
        raise RuntimeError("the server does not run")
    os.kill(pid, signal.SIGKILL)
