"""A scenario and the stream of events it makes, in order of time, one at a time. Nothing of the past is kept."""

from collections.abc import Iterator

from msgspec import Struct

from billingwatch.simulator import aftermath, checkout, rhythm, subscriptions, surprise
from billingwatch.simulator.delivery import Delivery, deliver
from billingwatch.simulator.demand import Demand
from billingwatch.simulator.incidents import KINDS, Active, Label, Planted, label, place
from billingwatch.simulator.objects import CURRENT, Account, Json
from billingwatch.simulator.rhythm import DAY, Zone
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
    zone: str = "UTC"  # whose clock its people live by
    surprises: bool = False  # sales, holidays, level steps, an enterprise's invoice
    arrivals: bool = False  # it matters when events arrive: outages of deliveries are among the surprises
    incidents: tuple[Planted, ...] = ()
    source: str = "default"  # the account's name in labels where it is not a connected one

    @property
    def end(self) -> int:
        """Epoch seconds at which the stream is over."""
        return self.start + round(self.days * DAY)


def simulate(scenario: Scenario) -> Iterator[Json]:
    """Yield the events of `[start, end)` as Stripe would send them, ordered by `created`.

    Raises ValueError where an incident is planted outside the stream. Treat the events as read-only: they share parts.
    """
    return Stream(scenario).events()


class Stream:
    """The events of a scenario, to be read once, and what was planted among them.

    Raises ValueError where an incident is outside the stream, or shows only in arrivals that nobody asked for.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        zone = Zone(scenario.zone)
        incidents = [_place(planted, scenario) for planted in scenario.incidents]
        if scenario.surprises and scenario.arrivals:
            incidents += _outages(scenario, zone)
        self._incidents = sorted(incidents, key=lambda active: (active.start, active.kind))
        self.world = World(
            Account(scenario.account, scenario.livemode, scenario.currency, scenario.api_version),
            kind=scenario.kind,
            zone=zone,
            volume=scenario.volume,
            start=scenario.start,
            seed=scenario.seed,
            incidents=self._incidents,
        )
        subscriptions.found(self.world)
        checkout.found(self.world)
        aftermath.inherit(self.world)
        self.world.at(scenario.start // DAY * DAY + DAY + 2 * rhythm.HOUR, aftermath.pay_out)
        self._demand = Demand(self.world, seed=scenario.seed, surprises=scenario.surprises, incidents=self._incidents)

    def events(self) -> Iterator[Json]:
        """Yield the events, ordered by `created`; what happens in a planted silence is left out."""
        world, demand, scenario = self.world, self._demand, self.scenario
        silences = [incident for incident in self._incidents if incident.kind == "webhook_silence"]
        for slot in range(scenario.start, scenario.end, SLOT):
            until = min(slot + SLOT, scenario.end)
            demand.draw(slot, until)
            while world.live(until):
                told, world.told = world.told, []
                for event in told:
                    if not any(silence.start <= event["created"] < silence.end for silence in silences):
                        yield event
            demand.weigh(slot, until)

    def deliveries(self) -> Iterator[Delivery]:
        """Yield the events as they arrive, ordered by `received_at`."""
        return deliver(self.events(), self._incidents, self.scenario.seed)

    def labels(self) -> tuple[Label, ...]:
        """What was planted, in order of time; its evidence is whole once the stream was read to its end."""
        scenario = self.scenario
        account = scenario.account or scenario.source
        weighed = zip(self._incidents, self._demand.nats(), strict=True)
        return tuple(label(each, account, scenario.livemode, nats) for each, nats in weighed)


def _place(planted: Planted, scenario: Scenario) -> Active:
    if KINDS[planted.kind].late and not scenario.arrivals:
        raise ValueError(f"{planted.kind} shows in when events arrive, and this stream has no arrivals")
    return place(planted, scenario.start, scenario.end)


def _outages(scenario: Scenario, zone: Zone) -> Iterator[Active]:
    """The outages that chance makes: labelled like planted ones, for a detector does well to tell them."""
    for number in range(zone.local(scenario.start) // DAY, zone.local(scenario.end) // DAY + 1):
        second, span = surprise.day(scenario.seed, number).outage
        start = zone.utc(number * DAY + second)
        if span and scenario.start <= start < scenario.end:
            yield Active("webhook_outage", start, min(start + span, scenario.end), 1.0)
