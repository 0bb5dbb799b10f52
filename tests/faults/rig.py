"""The whole program as real processes on servers of its own, to be killed, stopped and counted.

Every fault is a signal to a process. The one thing that is not waited for is the minute and a half after which RQ
believes that a worker is dead: `pass_time` moves the clocks that Redis keeps of it.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import psycopg
from psycopg import Connection, sql
from redis import Redis

from billingwatch import embedded
from billingwatch.embedded import pulse
from billingwatch.queues import EVENTS, QUEUES, Queue
from billingwatch.rules import Rules
from billingwatch.schema import migrate
from billingwatch.settings import Stores
from billingwatch.store.connection import connect
from detectors.registry import configure
from tests.faults.audit import Audit, audit
from tests.faults.sender import SECRET, Post, Stripe
from tests.waiting import until
from worker.process import Process
from worker.runner import Runner

ROOT = str(Path(__file__).resolve().parents[2])
TEMPLATE = "billingwatch_faults"
START = 40.0  # seconds that a process may take to be ready on a busy machine
# What a killed process had written stays in the system's memory: to sync it is for machines that lose their power.
SETTINGS = {"fsync": "off"}
ABANDONED = 120.0  # seconds after which RQ believes, at the latest, that whoever took a job is dead


PLANS, _ = configure({})


class Program:
    """One process of a Python module, and the children that its supervisor has."""

    def __init__(self, command: tuple[str, ...], environment: dict[str, str], folder: Path) -> None:
        self._children: set[int] = set()
        with (folder / "programs.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self, words: str = "") -> list[int]:
        """Process ids of the living children whose command line holds `words`."""
        rows = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="], check=True, capture_output=True, text=True
        )
        found = []
        for row in rows.stdout.splitlines():
            pid, parent, state, command = row.split(None, 3)
            if int(parent) == self.pid and not state.startswith("Z") and words in command:
                found.append(int(pid))
        self._children |= set(found)
        return found

    def wait(self, seconds: float = 60.0) -> int:
        """The exit code. Raises TimeoutExpired when it goes on."""
        return self.process.wait(seconds)

    def stop(self) -> None:
        """End it and its children, however deaf they are."""
        if self.process.poll() is None:
            self.children()
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with suppress(AssertionError):
            until(lambda: not any(map(alive, self._children)), 10)
        for pid in filter(alive, self._children):
            kill(pid)


class Rig:
    """The servers of a folder, a database and a Redis there, and the processes that were started on both."""

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.database_url = database_url
        self.redis_url = redis_url
        self.redis = Redis.from_url(redis_url)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("BILLINGWATCH", "STRIPE"))},
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "PYTHONPATH": os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")])),
        }
        self._programs: list[Program] = []

    def close(self) -> None:
        """End every process that was started here; the servers go on."""
        if pid := embedded.valkey_pid(self.folder):
            os.kill(pid, signal.SIGCONT)
        for program in reversed(self._programs):
            program.stop()
        self.redis.close()

    # processes

    def start(self, *arguments: str, module: str = "billingwatch") -> Program:
        program = Program((module, *arguments), self.environment, self.folder)
        self._programs.append(program)
        return program

    def up(self, *options: str) -> Program:
        """Everything on these servers, once it can acknowledge."""
        program = self.start("up", "--port", str(self.port), "--console-port", "0", *options)
        self.wait_ready()
        return program

    def wait_ready(self) -> None:
        until(self.is_ready, START)

    def is_ready(self) -> bool:
        """Whether the receiver says that it can acknowledge."""
        with suppress(OSError), urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    # servers

    def start_postgres(self) -> str:
        return embedded.start_postgres(self.folder, SETTINGS)

    def stop_postgres(self) -> None:
        embedded.stop_postgres(self.folder)

    def kill_postgres(self) -> None:
        """Kill the postmaster; its backends find out by themselves."""
        kill(embedded.postgres_pid(self.folder))

    def backends(self) -> list[int]:
        """The server's processes that work for the program."""
        with self.connect() as conn:
            rows = conn.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return [pid for (pid,) in rows]

    def start_valkey(self) -> str:
        return embedded.start_valkey(self.folder)

    def kill_valkey(self) -> None:
        kill(embedded.valkey_pid(self.folder))

    @contextmanager
    def missing_valkey(self) -> Iterator[None]:
        """Inside, there is no Valkey: connections are refused."""
        self.kill_valkey()
        try:
            yield
        finally:
            self.start_valkey()

    @contextmanager
    def full_valkey(self) -> Iterator[None]:
        """Inside, Valkey answers and takes no write."""
        kept = str(self.redis.config_get("maxmemory")["maxmemory"])
        self.redis.config_set("maxmemory", 1)
        try:
            yield
        finally:
            self.redis.config_set("maxmemory", kept)

    @contextmanager
    def hanging_valkey(self) -> Iterator[None]:
        """Inside, Valkey takes connections and answers nothing."""
        pid = embedded.valkey_pid(self.folder)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def blocked_store(self, workers: int = 1) -> Iterator[None]:
        """Inside, so many events workers are stuck in the middle of their transaction."""
        with psycopg.connect(self.database_url) as holder, self.connect() as watcher:
            holder.execute("LOCK TABLE rollups IN SHARE MODE")
            until(lambda: len(self._stuck(watcher)) >= workers, START)
            yield
            holder.rollback()

    def _stuck(self, conn: Connection) -> list[int]:
        rows = conn.execute(
            """
            SELECT pid FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name LIKE '%worker events'
            """
        )
        return [pid for (pid,) in rows]

    def connect(self) -> Connection:
        return connect(self.database_url, "rig")

    # what is under way

    def load(self, posts: Sequence[Post], rate: float, **options: float) -> Stripe:
        return Stripe(self.port, posts, rate, **options)

    def queue(self, name: str = EVENTS) -> Queue:
        return Queue(name, self.redis)

    def unfinished(self) -> int:
        """Events jobs that wait, are worked on, or were left behind by the dead."""
        queue = self.queue()
        ids = {
            *self.redis.lrange(queue.key, 0, -1),
            *self.redis.lrange(queue.intermediate_queue_key, 0, -1),
            *(id_.encode() for id_ in queue.started_job_registry.get_job_ids(cleanup=False)),
        }
        return len(ids)

    def failed(self) -> int:
        return sum(len(self.queue(name).failed_job_registry) for name in QUEUES)

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until every job was worked on, by nothing but the program."""
        until(lambda: not self.unfinished(), seconds)

    def recover(self, seconds: float = 60.0) -> None:
        """Wait until every job was worked on, those of killed workers included, whose time is made to pass."""
        until(lambda: not len(self.queue()), seconds)
        for _ in range(2):  # RQ wants to see an orphan twice
            pass_time(self.redis, ABANDONED)
            self.maintain()

        def finished() -> bool:
            self.maintain()
            return not self.unfinished()

        until(finished, seconds)

    def maintain(self) -> None:
        """Do what every worker does each few seconds."""
        process = Process(Stores(self.database_url, self.redis_url), self.redis, Rules(), PLANS, "rig")
        for name in QUEUES:
            Runner(self.queue(name), process).clean_registries()  # type: ignore[no-untyped-call]

    def audit(self, acked: Iterable[str]) -> Audit:
        with self.connect() as conn:
            return audit(conn, acked)


def fresh(folder: Path, name: str) -> Rig:
    """A rig with nothing in its database or Redis; its servers are started where they do not run."""
    server = embedded.start_postgres(folder, SETTINGS)
    with connect(database_url(server, "postgres"), "rig") as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, TEMPLATE))))
    rig = Rig(folder, database_url(server, name), embedded.start_valkey(folder))
    rig.redis.flushall()
    return rig


def pass_time(redis: Redis, seconds: float) -> None:
    """Make Redis believe that it is `seconds` later for every job that was begun or taken."""
    for name in QUEUES:
        queue = Queue(name, redis)
        registry = queue.started_job_registry.key
        for entry in queue.started_job_registry.connection.zrange(registry, 0, -1):
            redis.zadd(registry, {entry: -seconds}, xx=True, incr=True)
        for key in redis.scan_iter(match=f"{queue.intermediate_queue_key}:first_seen:*"):
            redis.incrbyfloat(key, -seconds)
        redis.delete(queue.registry_cleaning_key)  # a lock of a worker that was killed at maintenance


def make_template(folder: Path) -> None:
    """The database that each rig's is copied from, with the newest schema."""
    server = embedded.start_postgres(folder, SETTINGS)
    with connect(database_url(server, "postgres"), "rig") as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    migrate(database_url(server, TEMPLATE))


def database_url(server: str, name: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


def kill(pid: int | None) -> int:
    """Kill it as the kernel would, and answer its id."""
    assert pid is not None, "nothing runs that could be killed"
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    pulse.reap(pid)
    return pid


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], check=False, capture_output=True, text=True)
    return shown.stdout.strip()[:1] not in ("", "Z")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
