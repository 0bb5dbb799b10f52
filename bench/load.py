"""Drive a receiver over raw sockets, from a process of its own: every request is signed before the clock starts.

Closed loop: each connection sends again when it was answered, which finds the throughput. Open loop: requests are due
at fixed moments and their latency counts from then on, answered late or sent late, so a stalled receiver cannot hide
by being sent less ("coordinated omission"). With `retry`, what was not acknowledged is signed and sent anew, as Stripe
does. Reads answers by their bytes; knows nothing of chunked ones.
"""

import asyncio
import gc
import heapq
import os
import random
import subprocess
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import msgspec
import uvloop
from msgspec import Struct

from bench import machine, traffic
from bench.report import quantile

TICK = 0.001  # seconds; how late an open loop may be by itself
PATIENCE = 10.0  # seconds for an answer
FIRST_RETRY, LONGEST_RETRY = 0.25, 2.0  # seconds
_TARDY_EVERY = 0.5  # seconds between looks for answers that do not come


class Plan(Struct, frozen=True, kw_only=True):
    """What to send. `rate` is events a second, 0 for a closed loop; `seconds` ends a closed loop, which then cycles."""

    port: int
    events: str  # a file of traffic.make
    first: int = 0
    count: int
    again: float = 0.0  # the share that is sent twice; all are shuffled then
    rate: float = 0.0
    seconds: float = 0.0
    connections: int = 64
    retry: bool = False
    limit: float = 120.0  # seconds; what is not answered by then never was


class Outcome(Struct, frozen=True):
    """What came back. `unanswered` are events (their places in the file) that were never acknowledged."""

    seconds: float
    answered: int
    statuses: dict[str, int]
    p50: float  # milliseconds, of what was acknowledged
    p99: float
    longest: float
    busy: float  # share of its core that the generator used: near 1 it measured itself
    unanswered: tuple[int, ...]

    @property
    def rate(self) -> float:
        """Acknowledged requests a second."""
        return self.statuses.get("200", 0) / self.seconds

    @property
    def refused(self) -> int:
        """Attempts that were not acknowledged, whatever came instead."""
        return sum(self.statuses.values()) - self.statuses.get("200", 0)

    @property
    def errors(self) -> int:
        """Answers of 500 and above."""
        return sum(count for status, count in self.statuses.items() if status.startswith("5"))


class Load:
    """The generator's process, ready to go."""

    def __init__(self, plan: Plan, core: int | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        if core is not None:
            machine.pin(self._process.pid, core)
        self._say(msgspec.json.encode(plan))
        self._hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def go(self) -> None:
        self._say(b"go")

    def wait(self) -> Outcome:
        """What came of it; the plan's limit bounds the wait."""
        return msgspec.json.decode(self._hear(), type=Outcome)

    def run(self) -> Outcome:
        self.go()
        return self.wait()

    def _say(self, line: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def _hear(self) -> bytes:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator died")
        return line


class _Shot(Struct, eq=False):
    """One event to be acknowledged."""

    place: int
    request: bytes
    due: float = 0.0  # when it was to be sent; latency counts from here
    attempts: int = 0


class _Connection(asyncio.Protocol):
    """One kept connection with one request in flight at most."""

    def __init__(self, generator: "Generator") -> None:
        self._generator = generator
        self._received = b""
        self._usual = b"-"
        self.transport: asyncio.Transport | None = None
        self.shot: _Shot | None = None
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own, which is none by inheritance
        self._generator.free(self)

    def send(self, shot: _Shot, now: float) -> None:
        assert self.transport
        self.shot, self.sent = shot, now
        self.transport.write(shot.request)

    def data_received(self, data: bytes) -> None:
        if data == self._usual:  # byte for byte the last 200, which was read in full
            self._answered("200")
            return
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        if head.startswith(b"HTTP/1.1 200"):
            self._usual = self._received
        self._received = b""
        self._answered(head[9:12].decode())

    def _answered(self, status: str) -> None:
        shot, self.shot = self.shot, None
        if shot:
            self._generator.answered(shot, status)
        self._generator.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        shot, self.shot = self.shot, None
        self._generator.lost(self, shot)


class Generator:
    """Matches events that are due with connections that are free."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._bodies = traffic.bodies(Path(plan.events), plan.first, plan.count)
        order = list(range(len(self._bodies)))
        if plan.again:
            shuffle = random.Random(1)
            order += shuffle.sample(order, int(len(order) * plan.again))
            shuffle.shuffle(order)
        self._coming = deque(_Shot(place, traffic.post(self._bodies[place], plan.port)) for place in order)
        self._open = len(order)  # shots that are not settled
        self._ready: deque[_Shot] = deque()
        self._retries: list[tuple[float, int, _Shot]] = []
        self._free: deque[_Connection] = deque()
        self._connections: set[_Connection] = set()
        self._latencies = array("d")
        self._statuses: Counter[str] = Counter()
        self._began = self._end = self._tardy = 0.0
        self._sent = 0
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self) -> None:
        """Open the connections. Raises TimeoutError where nobody listens."""
        async with asyncio.timeout(PATIENCE):
            for _ in range(self.plan.connections):
                await self._connect()

    async def run(self) -> Outcome:
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection over all the requests would be counted as the receiver's
        work, self._began = time.process_time(), time.perf_counter()
        self._end = self._began + (self.plan.seconds or self.plan.limit)
        ticker = asyncio.create_task(self._tick())
        if not self.plan.rate:
            self._match()
        await self._done.wait()
        seconds = time.perf_counter() - self._began
        busy = (time.process_time() - work) / seconds
        ticker.cancel()
        unanswered = {shot.place for shot in self._left()} if not self.plan.seconds else set()
        latencies = list(self._latencies)
        return Outcome(
            seconds=seconds,
            answered=sum(count for status, count in self._statuses.items() if status.isdigit()),
            statuses=dict(self._statuses),
            p50=quantile(latencies, 0.5) * 1000,
            p99=quantile(latencies, 0.99) * 1000,
            longest=max(latencies, default=0.0) * 1000,
            busy=busy,
            unanswered=tuple(sorted(unanswered)),
        )

    def free(self, connection: _Connection) -> None:
        """The connection can take the next request."""
        self._connections.add(connection)
        shot = self._next()
        if shot is None or connection.transport is None or connection.transport.is_closing():
            if shot:
                self._ready.appendleft(shot)
            self._free.append(connection)
            return
        connection.send(shot, time.perf_counter())

    def answered(self, shot: _Shot, status: str) -> None:
        self._statuses[status] += 1
        if status == "200":
            self._latencies.append(time.perf_counter() - shot.due)
            self._settle(shot)
        else:
            self._refused(shot)

    def lost(self, connection: _Connection, shot: _Shot | None) -> None:
        """The connection broke, with this request unanswered; another one takes its place."""
        self._connections.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if shot:
            self._statuses["broken connection"] += 1
            self._refused(shot)
        if not self._done.is_set():
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> _Shot | None:
        """What to send now, None where nothing is due."""
        if not self._began or self._done.is_set():
            return None
        if self.plan.rate or not self._coming:
            return self._ready.popleft() if self._ready else None
        now = time.perf_counter()
        if self.plan.seconds and now >= self._end:
            self._done.set()
            return None
        shot = self._coming.popleft()
        shot.due = now
        return shot

    def _settle(self, shot: _Shot) -> None:
        if self.plan.seconds:
            self._coming.append(shot)
            return
        self._open -= 1
        if not self._open:
            self._done.set()

    def _refused(self, shot: _Shot) -> None:
        if not self.plan.retry:
            self._settle(shot)
            return
        shot.attempts += 1
        wait = min(LONGEST_RETRY, FIRST_RETRY * 2 ** (shot.attempts - 1))
        heapq.heappush(self._retries, (time.perf_counter() + wait, id(shot), shot))

    def _left(self) -> Iterator[_Shot]:
        yield from self._coming
        yield from self._ready
        yield from (shot for _, _, shot in self._retries)
        yield from (connection.shot for connection in self._connections if connection.shot)

    def _match(self) -> None:
        while self._free:
            shot = self._next()
            if shot is None:
                return
            connection = self._free.popleft()
            if connection.transport is None or connection.transport.is_closing():
                self._ready.appendleft(shot)
                continue
            connection.send(shot, time.perf_counter())

    async def _tick(self) -> None:
        while not self._done.is_set():
            now = time.perf_counter()
            if now >= self._end:
                self._done.set()
                return
            while self.plan.rate and self._coming and self._began + self._sent / self.plan.rate <= now:
                shot = self._coming.popleft()
                shot.due = self._began + self._sent / self.plan.rate
                self._sent += 1
                self._ready.append(shot)
            while self._retries and self._retries[0][0] <= now:
                shot = heapq.heappop(self._retries)[2]
                shot.request = traffic.post(self._bodies[shot.place], self.plan.port)
                self._ready.append(shot)
            if self._ready:
                self._match()
            if now >= self._tardy:
                self._tardy = now + _TARDY_EVERY
                self._cut_tardy(now)
            await asyncio.sleep(TICK)

    def _cut_tardy(self, now: float) -> None:
        for connection in list(self._connections):
            if connection.shot and connection.transport and now - connection.sent > PATIENCE:
                connection.transport.abort()

    async def _connect(self) -> None:
        """Try until it is open; a receiver that is away refuses each try at once."""
        loop = asyncio.get_running_loop()
        while not self._done.is_set():
            try:
                await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.plan.port)
            except OSError:
                self._statuses["refused connection"] += 1
                await asyncio.sleep(FIRST_RETRY)
            else:
                return


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


@contextmanager
def prepared(plan: Plan, core: int | None = None) -> Iterator[Load]:
    """A generator that has signed its requests and opened its connections."""
    with Load(plan, core) as load:
        yield load


async def _main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    generator = Generator(plan)
    await generator.prepare()
    _tell(b"ready")
    if sys.stdin.buffer.readline():
        _tell(msgspec.json.encode(await generator.run()))


def _tell(line: bytes) -> None:
    os.write(sys.stdout.fileno(), line + b"\n")


if __name__ == "__main__":
    uvloop.run(_main())
