"""The state of a simulated account: its habits, who buys, what is due when, and what it has to tell.

Steps are functions `(world, at, …)` that the agenda calls in order of time; a step tells events of its own second
and puts later ones on the agenda. Nothing here decides what happens next.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from billingwatch.simulator import objects, people, rhythm
from billingwatch.simulator.billing import Subscription
from billingwatch.simulator.incidents import Active
from billingwatch.simulator.objects import Account, Json

T = TypeVar("T")

REMEMBERED = 2000  # charges that a planted refund or dispute spike can choose from
REGULARS = 5000  # customers who may come back; a day's worth where that is more
_SHARES: dict[rhythm.Kind, tuple[float, float]] = {  # of renewals among all charges
    "b2c": (0.15, 0.35),
    "b2b": (0.4, 0.6),
    "global": (0.25, 0.5),
    "food": (0.02, 0.1),
}


class Sale(Struct):
    """A successful charge as it stands after its refunds and disputes."""

    charge: Json


class Habits(Struct, frozen=True):
    """What is usual for one account. Shares are of successful charges, unless said otherwise."""

    failure: float  # of first attempts
    refund: float
    dispute: float
    warning: float
    cancel: float  # of active subscriptions, a month
    renewals: float  # of all charges
    burst: float  # of a month's renewals, that fall into the first hours of the 1st
    burst_span: int  # seconds
    desk: int  # which hours the staff keep
    twice: float  # buyers charged a second time by mistake
    hourly: float  # noise of business, a relative deviation, from hour to hour
    daily: float  # the same from day to day


def habits(rng: random.Random, kind: rhythm.Kind) -> Habits:
    """Draw an account's habits."""
    return Habits(
        failure=0.02 + 0.1 * rng.betavariate(1.6, 2.4),
        refund=rng.uniform(0.015, 0.04),
        dispute=rng.uniform(0.001, 0.004),
        warning=rng.uniform(0.0005, 0.002),
        cancel=rng.uniform(0.025, 0.05),
        renewals=rng.uniform(*_SHARES[kind]),
        burst=rng.uniform(0.2, 0.5) if rng.random() < 0.4 else 0.0,
        burst_span=int(rng.uniform(1, 3) * 3600),
        desk=rng.getrandbits(16),
        twice=rng.uniform(0.0001, 0.001),
        hourly=rng.uniform(0.03, 0.12),
        daily=rng.uniform(0.03, 0.12),
    )


class World:
    """One account between its events. `told` is what the last step said, in order."""

    def __init__(
        self,
        account: Account,
        *,
        kind: rhythm.Kind,
        zone: rhythm.Zone,
        volume: float,
        start: int,
        seed: int,
        incidents: Sequence[Active],
    ) -> None:
        self.account = account
        self.zone = zone
        self.volume = volume
        self.start = start
        self.rng = random.Random(f"{seed}:life")
        self.ids = objects.Ids(random.Random(f"{seed}:ids"))
        self.catalogue = people.stock(self.ids, start - 400 * rhythm.DAY)
        self.habits = habits(random.Random(f"{seed}:habits"), kind)
        self.shape = rhythm.Shape(kind, random.Random(f"{seed}:shape"))
        self.told: list[Json] = []
        self.sales: list[Sale] = []
        self.regulars: list[people.Customer] = []
        self.active: list[Subscription] = []
        self.takings = 0  # minor units since the last payout
        self.crowd = max(REGULARS, round(volume))  # or a busy shop's regulars would buy the same thing twice
        self.renewed = 0  # renewals whose collection has started since somebody looked
        self.lost = 0  # minor units a month that planted losses took, since somebody looked
        self.debt = 0.0  # the same that they have still to take
        self._planted: dict[str, list[Active]] = {}
        for incident in incidents:
            self._planted.setdefault(incident.kind, []).append(incident)
        self._trouble = rhythm.Noise(random.Random(f"{seed}:failures"), 0.1, 0.1)
        self._agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._turn = 0

    def at(self, at: int, step: Callable[..., None], *arguments: Any) -> None:
        """Put `step(world, at, *arguments)` on the agenda; steps of one second run in the order they came."""
        self._turn += 1
        heapq.heappush(self._agenda, (at, self._turn, step, arguments))

    def live(self, until: int) -> bool:
        """Take the next step that is due before `until`; False when there is none."""
        if not self._agenda or self._agenda[0][0] >= until:
            return False
        at, _, step, arguments = heapq.heappop(self._agenda)
        step(self, at, *arguments)
        return True

    def tell(self, at: int, type: str, object: Json, previous: Json | None = None, *, asked: bool = False) -> None:
        """Say that this happened. `asked` is for what somebody's API request caused."""
        request = self.ids.short("req_") if asked else None
        key = self.ids.key() if asked else None
        id = self.ids.long("evt_1")
        self.told.append(
            objects.event(
                self.account, type, object, at, id=id, previous=previous, request=request, idempotency_key=key
            )
        )

    def planted(self, kind: str, at: int) -> float | None:
        """The size of the planted incident of this kind that is going on; None without one."""
        for incident in self._planted.get(kind, ()):
            if incident.start <= at < incident.end:
                return incident.size
        return None

    def usual_failure(self, at: int) -> float:
        """How likely a first attempt fails where nothing was planted."""
        return min(0.9, self.habits.failure * self._trouble.at(at))

    def failure(self, at: int) -> float:
        """How likely a first attempt fails now."""
        outage = self.planted("failed_payments", at)
        return self.usual_failure(at) if outage is None else outage

    def outage(self, at: int) -> bool:
        """Whether payments fail because of a planted incident."""
        return self.planted("failed_payments", at) is not None

    def total(self, at: int, plan: people.Plan, quantity: int) -> int:
        """Minor units that are charged for so many of the plan: all of them but for a planted loss of revenue."""
        amount = people.total(self.account, plan, quantity)
        loss = self.planted("revenue_drop", at)
        return amount if loss is None else max(self.account.step, self.account.whole(amount * (1 - loss)))

    def enroll(self, buyer: people.Customer) -> None:
        """Remember somebody who may come back; in a full crowd somebody else is forgotten."""
        if len(self.regulars) < self.crowd:
            self.regulars.append(buyer)
        else:
            self.regulars[int(self.rng.random() * self.crowd)] = buyer

    def remember(self, sale: Sale) -> None:
        """Keep a sale for planted spikes; an old one makes room."""
        if len(self.sales) < REMEMBERED:
            self.sales.append(sale)
        else:
            self.sales[int(self.rng.random() * REMEMBERED)] = sale

    def forget(self) -> Sale | None:
        """Take any remembered sale out; None when there is none."""
        return _take(self.sales, int(self.rng.random() * len(self.sales))) if self.sales else None

    def welcome(self, sub: Subscription) -> None:
        """Count the subscription among the active ones."""
        sub.slot = len(self.active)
        self.active.append(sub)

    def dismiss(self, sub: Subscription) -> None:
        """The subscription has ended."""
        self.active[-1].slot = sub.slot
        _take(self.active, sub.slot)
        sub.slot = -1


def _take(values: list[T], index: int) -> T:
    values[index], values[-1] = values[-1], values[index]
    return values.pop()
