"""What a purchase, a bill and a lost subscription are worth: means and mean squares of the catalogue's amounts."""

from collections.abc import Callable

from msgspec import Struct

from billingwatch.simulator import people
from billingwatch.simulator.objects import Account
from billingwatch.simulator.people import Catalogue, Plan

SMALL = 500  # cents: what card testers try
# Of quantities: 9 of 10 buyers take one, the others 2 to 4; 8 of 10 subscribers have one seat, the others 2 to 10.
ONE = 0.9
_PURCHASED = (1.2, 1.867)  # mean, mean square
_SEATS = (2.0, 9.333)


class Worth(Struct, frozen=True):
    """Means and mean squares, in minor units."""

    purchase: tuple[float, float]
    first: tuple[float, float]  # bill of a subscription
    later: tuple[float, float]  # bill: yearly plans are rare among them
    subscription: tuple[float, float]  # a month
    small: float  # share of purchases

    def sales(self, purchases: float, first: float, later: float) -> float:
        """So many charges of one size would make revenue as uncertain as these do."""
        total, square = (
            one * purchases + two * first + three * later
            for one, two, three in zip(self.purchase, self.first, self.later, strict=True)
        )
        return total**2 / square if square else 0.0

    @property
    def loss(self) -> float:
        """The one size that lost subscriptions are counted in."""
        return self.subscription[1] / self.subscription[0]

    @property
    def losing(self) -> float:
        """How many losses of that size one lost subscription is, on average."""
        return self.subscription[0] / self.loss


def worth(account: Account, catalogue: Catalogue) -> Worth:
    """Weigh the catalogue in the account's currency."""
    products, plans = catalogue.products.weights, catalogue.plans.weights
    # A yearly plan is billed a twelfth as often as there are subscriptions to it.
    billed = {plan: share / (12 if plan.interval == "year" else 1) for plan, share in plans.items()}
    return Worth(
        purchase=_moments(products, lambda plan: people.total(account, plan, 1), _PURCHASED),
        first=_moments(plans, lambda plan: people.total(account, plan, 1), _SEATS),
        later=_moments(billed, lambda plan: people.total(account, plan, 1), _SEATS),
        subscription=_moments(plans, lambda plan: people.monthly(account, plan, 1), _SEATS),
        small=ONE * sum(share for plan, share in products.items() if plan.cents <= SMALL) / sum(products.values()),
    )


def _moments(
    weights: dict[Plan, float], value: Callable[[Plan], float], quantity: tuple[float, float]
) -> tuple[float, float]:
    total = sum(weights.values())
    mean = sum(value(plan) * share for plan, share in weights.items()) / total
    square = sum(value(plan) ** 2 * share for plan, share in weights.items()) / total
    return mean * quantity[0], square * quantity[1]
