"""When events arrive: in seconds, seldom late, some twice and out of order; after an outage all at once.

Takes events in order of `created` and gives them in order of arrival, encoded; it holds those that are on their way
and no others. Loses none: what was never delivered is not in the stream.
"""

import heapq
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Raw, Struct

from billingwatch.simulator.evidence import LATE
from billingwatch.simulator.incidents import Active
from billingwatch.simulator.objects import Json

TWICE = 0.004  # of events: Stripe delivers at least once
LEAST, MOST = 360, 3600  # seconds that a late event is late


class Delivery(Struct, frozen=True):
    """One delivery of an event; `received_at` is epoch seconds."""

    received_at: float
    event: Raw


def deliver(events: Iterable[Json], incidents: Sequence[Active], seed: int) -> Iterator[Delivery]:
    """Yield the events as they arrive. `incidents` are those of deliveries; others change nothing."""
    rng = random.Random(f"{seed}:deliveries")
    encode = msgspec.json.Encoder().encode
    lags = [each for each in incidents if each.kind == "webhook_lag"]
    shut = sorted((each for each in incidents if each.kind in SHUT), key=lambda each: each.start)
    waiting: list[tuple[float, int, bytes]] = []
    turn = 0
    for event in events:
        created = event["created"]
        while waiting and waiting[0][0] <= created:
            yield _next(waiting)
        line = encode(event)
        delay = 0.3 + rng.expovariate(1 / 1.2)
        late = next((lag.size for lag in lags if lag.start <= created < lag.end), LATE)
        if _place(event, seed) < max(late, LATE):
            delay = LEAST + rng.random() * (MOST - LEAST)
        times = [created + delay]
        if rng.random() < TWICE:
            times.append(times[0] + 1 + rng.expovariate(1 / 90))
        for at in times:
            turn += 1
            heapq.heappush(waiting, (round(_open(at, shut, rng), 3), turn, line))
    while waiting:
        yield _next(waiting)


SHUT = ("webhook_silence", "webhook_outage")  # while these last, nothing arrives


def _next(waiting: list[tuple[float, int, bytes]]) -> Delivery:
    at, _, line = heapq.heappop(waiting)
    return Delivery(at, Raw(line))


def _open(at: float, shut: Sequence[Active], rng: random.Random) -> float:
    """When a delivery that is due at `at` comes through: after an outage, as fast as the backlog drains."""
    for each in shut:
        if each.start <= at < each.end:
            at = each.end + rng.random() * (60 + 0.1 * (each.end - each.start))
    return at


def _place(event: Json, seed: int) -> float:
    """A number from 0 to 1 that all events about one business object share: they are late together."""
    thing = event["data"]["object"]
    root = thing.get("payment_intent") or thing["id"]
    return zlib.crc32(f"{seed}{root}".encode()) / 2**32
