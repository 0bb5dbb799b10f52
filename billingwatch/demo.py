"""The demo's plot: five accounts that never were, what goes wrong with each and when. Pure; the command plays it."""

import heapq
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from billingwatch.simulator.incidents import parse
from billingwatch.simulator.stream import Scenario, simulate

DAYS = 8  # of history: a week of it, and a day to tell weekdays apart
LIVE = 30 * 60  # seconds of the stream's end that are played as live traffic
SPEED = 40  # times as fast as they happened
SEED = 2026


class Part(Struct, frozen=True):
    """One account: so many first attempts a day, and what goes wrong with it so many seconds before the end."""

    account: str  # "" for the receiver's default source
    volume: float
    kind: str
    before: int
    how: str
    detectors: tuple[str, ...]  # of which any may find it


# The silence, which began before the live part, comes first.
PLOT = (
    Part("acct_1DemoSilent", 150, "webhook_silence", 12 * 3600, "for=12h", ("webhook_silence",)),
    Part("acct_1DemoRefunds", 100, "refund_spike", 28 * 60, "size=500,for=20m", ("refund_spike",)),
    Part("acct_1DemoChurn", 100, "cancel_spike", 25 * 60, "size=60,for=20m", ("churn_spike",)),
    Part("acct_1DemoDisputes", 100, "dispute_spike", 21 * 60, "size=40,for=20m", ("dispute_spike",)),
    Part("", 200, "card_testing", 14 * 60, "size=15,for=12m", ("card_testing", "failure_rate")),
)


class Planting(Struct, frozen=True):
    """Something that goes wrong on purpose. `start` is when, in the events' time (epoch seconds)."""

    kind: str
    account: str
    start: int
    detectors: tuple[str, ...]


def plantings(end: int) -> tuple[Planting, ...]:
    """What goes wrong in streams that end at `end`, one an account."""
    return tuple(Planting(each.kind, each.account or "default", end - each.before, each.detectors) for each in PLOT)


def silent_history(end: int) -> Iterator[bytes]:
    """The events of the account that falls silent, as lines of JSON."""
    return (line for _, line in _told(0, end))


def history(end: int) -> Iterator[bytes]:
    """The other accounts' events up to the live part, each account in order of time."""
    for number in range(1, len(PLOT)):
        for created, line in _told(number, end):
            if created >= end - LIVE:
                break
            yield line


def live(end: int) -> Iterator[tuple[int, bytes]]:
    """Their last half hour: (created, line)."""
    return heapq.merge(
        *(
            [(created, line) for created, line in _told(number, end) if created >= end - LIVE]
            for number in range(1, len(PLOT))
        )
    )


def _told(number: int, end: int) -> Iterator[tuple[int, bytes]]:
    part = PLOT[number]
    planted = parse(f"{part.kind}@+{DAYS * 86400 - part.before}s,{part.how}")
    scenario = Scenario(
        seed=SEED + number,
        start=end - DAYS * 86400,
        days=DAYS,
        volume=part.volume,
        account=part.account,
        incidents=(planted,),
    )
    for event in simulate(scenario):
        yield event["created"], msgspec.json.encode(event)
