"""Group commit: no event is acknowledged before it is written, and a failure is everybody's who waits."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from billingwatch.queues import Received
from ingest import commit
from ingest.commit import GroupCommit, UnavailableError


class Store:
    """What flushes write to. A flush stays under way while the gate is shut, then fails if it was told to."""

    def __init__(self) -> None:
        self.batches: list[list[Received]] = []  # begun
        self.written: list[Received] = []
        self.under_way = 0
        self.most_under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def flush(self, batch: Sequence[Received]) -> None:
        self.batches.append([*batch])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
            if self.error:
                raise self.error
            self.written += batch
        finally:
            self.under_way -= 1


Story = Callable[[Store, GroupCommit], Awaitable[None]]


def play(story: Story) -> Store:
    """The story with a store and the commit in front of it; the store as it is afterwards."""

    async def run() -> Store:
        store = Store()
        await asyncio.wait_for(story(store, GroupCommit(store.flush)), timeout=30)
        return store

    return asyncio.run(run())


def event(number: int, size: int = 10) -> Received:
    return Received("default", float(number), b"x" * size)


def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)


async def turns(condition: Callable[[], object]) -> None:
    """Let the other tasks run until the condition holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("did not come true")


async def first_under_way(store: Store, group: GroupCommit) -> asyncio.Task[None]:
    """Event 0, in a flush that the shut gate holds."""
    store.gate.clear()
    first = start(group.put(event(0)))
    await turns(lambda: store.under_way)
    return first


def test_an_event_is_acknowledged_only_after_it_is_written() -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        first = await first_under_way(store, group)
        assert not first.done()
        store.gate.set()
        await first
        assert store.written == [event(0)]

    play(story)


def test_a_lone_event_does_not_wait_for_company() -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        for number in range(3):
            await group.put(event(number))

    assert play(story).batches == [[event(0)], [event(1)], [event(2)]]


def test_events_that_arrive_during_a_flush_share_the_next_one() -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        first = await first_under_way(store, group)
        rest = [start(group.put(event(number))) for number in range(1, 6)]
        await turns(lambda: group.waiting == 5)
        store.gate.set()
        await asyncio.gather(first, *rest)

    store = play(story)
    assert store.batches == [[event(0)], [event(number) for number in range(1, 6)]]
    assert store.most_under_way == 1


def test_one_flush_at_a_time_and_every_event_once_in_order() -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        await asyncio.gather(*(group.put(event(number)) for number in range(2345)))

    store = play(story)
    assert store.most_under_way == 1
    assert store.written == [event(number) for number in range(2345)]


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionError("refused"), ValueError("anything")])
def test_a_failed_flush_fails_everything_that_waits(error: Exception) -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        first = await first_under_way(store, group)
        rest = [start(group.put(event(number))) for number in range(1, 4)]
        await turns(lambda: group.waiting == 3)
        store.error = error
        store.gate.set()
        answers = await asyncio.gather(first, *rest, return_exceptions=True)
        assert [type(answer) for answer in answers] == [UnavailableError] * 4
        assert group.waiting == 0

    store = play(story)
    assert store.batches == [[event(0)]]
    assert store.written == []


def test_the_next_event_after_a_failure_tries_anew() -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        store.error = ConnectionError()
        with pytest.raises(UnavailableError):
            await group.put(event(0))
        store.error = None
        await group.put(event(1))

    assert play(story).written == [event(1)]


def test_an_answer_to_a_failure_names_the_kind_of_error_alone() -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        store.error = ConnectionError("redis://:secret@host")
        with pytest.raises(UnavailableError) as caught:
            await group.put(event(0))
        assert str(caught.value) == "ConnectionError"

    play(story)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_who_hangs_up_harms_nobody(gone: int) -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        waiters = [await first_under_way(store, group)]
        waiters += [start(group.put(event(number))) for number in (1, 2, 3)]
        await turns(lambda: group.waiting == 3)
        waiters[gone].cancel()
        await turns(waiters[gone].done)
        store.gate.set()
        answers = await asyncio.gather(*waiters, return_exceptions=True)
        assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [n == gone for n in range(4)]
        await group.put(event(4))

    assert play(story).written == [event(number) for number in range(5)]


def test_who_hangs_up_before_a_failure_harms_nobody() -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        first = await first_under_way(store, group)
        second = start(group.put(event(1)))
        await turns(lambda: group.waiting == 1)
        first.cancel()
        await turns(first.done)
        store.error = ConnectionError()
        store.gate.set()
        with pytest.raises(UnavailableError):
            await second

    play(story)


def test_a_flush_takes_so_many_events_and_no_more() -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        first = await first_under_way(store, group)
        rest = [start(group.put(event(number))) for number in range(commit.MOST_EVENTS * 2 + 1)]
        await turns(lambda: group.waiting == len(rest))
        store.gate.set()
        await asyncio.gather(first, *rest)

    assert [len(batch) for batch in play(story).batches] == [1, commit.MOST_EVENTS, commit.MOST_EVENTS, 1]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([1 << 20] * 9, [4, 4, 1]),
        ([(4 << 20) + 1], [1]),
        ([5 << 20, 10, 10, 5 << 20, 5 << 20], [1, 2, 1, 1]),
        ([4 << 20, 1, 4 << 20], [1, 1, 1]),
        ([(4 << 20) - 1, 1, 1], [2, 1]),
    ],
)
def test_a_flush_takes_so_many_bytes_but_one_event_at_least(sizes: list[int], batches: list[int]) -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        first = await first_under_way(store, group)
        rest = [start(group.put(event(number, size))) for number, size in enumerate(sizes)]
        await turns(lambda: group.waiting == len(sizes))
        store.gate.set()
        await asyncio.gather(first, *rest)

    assert [len(batch) for batch in play(story).batches] == [1, *batches]


def test_beyond_the_most_that_may_wait_an_event_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "MOST_WAITING", 3)

    async def story(store: Store, group: GroupCommit) -> None:
        first = await first_under_way(store, group)
        rest = [start(group.put(event(number))) for number in (1, 2, 3)]
        await turns(lambda: group.waiting == 3)
        with pytest.raises(UnavailableError):
            await group.put(event(4))
        store.gate.set()
        await asyncio.gather(first, *rest)
        await group.put(event(5))

    assert play(story).written == [event(number) for number in (0, 1, 2, 3, 5)]


def test_draining_waits_for_what_was_put() -> None:
    async def story(store: Store, group: GroupCommit) -> None:
        await group.drain()
        first = await first_under_way(store, group)
        second = start(group.put(event(1)))
        draining = start(group.drain())
        await turns(lambda: group.waiting == 1)
        assert not draining.done()
        store.gate.set()
        await draining
        assert store.written == [event(0), event(1)]
        await asyncio.gather(first, second)

    play(story)
