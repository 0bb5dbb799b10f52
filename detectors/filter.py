"""Users' rules that count apart: which facts such a rule counts, as a metric of its own. Reads no configuration."""

from msgspec import Struct

from billingwatch.model import Fact

RULE = "rule."  # what such a metric's name begins with


class Filter(Struct, frozen=True):
    """What is empty may be anything. `brand` and `country` are the card's, `price` is the id of a price."""

    name: str
    metric: str
    strata: tuple[str, ...] = ()
    currency: str = ""
    brand: str = ""
    country: str = ""
    price: str = ""

    @property
    def counted(self) -> str:
        """The metric that it counts as."""
        return RULE + self.name

    @property
    def asks(self) -> str:
        """What not every telling of a payment knows and this rule asks for: `""`, `"card"`, `"price"`, or both."""
        return "+".join(filter(None, ("card" if self.brand or self.country else "", "price" if self.price else "")))

    def matches(self, fact: Fact, stratum: str) -> bool:
        """Whether the fact counts. `stratum` is the one it is counted in: a retry is told from a first attempt late."""
        return (
            fact.metric == self.metric
            and (not self.strata or stratum in self.strata)
            and self.currency in ("", fact.currency)
            and self.brand in ("", fact.brand)
            and self.country in ("", fact.country)
            and self.price in ("", fact.price)
        )


def answers(fact: Fact, asks: str) -> bool:
    """Whether this telling of a payment knows what is asked for."""
    return ("card" not in asks or bool(fact.brand or fact.country)) and ("price" not in asks or bool(fact.price))
