"""Group commit: events that arrive while a flush is in flight share the next one; none is acknowledged before it.

One event costs one round trip when it is quiet, and a burst shares one, which is what makes AOF `always` affordable.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from billingwatch.queues import Received

MOST_EVENTS = 500  # a flush
MOST_BYTES = 4 << 20  # a flush; one event alone may be larger
MOST_WAITING = 20_000  # events; beyond it the receiver answers 503 rather than grow


class UnavailableError(Exception):
    """The event was not made durable; Stripe shall send it again."""


class GroupCommit:
    """Collects events and writes them with `flush`, one flush at a time.

    `flush` makes a batch durable. When it fails, everything that waits fails with it: the next delivery finds out
    anew whether Redis is back.
    """

    def __init__(self, flush: Callable[[Sequence[Received]], Awaitable[None]]) -> None:
        self._flush = flush
        self._events: list[Received] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._flusher: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self._events)

    async def put(self, event: Received) -> None:
        """Return once the event is durable. Raises UnavailableError when it is not."""
        if len(self._events) >= MOST_WAITING:
            raise UnavailableError("too many events wait")
        waiter = asyncio.get_running_loop().create_future()
        self._events.append(event)
        self._waiters.append(waiter)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._run())
        await waiter

    async def drain(self) -> None:
        """Wait until everything that was put is written or has failed."""
        if self._flusher is not None:
            await self._flusher

    async def _run(self) -> None:
        while self._events:
            size = self._batch_size()
            batch, self._events = self._events[:size], self._events[size:]
            waiters, self._waiters = self._waiters[:size], self._waiters[size:]
            try:
                await self._flush(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, every waiting request must hear of it
                failed, self._events, self._waiters = [*waiters, *self._waiters], [], []
                for waiter in failed:
                    if not waiter.done():
                        waiter.set_exception(UnavailableError(type(error).__name__))
            else:
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)

    def _batch_size(self) -> int:
        total = 0
        for size, event in enumerate(self._events[:MOST_EVENTS]):
            total += len(event.body)
            if size and total > MOST_BYTES:
                return size
        return min(len(self._events), MOST_EVENTS)
