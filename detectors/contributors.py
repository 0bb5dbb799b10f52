"""What an incident's excess has in common: the decline code, card brand, country or price that explains most of it.

Compares what went wrong in a window with what went right in it, and speaks only of what differs clearly. Knows no
other window, so it says nothing of what is always so; and it names codes, never people.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import sqrt
from typing import Protocol

from msgspec import Struct

from billingwatch.model import Money

MOST = 3  # contributors: more is no explanation
EXPLAINS = 0.4  # of the excess, at least
CLEARLY = 0.1  # of share above the usual one, at least
SURE = 2.5  # standard deviations of such a share
OTHERS = 10  # with fewer there is nothing to compare with

# The codes that say why: only what went wrong has them, so they stand beside equal shares and not beside others.
CAUSES = ("decline code", "reason")
ORDER = (
    *CAUSES,
    "card brand",
    "card country",
    "card funding",
    "payment method",
    "price",
    "product",
    "currency",
    "API version",
)
EVEN = frozenset({"price", "product"})  # without others, equal shares are what one would expect; of brands never
COARSER = {"price": "product"}  # that the same objects share it follows


class Observed(Protocol):
    """One business object of the window: an attempt, a refund, a dispute, a subscription."""

    @property
    def dims(self) -> dict[str, str]: ...

    @property
    def customer(self) -> str: ...

    @property
    def amount(self) -> int: ...

    @property
    def currency(self) -> str: ...

    @property
    def bad(self) -> bool:
        """Whether the incident counts it; the others are there to compare with."""


class Contributor(Struct, frozen=True):
    """A value that `count` of the `total` have in common."""

    dimension: str
    value: str
    count: int
    total: int
    share: float  # of the excess that it explains, 0 to 1
    usual: float | None = None  # its share of the others, 0 to 1; None where nothing could be compared

    @property
    def sentence(self) -> str:
        """`"26 of 31: card brand visa (41 % of the others)"`."""
        beside = "" if self.usual is None else f" ({self.usual:.0%} of the others)".replace("%", " %")
        return f"{self.count} of {self.total}: {self.dimension} {self.value}{beside}"


def contributors(observations: Iterable[Observed], rate: float = 0.0) -> tuple[Contributor, ...]:
    """The values that explain most of the excess, the strongest first, one a dimension and at most three.

    `rate` is the share of all that usually goes bad, as that of failures among attempts; with it a value's excess is
    what went bad beyond its own attempts' share. 0 where the bad are no part of the others, as with refunds.
    """
    seen = list(observations)
    bad, good = [each for each in seen if each.bad], [each for each in seen if not each.bad]
    excess = len(bad) - rate * len(seen)
    if excess <= 0:
        return ()
    found: dict[str, Contributor] = {}
    for dimension in sorted({name for each in bad for name in each.dims}, key=_place):
        top = _top(dimension, bad, good, rate, excess)
        if top:
            found[dimension] = top
    for fine, coarse in COARSER.items():
        if fine in found and coarse in found and found[coarse].count == found[fine].count:
            del found[coarse]
    # Sorting keeps the order of dimensions among equals.
    return tuple(sorted(found.values(), key=lambda each: -each.share)[:MOST])


def tell(found: Sequence[Contributor], noun: str) -> str:
    """All in one sentence: `"28 of 31 failures: decline code do_not_honor; 26 of 31: card brand visa"`."""
    if not found:
        return ""
    first = found[0].sentence.replace(":", f" {noun}:", 1)
    return "; ".join([first, *(each.sentence for each in found[1:])])


def customers(observations: Iterable[Observed]) -> int:
    """How many customers are affected; guests cannot be told apart and do not count."""
    return len({each.customer for each in observations if each.bad and each.customer})


def money(observations: Iterable[Observed]) -> tuple[Money, ...]:
    """The sum of what went bad, by currency, the largest number of minor units first."""
    sums: Counter[str] = Counter()
    for each in observations:
        if each.bad and each.currency and each.amount > 0:
            sums[each.currency] += each.amount
    return tuple(
        Money(amount, currency) for currency, amount in sorted(sums.items(), key=lambda row: (-row[1], row[0]))
    )


def _top(
    dimension: str, bad: Sequence[Observed], good: Sequence[Observed], rate: float, excess: float
) -> Contributor | None:
    """Of the dimension's values that explain much and are told apart from the usual, the one that explains most."""
    wrong, right = _values(dimension, bad), _values(dimension, good)

    def explained(value: str) -> float:
        return wrong[value] - rate * (wrong[value] + right[value])

    known, others = wrong.total(), right.total()
    for value in sorted(wrong, key=lambda each: (-explained(each), each)):
        share = min(1.0, explained(value) / excess)
        if share < EXPLAINS:
            break
        part, usual = wrong[value] / known, None
        if dimension in CAUSES:
            # One that is the only one still might have been another.
            told = part == 1 or _clear(part, 1 / max(2, len(wrong)), known)
        elif others >= OTHERS:
            usual = right[value] / others
            told = _clear(part, usual, known, others)
        else:
            # A price that is the only one is perhaps all there is.
            told = dimension in EVEN and len(wrong) > 1 and _clear(part, 1 / len(wrong), known)
        if told:
            return Contributor(dimension, value, wrong[value], len(bad), share, usual)
    return None


def _clear(share: float, usual: float, known: int, others: int = 0) -> bool:
    """Whether so large a share of `known` is no chance where `usual` was seen, of so many others."""
    if others:
        usual = (usual * others + 1) / (others + 2)  # none of twelve does not mean never
    spread = usual * (1 - usual) * (1 / known + (1 / others if others else 0.0))
    return share - usual >= max(CLEARLY, SURE * sqrt(spread))


def _values(dimension: str, observations: Iterable[Observed]) -> Counter[str]:
    return Counter(each.dims[dimension] for each in observations if dimension in each.dims)


def _place(dimension: str) -> tuple[int, str]:
    return (ORDER.index(dimension) if dimension in ORDER else len(ORDER), dimension)
