"""The drills' plot: for each built-in detector an account that never was, its past, and what goes wrong with it.

Pure: events are made, nothing is sent. The sizes are such that a detector of any sensitivity has to find it, at any
hour and on any day of the year, within one evaluation.
"""

import random
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from billingwatch.model import DRILL, Tenant
from billingwatch.simulator import billing, charges, claims, declines, intents, people
from billingwatch.simulator.billing import Subscription
from billingwatch.simulator.objects import Account, Ids, Json, event
from billingwatch.simulator.people import Customer, Plan

MINUTE, HOUR, DAY = 60, 3600, 86_400  # seconds
USUAL, SMALL = 4900, 100  # cents that a payment is of
SPREAD = 50  # seconds within which all of an incident happens

Story = Callable[["Shop", int], Iterator[Json]]


class Drill(Struct, frozen=True):
    """What is made up for one detector.

    `history` and `planted` tell events of the account before, and up to, an instant in epoch seconds. The past is put
    into the store, what is planted goes through the receiver. `learnt` says that the past has to be learnt before;
    where it need not, it is learnt after the first event of the incident came, and the time for that counts.
    An incident of nothing is timed from the `last` event before it.
    """

    detector: str
    words: str
    planted: Story
    history: Story | None = None
    learnt: bool = False
    timed_from: Literal["first", "last"] = "first"

    @property
    def quick(self) -> bool:
        """Whether nothing has to be learnt at all."""
        return self.history is None and self.timed_from == "first"

    @property
    def tenant(self) -> Tenant:
        """Whose events they are; every drill has an account of its own."""
        return Tenant(DRILL + self.detector, True)

    def past(self, at: int) -> Iterator[bytes]:
        """The account's events before `at`, as bodies of webhooks, in order."""
        return self._bodies("past", self.history, at) if self.history else iter(())

    def plant(self, at: int) -> Iterator[bytes]:
        """The incident's events, up to `at`, in order."""
        return self._bodies("planted", self.planted, at)

    def _bodies(self, what: str, story: Story, at: int) -> Iterator[bytes]:
        rng = random.Random(f"{self.detector}:{what}:{at}")  # noqa: S311 - ids and names are no secrets
        shop = Shop(self.tenant.account, rng, at)
        return map(msgspec.json.encode, story(shop, at))


class Shop:
    """Makes events of one account, each about objects of its own."""

    def __init__(self, account: str, rng: random.Random, at: int) -> None:
        self.account = Account(account)
        self.rng = rng
        self.ids = Ids(rng)
        self._opened = at - 400 * DAY
        self._plan = Plan(self.ids.short("prod_"), self.ids.long("price_1"), "Team", 2900, "month", self._opened)

    def buyer(self) -> Customer:
        return people.customer(self.rng, self.ids, self._opened)

    def paid(self, at: int, cents: int = USUAL, buyer: Customer | None = None) -> Json:
        return self._told("charge.succeeded", self._charge(at, cents, buyer), at)

    def failed(self, at: int, cents: int = USUAL) -> Json:
        return self._told("charge.failed", self._charge(at, cents, failed=True), at)

    def refunded(self, at: int) -> Json:
        """A payment of an hour ago is paid back."""
        sale = self._charge(at - HOUR, USUAL)
        return self._told("refund.created", charges.refund(self.ids, sale, USUAL, at), at)

    def disputed(self, at: int) -> Json:
        """A payment of two weeks ago is charged back."""
        sale = self._charge(at - 14 * DAY, USUAL)
        made = claims.dispute(self.account, self.ids, sale, at, reason="fraudulent")
        return self._told("charge.dispute.created", made, at)

    def canceled(self, at: int) -> Json:
        """A subscriber asks for the end of the subscription."""
        sub = self._subscription(at)
        before = {"cancel_at": None, "cancel_at_period_end": False, "canceled_at": None}
        sub.cancel_at_period_end, sub.canceled_at, sub.reason = True, at, "cancellation_requested"
        return self._told("customer.subscription.updated", billing.subscription(self.account, sub), at, before)

    def shrunk(self, at: int) -> Json:
        """A subscriber goes on with one seat instead of three."""
        sub = self._subscription(at)
        sub.quantity = 3
        before = {"items": billing.items(self.account, sub)}
        sub.quantity = 1
        return self._told("customer.subscription.updated", billing.subscription(self.account, sub), at, before)

    def _charge(self, at: int, cents: int, buyer: Customer | None = None, *, failed: bool = False) -> Json:
        buyer = buyer or self.buyer()
        intent = intents.intent(self.account, self.ids, buyer, cents, at)
        decline = declines.GENERIC if failed else None
        return charges.charge(self.account, self.ids, intent, buyer, at, decline=decline)

    def _subscription(self, at: int) -> Subscription:
        return Subscription(
            id=self.ids.long("sub_1"),
            item=self.ids.short("si_"),
            customer=self.buyer(),
            plan=self._plan,
            quantity=1,
            created=self._opened,
            anchor=15,
            start=at - 10 * DAY,
            end=at + 20 * DAY,
            latest_invoice=self.ids.long("in_1"),
            invoices=12,
        )

    def _told(self, type: str, object: Json, at: int, previous: Json | None = None) -> Json:
        return event(self.account, type, object, at, id=self.ids.long("evt_1"), previous=previous)


def _each(count: int, tell: Callable[[Shop, int], Json]) -> Story:
    """So many within the minute before."""

    def story(shop: Shop, at: int) -> Iterator[Json]:
        for second in _spread(at - SPREAD, at, count):
            yield tell(shop, second)

    return story


def _daily(a_day: int, days: int, tell: Callable[[Shop, int], Json], until: int = 0) -> Story:
    """So many a day, evenly, for so many days that end `until` seconds before."""

    def story(shop: Shop, at: int) -> Iterator[Json]:
        for second in _spread(at - until - days * DAY, at - until, days * a_day):
            yield tell(shop, second)

    return story


def _spread(start: int, end: int, count: int) -> Iterator[int]:
    return (start + (end - start) * (2 * n + 1) // (2 * count) for n in range(count))


def _some_fail(shop: Shop, at: int) -> Iterator[Json]:
    for n, second in enumerate(_spread(at - SPREAD, at, 60)):
        yield shop.paid(second) if n % 4 == 0 else shop.failed(second)


def _twice(shop: Shop, at: int) -> Iterator[Json]:
    for second in _spread(at - SPREAD, at, 20):
        buyer = shop.buyer()
        yield shop.paid(second, buyer=buyer)
        yield shop.paid(second + 1, buyer=buyer)


def _late(shop: Shop, at: int) -> Iterator[Json]:
    for second in _spread(at - 40 * MINUTE, at - 10 * MINUTE, 40):
        yield shop.paid(second)


_nothing_after = _daily(480, 4, Shop.paid, until=5 * HOUR)

DRILLS: dict[str, Drill] = {
    each.detector: each
    for each in (
        Drill("failure_rate", "45 of 60 payments fail", _some_fail),
        Drill("card_testing", "60 small payments fail", _each(60, lambda shop, at: shop.failed(at, SMALL))),
        Drill(
            "refund_spike",
            "60 refunds, usually 4 a day",
            _each(60, Shop.refunded),
            _daily(4, 9, Shop.refunded),
            learnt=True,
        ),
        Drill(
            "churn_spike",
            "60 subscribers cancel, usually 4 a day",
            _each(60, Shop.canceled),
            _daily(4, 4, Shop.canceled),
            learnt=True,
        ),
        Drill(
            "dispute_spike",
            "40 disputes, usually 4 a day",
            _each(40, Shop.disputed),
            _daily(4, 9, Shop.disputed),
            learnt=True,
        ),
        Drill("duplicate_charges", "20 buyers are charged twice", _twice),
        Drill(
            "volume_drop",
            "5 payments in 7 hours, usually 140",
            _each(5, Shop.paid),
            _daily(480, 8, Shop.paid, until=7 * HOUR),
        ),
        Drill(
            "revenue_drop",
            "as many payments as usual of a fiftieth of the money",
            _each(100, lambda shop, at: shop.paid(at, SMALL)),
            _daily(336, 15, Shop.paid, until=7 * HOUR),
        ),
        Drill(
            "mrr_drop",
            "60 subscribers give up seats, usually 2 a day",
            _each(60, Shop.shrunk),
            _daily(2, 37, Shop.shrunk),
            learnt=True,
        ),
        Drill("webhook_silence", "nothing for 5 hours, usually 15 events an hour", _nothing_after, timed_from="last"),
        Drill("webhook_lag", "40 events come 10 to 40 minutes late", _late),
    )
}
