"""Send events to a receiver as Stripe does: signed, over kept connections, again and again until a 2xx.

Reads lines one at a time and keeps none. Refuses to try for ever: an event is given up after some attempts, and
the whole replay after many events in a row that nobody took. Logs nothing; a fault is told by line number and reason,
never by content.
"""

import math
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import msgspec
import urllib3
from msgspec import Struct

from billingwatch.signing import sign

FIRST_DELAY = 0.25  # seconds; doubles with each attempt
LONGEST_DELAY = 30.0
LONGEST_RETRY_AFTER = 60.0
LAST = 253_402_300_799  # the end of year 9999
HOPELESS = 64  # events in a row that were given up: nobody is there, or nobody will ever take them


class Sent(Struct, frozen=True):
    """What became of the lines. Latencies are of single requests that were answered 2xx, within 3 %."""

    sent: int  # events answered 2xx
    retried: int  # further attempts
    failed: int  # events given up
    malformed: int  # lines that hold no event
    seconds: float
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]  # status code, or the kind of connection error -> attempts it refused
    stopped: str = ""  # why lines were left unread: "interrupted", "nobody takes them"; "" when none were

    @property
    def per_second(self) -> float:
        """Events a second."""
        return self.sent / self.seconds if self.seconds else 0.0


class _Peek(Struct):
    """The few fields that are read of a line: an event's, or those of the envelope around it."""

    id: str = ""
    type: str = ""
    created: int | str = 0
    received_at: float | None = None
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Post(Struct, frozen=True):
    """An event that is to be sent, and when it happened (epoch seconds)."""

    body: bytes
    at: float


_peek = msgspec.json.Decoder(_Peek)


def read(line: bytes) -> Post:
    """Read one line of an event file: an event, or `{"received_at": SECONDS, "event": {…}}`.

    The event's bytes are kept as they stand. Raises ValueError with a reason that quotes nothing of the line.
    """
    try:
        found = _peek.decode(line)
        body, at = line.strip(), found.received_at
        if at is not None and not 0 <= at <= LAST:
            raise ValueError("received_at is out of range")
        if found.event is not msgspec.UNSET:
            body = bytes(found.event)
            found = _peek.decode(body)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None  # names a type and a path, never a value
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not JSON") from None
    if not found.id or not found.type:
        raise ValueError("no event: it has no id or no type")
    return Post(body, at if at is not None else _seconds(found.created))


def _seconds(created: int | str) -> float:
    """Snapshot events carry epoch seconds, thin events ISO time."""
    if isinstance(created, int):
        if not 0 <= created <= LAST:
            raise ValueError("created is out of range")
        return float(created)
    try:
        return datetime.fromisoformat(created).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("created is neither seconds nor ISO time") from None


def renew(body: bytes, at: float) -> bytes:
    """The event under a new id, created at `at`: a receiver that knows the old one will count this one, too."""
    event = msgspec.json.decode(body)
    event["id"] = event["id"].partition("_")[0] + "_" + secrets.token_hex(12)
    snapshot = isinstance(event.get("created"), int)
    event["created"] = int(at) if snapshot else time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at))
    return msgspec.json.encode(event)


class Pace(Struct):
    """When the next line may go: at a fixed `rate` a second, or `speed` times as fast as it happened, or at once."""

    rate: float | None = None
    speed: float | None = None
    turns: int = 0
    origin: float | None = None

    def due(self, at: float) -> float:
        """Seconds after the replay's start."""
        if self.rate:
            self.turns += 1
            return (self.turns - 1) / self.rate
        if self.speed:
            self.origin = at if self.origin is None else self.origin
            return (at - self.origin) / self.speed
        return 0.0


class _Tally(Struct):
    """What one thread has counted; added up at the end, so that threads share no lock for it."""

    sent: int = 0
    retried: int = 0
    failed: int = 0
    latencies: Counter[int] = msgspec.field(default_factory=Counter)  # by power of STEP
    statuses: Counter[str] = msgspec.field(default_factory=Counter)


_STEP = math.log(1.05)


class _Replay:
    """The lines, who may take the next, and when to stop."""

    def __init__(
        self, lines: Iterable[bytes], pace: Pace, malformed: Callable[[int, str], None], halt: threading.Event
    ) -> None:
        self._lines: Iterator[tuple[int, bytes]] = enumerate(lines, 1)
        self._lock = threading.Lock()
        self._pace = pace
        self._malformed = malformed
        self.bad = 0
        self.halt = halt
        self.start = time.monotonic()
        self._refused = 0
        self.stopped = ""

    def take(self) -> tuple[Post, float] | None:
        """The next event with the monotonic second it is due; None when there is none or it is time to stop."""
        with self._lock:
            while not self.halt.is_set():
                number, line = next(self._lines, (0, b""))
                if not number:
                    return None
                if not line.strip():
                    continue
                try:
                    post = read(line)
                except ValueError as error:
                    self.bad += 1
                    self._malformed(number, str(error))
                    continue
                return post, self.start + self._pace.due(post.at)
            return None

    def judge(self, taken: bool) -> None:
        """Hear whether an event was taken; too many in a row that were not end the replay."""
        if taken:
            self._refused = 0  # one store: no lock is needed
            return
        with self._lock:
            self._refused += 1
            if self._refused >= HOPELESS and not self.stopped:
                self.stopped = "nobody takes them"
                self.halt.set()


def send(
    lines: Iterable[bytes],
    url: str,
    secret: str,
    *,
    concurrency: int = 16,
    rate: float | None = None,
    speed: float | None = None,
    tries: int = 8,
    timeout: float = 20.0,
    new: bool = False,
    malformed: Callable[[int, str], None] = lambda number, reason: None,
    wait: Callable[[float], object] | None = None,
    halt: threading.Event | None = None,
) -> Sent:
    """Post each line's event to `url`, signed with `secret` at that moment, up to `tries` times until a 2xx.

    `concurrency` threads send at once, so the order is theirs. `rate` is events a second, `speed` a factor on the
    events' own spacing; with neither they go as fast as they are taken. `new` sends each under a new id, created now.
    `malformed(number, reason)` hears of lines that hold no event. `wait(seconds)` and `halt` are for callers that
    want to pause or stop in their own way. Ctrl-C ends it early, with what was counted so far.
    Raises ValueError for a url that is none, and whatever `lines` raises.
    """
    try:
        target = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        raise ValueError("the url cannot be read") from None  # it may hold a password: it is not quoted
    if target.scheme not in {"http", "https"} or not target.host:
        raise ValueError("the url must begin with http:// or https:// and name a host")
    halt = halt or threading.Event()
    replay = _Replay(lines, Pace(rate, speed), malformed, halt)
    pool = urllib3.connection_from_url(
        url, maxsize=concurrency, block=True, timeout=urllib3.Timeout(connect=5.0, read=timeout), retries=False
    )
    sender = _Sender(pool, target.request_uri, secret, tries, new, wait or halt.wait, replay)
    with ThreadPoolExecutor(concurrency, thread_name_prefix="replay") as threads:
        running = [threads.submit(sender.run) for _ in range(concurrency)]
        try:
            tallies = [thread.result() for thread in running]
        except KeyboardInterrupt:
            replay.stopped = "interrupted"
            halt.set()
            tallies = [thread.result() for thread in running]
        except BaseException:
            halt.set()
            raise
    pool.close()
    return _sum(tallies, replay)


class _Sender:
    """What every thread runs."""

    def __init__(
        self,
        pool: urllib3.HTTPConnectionPool,
        path: str,
        secret: str,
        tries: int,
        new: bool,
        wait: Callable[[float], object],
        replay: _Replay,
    ) -> None:
        self._pool = pool
        self._path = path
        self._secret = secret
        self._tries = tries
        self._new = new
        self._wait = wait
        self._replay = replay

    def run(self) -> _Tally:
        """Send until there is nothing left."""
        tally = _Tally()
        replay = self._replay
        while (turn := replay.take()) is not None:
            post, due = turn
            while (ahead := due - time.monotonic()) > 0 and not replay.halt.is_set():
                self._wait(min(ahead, 60.0))
            if replay.halt.is_set():
                break
            body = renew(post.body, time.time()) if self._new else post.body
            taken = self._deliver(body, tally)
            if not taken and replay.halt.is_set():
                break
            replay.judge(taken)
        return tally

    def _deliver(self, body: bytes, tally: _Tally) -> bool:
        """Try until a 2xx; False when it is given up."""
        for attempt in range(self._tries):
            if attempt:
                tally.retried += 1
            asked = self._post(body, tally)
            if asked is None:
                tally.sent += 1
                return True
            if attempt + 1 < self._tries:
                self._wait(asked or min(FIRST_DELAY * 2**attempt, LONGEST_DELAY))
            if self._replay.halt.is_set():
                break
        tally.failed += 1
        return False

    def _post(self, body: bytes, tally: _Tally) -> float | None:
        """One attempt: None for a 2xx, else the seconds that the receiver asked us to wait, 0 where it did not."""
        begun = time.perf_counter()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": sign(body, self._secret, int(time.time())),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        try:
            answer = self._pool.urlopen("POST", self._path, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            tally.statuses[type(error).__name__] += 1
            return 0.0
        if 200 <= answer.status < 300:
            spent = max(time.perf_counter() - begun, 1e-6)
            tally.latencies[round(math.log(spent) / _STEP)] += 1
            return None
        tally.statuses[str(answer.status)] += 1
        asked = answer.headers.get("Retry-After", "")
        return min(float(asked), LONGEST_RETRY_AFTER) if asked.isdecimal() else 0.0


def _sum(tallies: Iterable[_Tally], replay: _Replay) -> Sent:
    total = _Tally()
    for tally in tallies:
        total.sent += tally.sent
        total.retried += tally.retried
        total.failed += tally.failed
        total.latencies += tally.latencies
        total.statuses += tally.statuses
    return Sent(
        sent=total.sent,
        retried=total.retried,
        failed=total.failed,
        malformed=replay.bad,
        seconds=time.monotonic() - replay.start,
        p50_ms=_quantile(total.latencies, 0.5),
        p99_ms=_quantile(total.latencies, 0.99),
        statuses=dict(sorted(total.statuses.items())),
        stopped=replay.stopped,
    )


def _quantile(latencies: Counter[int], share: float) -> float:
    """Milliseconds that this share of the requests did not exceed; 0 where there were none."""
    left = share * latencies.total()
    for power in sorted(latencies):
        left -= latencies[power]
        if left <= 0:
            return round(math.exp(power * _STEP) * 1000, 2)
    return 0.0
