"""An alerts worker looks into the outbox by itself, for what nobody woke its channel for.

Whoever wakes channels needs a Redis that takes writes. Where it does not answer, is full or refuses, that is what
people must hear of first. The claims stand in Postgres, so that with any number of workers that look, each message is
sent once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import structlog

from billingwatch.store import outbox
from worker.lanes import Lanes
from worker.process import Process

log = structlog.get_logger(__name__)

EVERY = 1.0  # seconds between two looks
OVERDUE = timedelta(seconds=1)  # what is due for longer was not woken: the clock looks four times a second


def look(process: Process, lanes: Lanes, now: datetime) -> None:
    """Start the channels for which something is overdue. Raises StoreAwayError."""
    for channel in process.store(lambda conn: outbox.due_channels(conn, now - OVERDUE)):
        lanes.start(channel)


@contextmanager
def looking(process: Process, lanes: Lanes) -> Iterator[None]:
    """Inside, a thread looks until the process is told to stop; at the end it has stopped.

    A worker that cannot stop at once, since Redis hangs, begins nothing any more: it may be killed before that ends.
    """
    over = Event()
    own = process.twin(f"{process.name} lookout")
    thread = Thread(target=_run, args=(own, lanes, over), name="lookout", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _run(process: Process, lanes: Lanes, over: Event) -> None:
    try:
        while not process.stopping.is_set():
            try:
                look(process, lanes, datetime.now(UTC))
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may find what is due
                log.error("lookout_failed", error=type(error).__name__)
            if over.wait(EVERY):
                return
    finally:
        process.drop()
