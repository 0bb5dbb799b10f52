"""Events as they arrived, in order: from event files, several merged by time, or from the database.

Keeps no more than a line a file. A line that holds no event is told by file, number and reason, never by content.
"""

import gzip
import heapq
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from io import BufferedReader
from math import ceil
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace
from psycopg import Connection

from billingwatch.model import Tenant
from billingwatch.store import events, markers
from billingwatch.store.markers import Marker
from detectors.backtest import Arrival
from detectors.event import Event, Unreadable, mend, read_event
from detectors.judgement import Spans

STDIN = Path("-")
GZIP, MARK = b"\x1f\x8b", b"\xef\xbb\xbf"  # how compressed files begin, and texts of some editors
LONGEST = 8 << 20  # bytes of a line; the receiver takes no event of more than one MiB
OFTEN = 500  # lines between two tellings of how far we are
FIRST, LAST = (
    1_262_304_000,
    4_102_444_800,
)  # 2010, before Stripe, and 2100: a stream in between can be judged by minutes
AHEAD = 86_400  # seconds that Stripe's clock may be ahead of the receiver's

Malformed = Callable[[str, int, str], None]  # hears of a file's line that holds no event, and why
Progress = Callable[[int], None]  # hears of bytes that were read since the last time


class _Line(Struct):
    """What an event is wrapped in."""

    received_at: float | None = None
    event: Raw | UnsetType = UNSET


_line = msgspec.json.Decoder(_Line)


def read(line: bytes) -> Arrival:
    """A line of an event file: an event, or `{"received_at": SECONDS, "event": {…}}`.

    Where nobody noted the arrival, an event arrived when it was created. Raises Unreadable with the reason.
    """
    if b'"received_at"' in line:
        return _unwrap(line)
    try:
        return _arrival(read_event(line), None)  # as most are: read once
    except Unreadable as error:
        try:
            return _unwrap(line)
        except Unreadable:
            raise error from None


def _unwrap(line: bytes) -> Arrival:
    try:
        try:
            found = _line.decode(line)
        except msgspec.ValidationError as error:
            raise Unreadable(f"no Stripe event: {error}") from None  # names a type and a path, never a value
        except msgspec.DecodeError:
            found = _line.decode(mend(line))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("no JSON") from None
    return _arrival(read_event(line if found.event is UNSET else bytes(found.event)), found.received_at)


def _arrival(event: Event, received: float | None) -> Arrival:
    if not FIRST <= event.created < LAST:
        raise Unreadable("created lies before 2010 or after 2100")
    if received is None:
        return Arrival(event, event.created)
    if not FIRST <= received < LAST:
        raise Unreadable("received_at lies before 2010 or after 2100")
    if event.created > received + AHEAD:
        raise Unreadable("created lies more than a day after received_at")
    return Arrival(event, ceil(received))  # no earlier than it came


def read_files(
    paths: Sequence[Path],
    *,
    malformed: Malformed = lambda file, number, reason: None,
    progress: Progress = lambda read: None,
) -> Iterator[Arrival]:
    """The events of the files, "-" for stdin, compressed by gzip or not; several files are merged by time.

    A file's own order is its order of arrival.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(_open(path)) for path in paths]
        names = ["stdin" if path == STDIN else str(path) for path in paths]
        streams = [_read_file(*each, malformed, progress) for each in zip(files, names, strict=True)]
        yield from streams[0] if len(streams) == 1 else heapq.merge(*streams, key=attrgetter("received"))


def size(paths: Sequence[Path]) -> int | None:
    """How many bytes there are to read; None where that is not known ahead."""
    if all(path.is_file() for path in paths):
        return sum(path.stat().st_size for path in paths)
    return None


def read_events(conn: Connection) -> Iterator[Arrival]:
    """Every event of the database in the order in which they arrived, in a transaction of its own."""
    for stored in events.stream(conn):
        try:
            event = read_event(stored.body)
        except Unreadable:
            continue  # an earlier release took it for an event
        if event.account != stored.tenant.account:
            event = replace(event, account=stored.tenant.account)  # it names none: the source it came by is the account
        yield Arrival(event, ceil(stored.received_at))


def announced(conn: Connection) -> dict[Tenant, Spans]:
    """The spans, epoch seconds, in which people expected something unusual, by account."""
    found: dict[Tenant, list[Marker]] = defaultdict(list)
    for each in markers.read_all(conn):
        found[each.tenant].append(each)
    return {tenant: markers.expected(said) for tenant, said in found.items()}


def _read_file(file: BufferedReader, name: str, malformed: Malformed, progress: Progress) -> Iterator[Arrival]:
    for number, line in _lines(file, partial(malformed, name), progress):
        try:
            arrival = read(line)
        except Unreadable as error:
            malformed(name, number, str(error))
        else:
            yield arrival


def _open(path: Path) -> BufferedReader:
    return open(0, "rb", closefd=False) if path == STDIN else path.open("rb")


def _lines(
    file: BufferedReader, malformed: Callable[[int, str], None], progress: Progress
) -> Iterator[tuple[int, bytes]]:
    """Lines that hold something, with their numbers from 1 on."""
    lines = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if file.peek(2)[:2] == GZIP else file
    number = told = 0
    try:
        while line := lines.readline(LONGEST):
            number += 1
            if number % OFTEN == 0:
                told += _tell(file, told, progress)
            if len(line) == LONGEST and not line.endswith(b"\n"):
                malformed(number, "longer than 8 MiB")
                while line and not line.endswith(b"\n"):
                    line = lines.readline(LONGEST)
                continue
            if number == 1:
                line = line.removeprefix(MARK)
            if not line.isspace():
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        malformed(number + 1, f"cannot be read on: {type(error).__name__}")
    _tell(file, told, progress)


def _tell(file: BufferedReader, told: int, progress: Progress) -> int:
    """Tell what was read of the file since `told`; what that was. A pipe has no places."""
    read = file.tell() - told if file.seekable() else 0
    progress(read)
    return read
