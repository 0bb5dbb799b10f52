"""Who buys what: customers, their cards and the price list, drawn with realistic weights. No event is made here."""

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from msgspec import Struct

from billingwatch.simulator.objects import Account, Ids

T = TypeVar("T")


class Weighted(Generic[T]):
    """A choice with weights, by one random number."""

    def __init__(self, weights: dict[T, float]) -> None:
        self.weights = weights
        self._values = list(weights)
        total = sum(weights.values())
        self._bounds = [bound / total for bound in accumulate(weights.values())]
        self._bounds[-1] = 1.0

    def draw(self, rng: random.Random) -> T:
        """One of the values."""
        number = rng.random()
        for bound, value in zip(self._bounds, self._values, strict=True):
            if number < bound:
                return value
        return self._values[-1]


class Place(Struct, frozen=True, gc=False):
    """A town that customers live in, with the country of their cards."""

    country: str
    city: str
    state: str | None
    postal_code: str
    line1: str


class Card(Struct, frozen=True, gc=False):
    """A payment card as Stripe shows it: never the number, only its last digits and a fingerprint."""

    method: str  # pm_…
    brand: str
    country: str
    funding: str
    last4: str
    exp_month: int
    exp_year: int
    fingerprint: str


class Customer(Struct, frozen=True, gc=False):
    """A buyer. `id` is "" for a guest of the checkout."""

    id: str
    name: str
    email: str
    place: Place
    card: Card
    created: int


class Plan(Struct, frozen=True):
    """A price of the catalogue; `cents` is its level in US cents, `interval` is "" for a one-off product."""

    product: str
    price: str
    name: str
    cents: int
    interval: str
    created: int


BRANDS = Weighted({"visa": 0.55, "mastercard": 0.3, "amex": 0.09, "discover": 0.03, "jcb": 0.02, "diners": 0.01})
FUNDING = Weighted({"credit": 0.5, "debit": 0.44, "prepaid": 0.06})
PLACES = Weighted(
    {
        Place("US", "Portland", "OR", "97201", "1420 SW Harvest Street"): 0.22,
        Place("US", "Austin", "TX", "78701", "88 Congress Avenue"): 0.18,
        Place("US", "Chicago", "IL", "60601", "301 Lakeside Drive"): 0.12,
        Place("GB", "Leeds", None, "LS1 4AP", "17 Wellington Row"): 0.11,
        Place("DE", "Hamburg", None, "20095", "Lindenallee 5"): 0.09,
        Place("FR", "Lyon", None, "69002", "12 rue des Tisserands"): 0.07,
        Place("CA", "Toronto", "ON", "M5H 2N2", "220 Bayview Crescent"): 0.07,
        Place("AU", "Melbourne", "VIC", "3000", "64 Flinders Parade"): 0.05,
        Place("JP", "Osaka", None, "530-0001", "2-4-9 Umeda, Kita-ku"): 0.04,
        Place("BR", "Curitiba", "PR", "80010-000", "Rua das Araucarias 310"): 0.03,
        Place("IN", "Pune", "MH", "411001", "7 Shivaji Marg"): 0.02,
    }
)
EUROPE = frozenset({"GB", "DE", "FR"})  # where the bank must be asked: strong customer authentication
FIRST = (
    *("Ada", "Bruno", "Chiara", "Deniz", "Elif", "Farah", "Goran", "Hana", "Igor", "Jun"),
    *("Katya", "Liam", "Mei", "Nadia", "Omar", "Priya", "Rosa", "Sven", "Tomas", "Yuki"),
)
LAST = (
    *("Almeida", "Brandt", "Castillo", "Dubois", "Eriksen", "Fontaine", "Greco", "Hughes", "Ito", "Jansen"),
    *("Kowalski", "Lindqvist", "Moreau", "Novak", "Okafor", "Petrov", "Quinn", "Rossi", "Santos", "Tanaka"),
)

_SUBSCRIPTIONS = (("Starter", 900), ("Team", 2900), ("Growth", 7900), ("Business", 19900))
_PRODUCTS = (
    ("Tip", 300),
    ("Sticker pack", 700),
    ("Notebook", 1900),
    ("Course", 4900),
    ("Keyboard", 12900),
    ("Workshop", 34900),
)


class Catalogue(Struct, frozen=True):
    """What an account sells."""

    plans: Weighted[Plan]
    products: Weighted[Plan]


def stock(ids: Ids, created: int) -> Catalogue:
    """A small price list: four plans by month and by year, six one-off products."""

    def plan(name: str, cents: int, interval: str) -> Plan:
        return Plan(ids.short("prod_"), ids.long("price_1"), name, cents, interval, created)

    shares = (0.42, 0.36, 0.16, 0.06)
    plans: dict[Plan, float] = {}
    for (name, cents), share in zip(_SUBSCRIPTIONS, shares, strict=True):
        plans[plan(f"{name} monthly", cents, "month")] = share * 0.85
        plans[plan(f"{name} yearly", cents * 10, "year")] = share * 0.15
    products = {
        plan(name, cents, ""): share
        for (name, cents), share in zip(_PRODUCTS, (0.04, 0.25, 0.31, 0.21, 0.14, 0.05), strict=True)
    }
    return Catalogue(Weighted(plans), Weighted(products))


def card(rng: random.Random, ids: Ids, country: str, created: int) -> Card:
    """A card issued in `country` that is still good for years at `created` (epoch seconds)."""
    number = rng.random()
    return Card(
        method=ids.long("pm_1"),
        brand=BRANDS.draw(rng),
        country=country,
        funding=FUNDING.draw(rng),
        last4=f"{int(number * 10000):04d}",
        exp_month=1 + int(number * 97) % 12,
        exp_year=1972 + created // 31_556_952 + int(number * 89) % 4,
        fingerprint=ids.token(16),
    )


def customer(rng: random.Random, ids: Ids, created: int, guest: bool = False) -> Customer:
    """A person with an address at example.com, which no mail can reach."""
    first = FIRST[int(rng.random() * len(FIRST))]
    last = LAST[int(rng.random() * len(LAST))]
    place = PLACES.draw(rng)
    return Customer(
        id="" if guest else ids.short("cus_"),
        name=f"{first} {last}",
        email=f"{first.lower()}.{last.lower()}.{int(rng.random() * 1e6)}@example.com",
        place=place,
        card=card(rng, ids, place.country, created),
        created=created,
    )


def monthly(account: Account, plan: Plan, quantity: int) -> float:
    """Minor units a month that so many of the plan bring."""
    return total(account, plan, quantity) / (12 if plan.interval == "year" else 1)


def mean(products: Weighted[Plan]) -> float:
    """The average price level, in cents."""
    return sum(plan.cents * share for plan, share in products.weights.items()) / sum(products.weights.values())


def pick(rng: random.Random, values: Sequence[T]) -> T:
    """One of the values, each as likely as the others."""
    return values[int(rng.random() * len(values))]


def total(account: Account, plan: Plan, quantity: int) -> int:
    """Minor units that `quantity` of the plan cost."""
    return account.price(plan.cents) * quantity
