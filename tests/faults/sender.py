"""A sender that behaves as Stripe does: signed, at a rate of its own, and again and again until a 2xx.

It keeps the list of what was acknowledged, which is what the receiver promised, and every single answer.
"""

import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from billingwatch.signing import sign
from billingwatch.simulator.stream import Scenario, simulate
from tests.waiting import until

SECRET = "whsec_faults"
PATIENCE = 20.0  # seconds that Stripe waits for an answer
PAUSE = 0.1  # seconds before an event is sent again; Stripe's are minutes, which no test has
CONNECTIONS = 16
NO_ANSWER = 0  # the status of a delivery that was refused, cut off or not answered in time


class Post(NamedTuple):
    id: str
    body: bytes


class Answer(NamedTuple):
    """What one attempt met with. `began` and `ended` are monotonic seconds."""

    id: str
    status: int
    began: float
    ended: float
    again: bool  # whether its connection had carried an answer before

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def make_posts(count: int, seed: int = 7) -> list[Post]:
    """So many distinct events of a busy simulated shop, of the last days, in their order."""
    scenario = Scenario(seed=seed, start=int(time.time()) - 3 * 86_400, days=3, volume=4000)
    encode = msgspec.json.Encoder().encode
    posts = [Post(event["id"], encode(event)) for event in itertools.islice(simulate(scenario), count)]
    assert len({post.id for post in posts}) == count
    return posts


class Stripe:
    """Sends `posts` to the port, `rate` a second, from the moment the block is entered until it is left.

    Leaving the block waits until everything that was begun is acknowledged, within `finish` seconds.
    """

    def __init__(
        self, port: int, posts: Sequence[Post], rate: float, *, patience: float = PATIENCE, finish: float = 30.0
    ) -> None:
        self.acked: list[str] = []
        self.answers: list[Answer] = []
        self.begun = 0
        self._port = port
        self._posts = iter(posts)
        self._rate = rate
        self._patience = patience
        self._finish = finish
        self._start = 0.0
        self._enough = threading.Event()
        self._give_up = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), name="stripe")

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._enough.set()
        self._thread.join(self._finish if error is None else 0.0)
        self._give_up = True
        self._thread.join(self._patience + 5)
        assert error is not None or len(self.acked) == self.begun, (
            f"of {self.begun} events {len(self.acked)} were acknowledged; {self.statuses()}"
        )

    def wait_for(self, count: int, seconds: float = 30.0) -> None:
        """Wait until so many events were acknowledged."""
        until(lambda: len(self.acked) >= count, seconds)

    def send_all(self) -> None:
        """Wait until every post was acknowledged."""
        self._thread.join(self._patience + self._finish)

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    def since(self, moment: float) -> list[Answer]:
        """The answers to what was sent after this monotonic moment."""
        return [answer for answer in list(self.answers) if answer.began >= moment]

    async def _send(self) -> None:
        await asyncio.gather(*(self._deliver_all() for _ in range(CONNECTIONS)))

    async def _deliver_all(self) -> None:
        """One connection's work: take the next event when it is due, and send it until it is taken."""
        connection = Connection(self._port)
        while not self._enough.is_set():
            ahead = self._start + self.begun / self._rate - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(min(ahead, 0.05))
                continue
            post = next(self._posts, None)
            if post is None:
                break
            self.begun += 1
            for pause in itertools.repeat(PAUSE):
                if await self._deliver(connection, post) or self._give_up:
                    break
                await asyncio.sleep(pause)
        connection.close()

    async def _deliver(self, connection: "Connection", post: Post) -> bool:
        began, again = time.monotonic(), connection.used
        try:
            async with asyncio.timeout(self._patience):
                status = await connection.post(post.body)
        except (OSError, EOFError, TimeoutError):
            connection.close()
            status = NO_ANSWER
        self.answers.append(Answer(post.id, status, began, time.monotonic(), again))
        if status == 200:
            self.acked.append(post.id)
        return status == 200


class Connection:
    """A kept connection; HTTP by hand, so that the sender costs little beside what it tests."""

    def __init__(self, port: int) -> None:
        self.used = False
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, body: bytes, path: str = "/webhook") -> int:
        """The answer's status. Raises OSError or EOFError where the connection ended before the answer did."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Stripe-Signature: {sign(body, SECRET, int(time.time()))}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        await self._reader.readexactly(int(answer.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
        self.used = True
        if b"connection: close" in answer:
            self.close()
        return int(answer.split(b" ", 2)[1])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None
        self.used = False


def post_once(port: int, body: bytes, patience: float = PATIENCE) -> int:
    """The status of one delivery on a connection of its own; NO_ANSWER where none came."""

    async def post() -> int:
        connection = Connection(port)
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(patience):
                return await connection.post(body)
        return NO_ANSWER

    return asyncio.run(post())
