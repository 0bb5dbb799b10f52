"""What nothing else causes: buyers, subscribers, those who leave, and planted spikes, put on the agenda slot by slot.

It knows the true rates, so it also weighs what was planted against them. Makes no event itself.
"""

import random
from collections.abc import Sequence

from billingwatch.simulator import aftermath, checkout, churn, evidence, people, rhythm, subscriptions, surprise
from billingwatch.simulator.evidence import Usual
from billingwatch.simulator.incidents import Active
from billingwatch.simulator.rhythm import DAY, Noise, poisson
from billingwatch.simulator.world import Sale, World
from billingwatch.simulator.worth import worth

LAPSING = 0.015  # of active subscriptions a month: their cards go on failing
CHANGING = 0.015  # of active subscriptions a month: another plan, more seats or fewer
DECLINED = 0.93  # of planted card tests
CONTESTED = 1 - aftermath.INQUIRIES


class Demand:
    """The agenda's supply for one account. Slots are asked for in order of time."""

    def __init__(self, world: World, *, seed: int, surprises: bool, incidents: Sequence[Active]) -> None:
        self._world = world
        self._seed = seed
        self._rng = random.Random(f"{seed}:arrivals")
        self._spikes = random.Random(f"{seed}:incidents")
        habits = world.habits
        self._noise = Noise(random.Random(f"{seed}:noise"), habits.hourly, habits.daily)
        self._surprises = surprise.Surprises(seed) if surprises else None
        self._today = -1
        self._incidents = incidents
        self._nats = [0.0] * len(incidents)
        self._planted: dict[int, float] = {}  # by place among the incidents: mean counts in the slot drawn last
        self._owed: dict[int, float] = {}  # the same: minor units a month that a planted loss takes in all
        self._business = self._busy = self._leaving = 0.0  # parts of a day's rates, in the slot drawn last
        self._failing = 0.0
        signups = len(world.active) * (habits.cancel + LAPSING) / 30.44
        self._buyers = max(0.0, world.volume * (1 - habits.renewals) - signups)
        self._signups = signups
        # an hour, by kind of spike; a quiet account is taken as a little busier, or its spikes would be no spikes
        self._usual = {
            "refund_spike": max(1.0, world.volume * habits.refund / 24),
            "dispute_spike": max(1.0, world.volume * habits.dispute / 24),
            "cancel_spike": max(1.0, len(world.active) * habits.cancel / 30.44 / 24),
            "card_testing": max(10.0, world.volume / 24),
        }
        self._worth = worth(world.account, world.catalogue)

    def draw(self, start: int, end: int) -> None:
        """Draw what arrives in `[start, end)`."""
        world, habits = self._world, self._world.habits
        local = world.zone.local(start)
        self._busy = world.shape.at(local) * self._noise.at(start) * (end - start) / DAY
        self._business = self._busy * self._surprise(local)
        self._failing = world.usual_failure(start)  # asked now: noise is sampled in order of time
        self._leaving = habits.cancel * self._busy
        if rhythm.day_of_month(local) == 1:  # many look at their bills then
            self._leaving *= 2
        monthly = len(world.active) / 30.44
        for step, mean in (
            (checkout.arrive, self._buyers * self._business),
            (subscriptions.sign_up, self._signups * self._business),
            (churn.cancel, monthly * self._leaving),
            (churn.change, monthly * CHANGING * self._busy),
        ):
            for _ in range(poisson(self._rng, mean)):
                at = start + int(self._rng.random() * (end - start))
                if step in ONLINE and self._dropped(at):
                    continue
                world.at(at, step)
        self._planted.clear()
        for number, incident in enumerate(self._incidents):
            covered = incident.overlap(start, end)
            if covered and incident.kind in SPIKES:
                self._spike(number, incident, *covered)
            elif covered and incident.kind == "mrr_drop":
                self._shrink(number, incident, *covered)

    def weigh(self, start: int, end: int) -> None:
        """Add what was planted in `[start, end)`, the slot drawn last, to the evidence. Called when it is over."""
        world = self._world
        renewed, world.renewed = world.renewed, 0
        lost, world.lost = world.lost, 0
        for number, incident in enumerate(self._incidents):
            covered = incident.overlap(start, end)
            if not covered:
                continue
            usual = self._expect(renewed, (covered[1] - covered[0]) / (end - start), (end - start) / DAY)
            size = self._planted.get(number, incident.size)
            if incident.kind == "mrr_drop":
                size = lost / self._worth.loss
            self._nats[number] += evidence.WEIGH[incident.kind](usual, size)

    def nats(self) -> list[float]:
        """The evidence of each incident so far, in their order."""
        return self._nats

    def _surprise(self, local: int) -> float:
        """Today's factor of business; a new day may also bring an enterprise."""
        if self._surprises is None:
            return 1.0
        if local // DAY != self._today:
            self._today = local // DAY
            second = surprise.day(self._seed, self._today).invoice
            if second > local % DAY:
                self._world.at(self._world.zone.utc(self._today * DAY + second), subscriptions.enterprise)
        return self._surprises.factor(local)

    def _dropped(self, at: int) -> bool:
        """Whether this buyer finds the checkout broken."""
        missing = self._world.planted("checkout_drop", at)
        return missing is not None and self._spikes.random() < missing

    def _spike(self, number: int, incident: Active, start: int, end: int) -> None:
        mean = incident.size * self._usual[incident.kind] * (end - start) / rhythm.HOUR
        seen = {"card_testing": DECLINED, "dispute_spike": CONTESTED}
        self._planted[number] = mean * seen.get(incident.kind, 1.0)
        for _ in range(poisson(self._spikes, mean)):
            self._world.at(start + int(self._spikes.random() * (end - start)), SPIKES[incident.kind])

    def _shrink(self, number: int, incident: Active, start: int, end: int) -> None:
        world = self._world
        if number not in self._owed:
            values = (people.monthly(world.account, sub.plan, sub.quantity) for sub in world.active)
            self._owed[number] = incident.size * sum(values)
        world.debt += self._owed[number] * (end - start) / (incident.end - incident.start)
        world.at(start + int(self._spikes.random() * (end - start)), churn.shrink)

    def _expect(self, renewed: int, part: float, day: float) -> Usual:
        """What the covered part of the slot usually holds."""
        world, habits = self._world, self._world.habits
        failing = self._failing
        buyers, signups = self._buyers * self._business * part, self._signups * self._business * part
        subscribers = signups * (1 - subscriptions.TRIALS)
        renewals = renewed * part
        monthly = len(world.active) / 30.44 * part
        leaving = monthly * self._leaving
        cancels = leaving + signups * subscriptions.TRIALS * subscriptions.REGRETTED
        sold = world.volume * (1 - habits.failure) * day * part
        disputes = sold * habits.dispute * CONTESTED
        refunds = sold * habits.refund * (1 + aftermath.PARTIAL * aftermath.RESUMED)
        attempts = buyers + subscribers + renewals
        again = 1 / (1 - checkout.RETRIED * checkout.FAILS_AGAIN)  # attempts that follow on a failed one
        abandoned = (checkout.ABANDONED + failing * (1 - checkout.RETRIED)) * checkout.HOSTED
        return Usual(
            attempts=attempts,
            failing=failing,
            arriving=buyers + subscribers,
            small=buyers * failing * again * self._worth.small,
            refunds=refunds,
            disputes=disputes,
            cancels=cancels,
            twice=buyers * (1 - failing) * habits.twice,
            objects=attempts + buyers * abandoned + refunds + disputes + cancels,
            sales=self._worth.sales(buyers, subscribers, renewals) * (1 - failing),
            losses=(leaving + monthly * LAPSING * self._busy) * self._worth.losing,
        )


def spiked_refund(world: World, at: int) -> None:
    """Refund any recent sale, whole or in part."""
    aftermath.refund(world, at, _sale(world, world.start - DAY))


def spiked_dispute(world: World, at: int) -> None:
    """Dispute any recent sale."""
    aftermath.dispute(world, at, _sale(world, world.start - 9 * DAY))


def _sale(world: World, before: int) -> Sale:
    """A remembered sale that nobody refunded or disputed yet; one from before the stream where none is at hand."""
    for _ in range(20):
        sale = world.forget()
        if sale is None:
            break
        if not sale.charge["disputed"] and not sale.charge["refunded"]:
            return sale
    return aftermath.older(world, before)


ONLINE = (checkout.arrive, subscriptions.sign_up)  # what a broken checkout keeps away
SPIKES = {
    "refund_spike": spiked_refund,
    "dispute_spike": spiked_dispute,
    "cancel_spike": churn.cancel,
    "card_testing": checkout.probe,
}
