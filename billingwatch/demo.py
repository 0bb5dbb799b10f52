"""The demo's plot: two accounts that never were, what goes wrong with them and when. Pure; the command plays it."""

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from billingwatch.simulator.incidents import parse
from billingwatch.simulator.stream import Scenario, simulate

SHOP = "default"  # the receiver's default source
SILENT = "acct_1DemoSilentSubscr"  # a connected account whose webhooks have stopped
DAYS = 8  # of history: a week of it, and a day to tell weekdays apart
LIVE = 30 * 60  # seconds of the stream's end that are played as live traffic
SPEED = 40  # times as fast as they happened
SEED = 2026

# kind, seconds before the end, detectors of which any may find it
_SHOP_PLOT = (
    ("refund_spike", 28 * 60, "size=40,for=20m", ("refund_spike",)),
    ("cancel_spike", 25 * 60, "size=40,for=20m", ("churn_spike",)),
    ("dispute_spike", 21 * 60, "size=30,for=20m", ("dispute_spike",)),
    ("card_testing", 14 * 60, "size=15,for=12m", ("failure_rate", "failure_spike")),
)
_SILENCE = 12 * 3600  # seconds


class Planting(Struct, frozen=True):
    """Something that goes wrong on purpose. `start` is when, in the events' time (epoch seconds)."""

    kind: str
    account: str
    start: int
    detectors: tuple[str, ...]


def plantings(end: int) -> tuple[Planting, ...]:
    """What goes wrong in streams that end at `end`; the silence, which began before the live part, first."""
    return (
        Planting("webhook_silence", SILENT, end - _SILENCE, ("webhook_silence",)),
        *(Planting(kind, SHOP, end - before, detectors) for kind, before, _, detectors in _SHOP_PLOT),
    )


def history(end: int) -> Iterator[bytes]:
    """Both accounts' events up to the live part, as lines of JSON, each account in order of time."""
    yield from _lines(_silent(end), end)
    yield from _lines(_shop(end), end - LIVE)


def live(end: int) -> Iterator[tuple[int, bytes]]:
    """The shop's last half hour: (created, line)."""
    for event in simulate(_shop(end)):
        if event["created"] >= end - LIVE:
            yield event["created"], msgspec.json.encode(event)


def _shop(end: int) -> Scenario:
    planted = tuple(parse(f"{kind}@+{DAYS * 86400 - before}s,{how}") for kind, before, how, _ in _SHOP_PLOT)
    return Scenario(seed=SEED, start=end - DAYS * 86400, days=DAYS, volume=400, incidents=planted)


def _silent(end: int) -> Scenario:
    planted = parse(f"webhook_silence@+{DAYS * 86400 - _SILENCE}s,for=12h")
    return Scenario(
        seed=SEED + 1, start=end - DAYS * 86400, days=DAYS, volume=200, account=SILENT, incidents=(planted,)
    )


def _lines(scenario: Scenario, end: int) -> Iterator[bytes]:
    for event in simulate(scenario):
        if event["created"] >= end:
            break
        yield msgspec.json.encode(event)
