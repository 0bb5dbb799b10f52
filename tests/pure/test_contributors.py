"""What most of the bad have in common is told, what is as common among the good is not, and people never are."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from billingwatch.model import Money
from detectors.contributors import EXPLAINS, MOST, Contributor, contributors, customers, money, tell


class Seen(Struct, frozen=True):
    dims: dict[str, str]
    customer: str = ""
    amount: int = 0
    currency: str = "usd"
    bad: bool = True


def many(count: int, bad: bool = True, **dims: str) -> list[Seen]:
    """So many alike; dimensions written with `_` for a space."""
    named = {name.replace("_", " "): value for name, value in dims.items()}
    return [Seen(named, customer=f"cus_{n}", bad=bad) for n in range(count)]


def good(count: int, **dims: str) -> list[Seen]:
    return many(count, bad=False, **dims)


def sentences(seen: Sequence[Seen], rate: float = 0.0) -> list[str]:
    return [each.sentence for each in contributors(seen, rate)]


CASES = {
    "a decline code that most failures share": (
        [
            *many(28, decline_code="do_not_honor"),
            *many(2, decline_code="expired_card"),
            *many(1, decline_code="incorrect_cvc"),
        ],
        ["28 of 31: decline code do_not_honor"],
    ),
    "the only decline code there is": (many(6, decline_code="fraudulent"), ["6 of 6: decline code fraudulent"]),
    "decline codes in even parts": (
        [*many(11, decline_code="expired_card"), *many(10, decline_code="fraudulent")],
        [],
    ),
    "a brand that fails far more than its share": (
        [
            *many(29, card_brand="visa"),
            *many(2, card_brand="amex"),
            *good(41, card_brand="visa"),
            *good(59, card_brand="amex"),
        ],
        ["29 of 31: card brand visa (41 % of the others)"],
    ),
    "a brand that fails as often as it pays": (
        [
            *many(22, card_brand="visa"),
            *many(9, card_brand="amex"),
            *good(70, card_brand="visa"),
            *good(30, card_brand="amex"),
        ],
        [],
    ),
    "a small brand beside a large one that fails as it always does": (
        [
            *many(15, card_brand="amex"),
            *many(18, card_brand="visa"),
            *good(90, card_brand="visa"),
            *good(7, card_brand="amex"),
        ],
        ["15 of 33: card brand amex (7 % of the others)"],
    ),
    "a brand of which nothing went through": (
        [*many(30, card_brand="visa"), *good(40, card_brand="amex")],
        ["30 of 30: card brand visa (0 % of the others)"],
    ),
    "cards of one country that flood the checkout": (
        [
            *many(200, card_country="BR"),
            *many(3, card_country="US"),
            *good(2, card_country="BR"),
            *good(40, card_country="US"),
        ],
        ["200 of 203: card country BR (5 % of the others)"],
    ),
    "brands with nothing to compare them with": ([*many(28, card_brand="visa"), *many(3, card_brand="amex")], []),
    "a currency that is the only one": ([*many(12, currency="usd"), *good(50, currency="usd")], []),
    "one price of four, nothing to compare with": (
        [*many(30, price="price_a"), *(each for name in "bcd" for each in many(2, price=f"price_{name}"))],
        ["30 of 36: price price_a"],
    ),
    "a price that is the only one, nothing to compare with": (many(12, price="price_a"), []),
    "a price of its own product, told once": (
        [*many(12, price="price_a", product="prod_a"), *good(60, price="price_b", product="prod_b")],
        ["12 of 12: price price_a (0 % of the others)"],
    ),
    "a product of several prices": (
        [
            *many(6, price="price_a", product="prod_a"),
            *many(7, price="price_b", product="prod_a"),
            *good(60, price="price_c", product="prod_c"),
        ],
        [
            "13 of 13: product prod_a (0 % of the others)",
            "7 of 13: price price_b (0 % of the others)",
        ],
    ),
    "many that carry no brand at all": (
        [*many(20), *many(6, card_brand="visa"), *good(50, card_brand="amex")],
        [],
    ),
    "two refunds": (many(2, reason="duplicate"), ["2 of 2: reason duplicate"]),
    "nothing bad": (good(50, card_brand="visa"), []),
    "nothing at all": ([], []),
}


@pytest.mark.parametrize(("seen", "told"), CASES.values(), ids=CASES)
def test_what_explains_the_excess_is_told_and_nothing_else(seen: list[Seen], told: list[str]) -> None:
    assert sentences(seen) == told


def test_what_usually_fails_of_a_values_own_attempts_is_no_part_of_its_excess() -> None:
    seen = [*many(6, card_brand="amex"), *many(10, card_brand="visa"), *good(190, card_brand="visa")]
    seen += good(14, card_brand="amex")
    (told,) = contributors(seen, rate=0.05)
    assert (told.value, told.count, told.total) == ("amex", 6, 16)
    assert told.share == pytest.approx((6 - 0.05 * 20) / (16 - 0.05 * 220))
    assert sentences(seen) == [], "of all that failed, usual failures included, amex is the smaller part"


def test_no_more_failed_than_usual_and_so_there_is_nothing_to_explain() -> None:
    seen = [*many(5, decline_code="do_not_honor"), *good(95)]
    assert contributors(seen, rate=0.05) == ()


def test_strongest_three_are_told_in_order_of_what_they_explain() -> None:
    seen = [
        *many(20, decline_code="do_not_honor", card_brand="visa", card_funding="debit", card_country="FR"),
        *many(6, decline_code="do_not_honor", card_brand="visa", card_funding="debit", card_country="US"),
        *many(4, decline_code="do_not_honor", card_brand="visa", card_funding="credit", card_country="US"),
        *many(1, decline_code="expired_card", card_brand="amex", card_funding="credit", card_country="US"),
        *good(90, card_brand="amex", card_funding="credit", card_country="US"),
    ]
    found = contributors(seen)
    assert [(each.dimension, each.count) for each in found] == [
        ("decline code", 30),
        ("card brand", 30),
        ("card funding", 26),
    ]
    assert tell(found, "failures") == (
        "30 of 31 failures: decline code do_not_honor; 30 of 31: card brand visa (0 % of the others);"
        " 26 of 31: card funding debit (0 % of the others)"
    )


def test_no_contributors_make_no_sentence() -> None:
    assert tell((), "refunds") == ""


def test_affected_customers_count_once_each_guests_and_the_unharmed_not_at_all() -> None:
    seen = [Seen({}, customer=name) for name in ("cus_a", "cus_a", "cus_b", "")]
    assert customers([*seen, Seen({}, customer="cus_c", bad=False)]) == 2


def test_sums_are_made_in_each_currency_and_of_the_bad_alone() -> None:
    seen = [
        Seen({}, amount=500, currency="usd"),
        Seen({}, amount=700, currency="usd"),
        Seen({}, amount=90_000, currency="jpy"),
        Seen({}, amount=4000, currency="kwd", bad=False),
        Seen({}, amount=0, currency="eur"),
    ]
    assert money(seen) == (Money(90_000, "jpy"), Money(1200, "usd"))


values = st.sampled_from(["a", "b", "c"])
dims = st.dictionaries(st.sampled_from(["decline code", "card brand", "price", "product", "API version"]), values)
observed = st.builds(Seen, dims, st.sampled_from(["", "cus_secret"]), st.integers(0, 9), st.just("usd"), st.booleans())


@given(st.lists(observed, max_size=80), st.floats(0, 0.5), st.randoms(use_true_random=False))
def test_order_of_events_changes_nothing(seen: list[Seen], rate: float, rng: random.Random) -> None:
    shuffled = rng.sample(seen, len(seen))
    assert contributors(seen, rate) == contributors(shuffled, rate)


@given(st.lists(observed, max_size=80), st.floats(0, 0.5))
def test_contributors_are_few_true_and_speak_of_nobody(seen: list[Seen], rate: float) -> None:
    found = contributors(seen, rate)
    assert len(found) <= MOST
    assert len({each.dimension for each in found}) == len(found)
    for each in found:
        assert EXPLAINS <= each.share <= 1
        assert each.count == sum(one.bad and one.dims.get(each.dimension) == each.value for one in seen)
        assert each.total == sum(one.bad for one in seen)
        assert "cus_" not in each.sentence


@given(st.integers(30, 300), st.integers(30, 300), st.floats(0.2, 0.8))
def test_shares_that_are_alike_are_never_told(bad: int, others: int, part: float) -> None:
    def split(count: int, is_bad: bool) -> list[Seen]:
        first = round(count * part)
        return many(first, is_bad, card_brand="visa") + many(count - first, is_bad, card_brand="amex")

    assert contributors(split(bad, True) + split(others, False)) == ()


def test_a_contributor_that_was_compared_says_with_what() -> None:
    assert Contributor("card brand", "visa", 26, 31, 0.9, 0.414).sentence == (
        "26 of 31: card brand visa (41 % of the others)"
    )
