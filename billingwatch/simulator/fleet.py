"""Several accounts as one stream: the endpoint's own, and connected ones of other kinds, sizes, zones, currencies."""

import heapq
import math
import random
from collections.abc import Iterator, Sequence
from operator import attrgetter, itemgetter

import msgspec

from billingwatch.simulator import rhythm
from billingwatch.simulator.delivery import Delivery
from billingwatch.simulator.objects import Ids, Json
from billingwatch.simulator.stream import Scenario, Stream

# Where a connected account is at home: its clock and its currency.
HOMES = (
    ("Europe/Berlin", "eur"),
    ("Asia/Tokyo", "jpy"),
    ("America/New_York", "usd"),
    ("Asia/Kuwait", "kwd"),
    ("Europe/London", "gbp"),
    ("Australia/Sydney", "aud"),
)
VOLUMES = (5.0, 50_000.0)  # charges a day


def fleet(scenario: Scenario, accounts: int) -> tuple[Scenario, ...]:
    """The scenario as the first of so many accounts. Incidents go to the account they name.

    Raises ValueError where an incident names an account that there is none of.
    """
    for planted in scenario.incidents:
        if planted.on > accounts:
            raise ValueError(f"{planted.kind} is planted on account {planted.on} of {accounts}")
    return tuple(
        msgspec.structs.replace(
            scenario if number == 1 else _other(scenario, number),
            incidents=tuple(planted for planted in scenario.incidents if planted.on == number),
        )
        for number in range(1, accounts + 1)
    )


def _other(scenario: Scenario, number: int) -> Scenario:
    rng = random.Random(f"{scenario.seed}:account:{number}")
    zone, currency = HOMES[(number - 2) % len(HOMES)]
    kinds = rhythm.KINDS
    volume = scenario.volume * math.exp(rng.gauss(0, 1))
    return msgspec.structs.replace(
        scenario,
        seed=rng.getrandbits(48),
        account=Ids(rng).short("acct_1"),
        kind=kinds[(kinds.index(scenario.kind) + number - 1) % len(kinds)],
        zone=zone,
        currency=currency,
        volume=min(max(volume, VOLUMES[0]), VOLUMES[1]),
    )


def events(streams: Sequence[Stream]) -> Iterator[Json]:
    """All events, ordered by `created`."""
    return heapq.merge(*(stream.events() for stream in streams), key=itemgetter("created"))


def deliveries(streams: Sequence[Stream]) -> Iterator[Delivery]:
    """All deliveries, ordered by `received_at`."""
    return heapq.merge(*(stream.deliveries() for stream in streams), key=attrgetter("received_at"))
