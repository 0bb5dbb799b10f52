"""A scenario and the stream of events it makes, in order of time, one at a time. Nothing of the past is kept."""

import random
from collections.abc import Iterator

from msgspec import Struct

from billingwatch.simulator import aftermath, checkout, rhythm, subscriptions
from billingwatch.simulator.incidents import Active, Label, Planted, label, place
from billingwatch.simulator.objects import CURRENT, Account, Json
from billingwatch.simulator.rhythm import DAY, Noise, poisson
from billingwatch.simulator.world import World

SLOT = 300  # seconds that arrivals are drawn for at once


class Scenario(Struct, frozen=True, kw_only=True):
    """What to simulate. Equal scenarios make equal bytes."""

    seed: int = 1
    start: int  # epoch seconds
    days: float = 30
    volume: float = 200  # first attempts to pay a day, averaged over a month
    account: str = ""  # acct_… for a connected account
    livemode: bool = True
    currency: str = "usd"
    api_version: str = CURRENT
    kind: rhythm.Kind = "b2c"
    incidents: tuple[Planted, ...] = ()
    source: str = "default"  # the account's name in labels where it is not a connected one

    @property
    def end(self) -> int:
        """Epoch seconds at which the stream is over."""
        return self.start + round(self.days * DAY)


def labels(scenario: Scenario) -> tuple[Label, ...]:
    """The planted incidents, in order of time. Raises ValueError where one is outside the stream."""
    planted = sorted(_placed(scenario), key=lambda active: (active.start, active.kind))
    return tuple(label(active, scenario.account or scenario.source, scenario.livemode) for active in planted)


def _placed(scenario: Scenario) -> list[Active]:
    return [place(planted, scenario.start, scenario.end) for planted in scenario.incidents]


def simulate(scenario: Scenario) -> Iterator[Json]:
    """Yield the events of `[start, end)` as Stripe would send them, ordered by `created`.

    Raises ValueError where an incident is planted outside the stream. Treat the events as read-only: they share parts.
    """
    incidents = _placed(scenario)
    silences = [incident for incident in incidents if incident.kind == "webhook_silence"]
    account = Account(scenario.account, scenario.livemode, scenario.currency, scenario.api_version)
    world = World(
        account,
        kind=scenario.kind,
        volume=scenario.volume,
        start=scenario.start,
        seed=scenario.seed,
        incidents=incidents,
    )
    subscriptions.found(world)
    aftermath.inherit(world)
    world.at(scenario.start // DAY * DAY + DAY + 2 * rhythm.HOUR, aftermath.pay_out)
    return _run(scenario, world, incidents, silences)


def _run(scenario: Scenario, world: World, incidents: list[Active], silences: list[Active]) -> Iterator[Json]:
    arrivals = Arrivals(scenario, world, incidents)
    for slot in range(scenario.start, scenario.end, SLOT):
        until = min(slot + SLOT, scenario.end)
        arrivals.draw(slot, until)
        while world.live(until):
            told, world.told = world.told, []
            for event in told:
                if not any(silence.start <= event["created"] < silence.end for silence in silences):
                    yield event


class Arrivals:
    """Puts on the agenda what nothing else causes: buyers, subscribers, cancellations, and planted spikes."""

    def __init__(self, scenario: Scenario, world: World, incidents: list[Active]) -> None:
        self._world = world
        self._kind = scenario.kind
        self._rng = random.Random(f"{scenario.seed}:arrivals")
        self._spikes = random.Random(f"{scenario.seed}:incidents")
        self._noise = Noise(random.Random(f"{scenario.seed}:noise"))
        self._incidents = incidents
        habits = world.habits
        churn = habits.cancel + 0.015  # a month; the second part are the cards that go on failing
        signups = len(world.active) * churn / 30.44
        self._buyers = max(0.0, scenario.volume * (1 - habits.renewals) - signups)
        self._signups = signups
        # an hour, by kind of spike; a quiet account is taken as a little busier, or its spikes would be no spikes
        self._usual = {
            "refund_spike": max(1.0, scenario.volume * habits.refund / 24),
            "dispute_spike": max(1.0, scenario.volume * habits.dispute / 24),
            "cancel_spike": max(1.0, len(world.active) * habits.cancel / 30.44 / 24),
            "card_testing": max(10.0, scenario.volume / 24),
        }

    def draw(self, start: int, end: int) -> None:
        """Draw what arrives in `[start, end)`."""
        world, habits = self._world, self._world.habits
        share = (end - start) / DAY
        busy = rhythm.intensity(self._kind, start) * self._noise.at(start) * share
        first = 2.0 if rhythm.day_of_month(start) == 1 else 1.0  # many look at their bills on the 1st
        monthly = len(world.active) / 30.44
        for step, mean in (
            (checkout.arrive, self._buyers * busy),
            (subscriptions.sign_up, self._signups * busy),
            (subscriptions.cancel, monthly * habits.cancel * busy * first),
            (subscriptions.change, monthly * 0.015 * busy),
        ):
            for _ in range(poisson(self._rng, mean)):
                world.at(start + int(self._rng.random() * (end - start)), step)
        for incident in self._incidents:
            covered = incident.overlap(start, end)
            if covered and incident.kind in SPIKES:
                self._spike(incident, *covered)

    def _spike(self, incident: Active, start: int, end: int) -> None:
        mean = incident.size * self._usual[incident.kind] * (end - start) / rhythm.HOUR
        for _ in range(poisson(self._spikes, mean)):
            self._world.at(start + int(self._spikes.random() * (end - start)), SPIKES[incident.kind])


def spiked_refund(world: World, at: int) -> None:
    """Refund any recent sale, whole or in part."""
    aftermath.refund(world, at, world.forget() or aftermath.older(world, world.start - DAY))


def spiked_dispute(world: World, at: int) -> None:
    """Dispute any recent sale."""
    aftermath.dispute(world, at, world.forget() or aftermath.older(world, world.start - 9 * DAY))


SPIKES = {
    "refund_spike": spiked_refund,
    "dispute_spike": spiked_dispute,
    "cancel_spike": subscriptions.cancel,
    "card_testing": checkout.probe,
}
