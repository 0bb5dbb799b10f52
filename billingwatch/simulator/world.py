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
REGULARS = 5000  # customers who may come back


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
    burst: float  # of the renewals on the 1st, that fall into its first hours
    burst_span: int  # seconds
    desk: int  # which hours the staff keep


def habits(rng: random.Random, kind: rhythm.Kind) -> Habits:
    """Draw an account's habits."""
    return Habits(
        failure=0.02 + 0.1 * rng.betavariate(1.6, 2.4),
        refund=rng.uniform(0.015, 0.04),
        dispute=rng.uniform(0.001, 0.004),
        warning=rng.uniform(0.0005, 0.002),
        cancel=rng.uniform(0.025, 0.05),
        renewals=rng.uniform(0.4, 0.6) if kind == "b2b" else rng.uniform(0.15, 0.35),
        burst=rng.uniform(0.2, 0.9) if rng.random() < 0.5 else 0.0,
        burst_span=int(rng.uniform(1, 3) * 3600),
        desk=rng.getrandbits(16),
    )


class World:
    """One account between its events. `told` is what the last step said, in order."""

    def __init__(
        self,
        account: Account,
        *,
        kind: rhythm.Kind,
        volume: float,
        start: int,
        seed: int,
        incidents: Sequence[Active],
    ) -> None:
        self.account = account
        self.kind = kind
        self.volume = volume
        self.start = start
        self.rng = random.Random(f"{seed}:life")
        self.ids = objects.Ids(random.Random(f"{seed}:ids"))
        self.catalogue = people.stock(self.ids, start - 400 * rhythm.DAY)
        self.habits = habits(random.Random(f"{seed}:habits"), kind)
        self.told: list[Json] = []
        self.sales: list[Sale] = []
        self.regulars: list[people.Customer] = []
        self.active: list[Subscription] = []
        self.takings = 0  # minor units since the last payout
        self._outages = [incident for incident in incidents if incident.kind == "failed_payments"]
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

    def failure(self, at: int) -> float:
        """How likely a first attempt fails now."""
        for outage in self._outages:
            if outage.start <= at < outage.end:
                return outage.size
        return self.habits.failure * self._trouble.at(at)

    def outage(self, at: int) -> bool:
        """Whether payments fail because of a planted incident."""
        return any(outage.start <= at < outage.end for outage in self._outages)

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
