"""Wait for a condition, or for threads that begin together; never for a span of time."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 20.0  # seconds; a machine under load is slow, a broken program is late for ever


def until(condition: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """The condition's first answer that is true; fails when there is none within `seconds`."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"did not become true within {seconds:g} s"
        time.sleep(0.02)
    return answer


def together(*works: Callable[[], T]) -> list[T]:
    """Do all of it at the same moment, each in a thread of its own; the results in order."""
    start = Barrier(len(works))

    def run(work: Callable[[], T]) -> T:
        start.wait(PATIENCE)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        running = [pool.submit(run, work) for work in works]
        return [each.result(PATIENCE) for each in running]
