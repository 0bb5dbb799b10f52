"""One thread a channel that has something to be sent: a channel that hangs holds up nobody but itself."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

log = structlog.get_logger(__name__)

MOST = 32  # channels that are sent to at the same time; others wait for one of them to end


class Lanes:
    """Runs `work(channel)` for each channel that is started, never twice at once for the same."""

    def __init__(self, work: Callable[[str], None], most: int = MOST) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="lane")
        self._lock = threading.Lock()
        self._again: dict[str, bool] = {}  # by busy channel: whether it was started meanwhile

    def start(self, channel: str) -> None:
        """Have the channel worked on; where it is already, once more afterwards."""
        with self._lock:
            if channel in self._again:
                self._again[channel] = True
                return
            self._again[channel] = False
        self._pool.submit(self._run, channel)

    def _run(self, channel: str) -> None:
        while True:
            try:
                self._work(channel)
            except Exception as error:  # noqa: BLE001 - the outbox keeps what was not sent, and the clock comes back
                log.error("lane_failed", channel=channel, error=type(error).__name__)
            with self._lock:
                if not self._again[channel]:
                    del self._again[channel]
                    return
                self._again[channel] = False

    def close(self) -> None:
        """Wait until what is under way is done; nothing more is begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)
