"""Counting: neither the order, nor the batches, nor repetition of what is told changes a total."""

import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.model import Bucket, Fact, RefundBook, Refunded
from detectors.facts import CHECKOUT, MRR, PAYMENT_FAILED, PAYMENT_SUCCEEDED, REFUND, RENEWAL, RETRY, Told
from detectors.tally import charges, claims, tally

Totals = dict[tuple[str, str, int], tuple[int, int]]  # metric, currency, grain -> count, amount
CURRENCIES = ("usd", "eur", "jpy")
DAY = 86400


class Ledger:
    """What the store remembers between batches: what was claimed, the book of refunds, the rollups."""

    def __init__(self) -> None:
        self.claimed: set[str] = set()
        self.book: dict[str, RefundBook] = {}
        self.grown: list[Bucket] = []

    def record(self, told: Sequence[Told]) -> list[Bucket]:
        """Count a batch; what it grew by."""
        fresh = claims(told) - self.claimed
        self.claimed |= fresh
        grown, changed = tally(told, fresh, {charge: self.book[charge] for charge in charges(told) & self.book.keys()})
        self.book |= changed
        self.grown += grown
        return grown

    def totals(self) -> Totals:
        sums: Totals = {}
        for bucket in self.grown:
            key = (bucket.metric, bucket.currency, bucket.grain)
            count, amount = sums.get(key, (0, 0))
            sums[key] = (count + bucket.count, amount + bucket.amount)
        return sums


def recorded(batches: Iterable[Sequence[Told]]) -> Totals:
    ledger = Ledger()
    for batch in batches:
        ledger.record(batch)
    return ledger.totals()


def shuffled(told: Sequence[Told], seed: int) -> list[list[Told]]:
    """The same facts in another order and in batches of any size, empty ones included."""
    chance = random.Random(seed)
    rest = chance.sample(told, len(told))
    batches = []
    while rest:
        size = chance.randrange(len(rest) + 1)
        batches.append(rest[:size])
        rest = rest[size:]
    return batches


@st.composite
def payments(draw: st.DrawFn) -> Fact:
    """A payment attempt: one of a few charges, whose amount, outcome and intent are its own, told at any time."""
    charge = draw(st.integers(0, 9))
    metric = PAYMENT_FAILED if charge % 3 else PAYMENT_SUCCEEDED
    return Fact(
        metric,
        draw(st.integers(0, DAY)),
        claim=f"ch_{charge}:{metric}",
        stratum=(CHECKOUT, RENEWAL)[charge % 2],
        currency=CURRENCIES[charge % 3],
        amount=100 + charge,
        attempt_of=f"pi_{charge // 2}",
    )


@st.composite
def refunds(draw: st.DrawFn) -> list[Refunded]:
    """Every telling of the refunds of one charge, by its refunds and by the charge's totals."""
    charge = f"ch_{draw(st.integers(0, 10**6))}"
    amounts = draw(st.lists(st.integers(1, 5000), min_size=1, max_size=5))
    currency = draw(st.sampled_from(CURRENCIES))
    told, total = [], 0
    for number, amount in enumerate(amounts):
        total += amount
        created = draw(st.integers(0, DAY))
        told.append(Refunded(charge, created, currency, refund=f"re_{charge}_{number}", amount=amount))
        told.append(Refunded(charge, created, currency, amount=total))
    return told


seeds = st.integers(0, 2**32)
changes = st.builds(
    Fact, st.just(MRR), st.integers(0, DAY), currency=st.sampled_from(CURRENCIES), amount=st.integers(-900, 900)
)
heard = refunds().flatmap(lambda told: st.lists(st.sampled_from(told), min_size=1, unique=True))  # some are lost
stories = st.tuples(
    st.lists(payments(), max_size=25), st.lists(heard, max_size=4, unique_by=lambda told: told[0].charge)
).map(lambda found: [*found[0], *(each for told in found[1] for each in told)])


@given(stories, st.lists(changes, max_size=5), seeds)
def test_no_order_and_no_batch_changes_a_total(told: list[Told], moved: list[Fact], seed: int) -> None:
    everything = [*told, *moved]
    assert recorded(shuffled(everything, seed)) == recorded([everything])


@given(stories, seeds)
def test_what_is_told_again_changes_nothing(told: list[Told], seed: int) -> None:
    again = [*told, *random.Random(seed).choices(told, k=len(told) and 20)]
    assert recorded(shuffled(again, seed)) == recorded([told])


@given(stories)
def test_both_grains_hold_the_same(told: list[Told]) -> None:
    totals = recorded([told])
    fine = {key: grown for key, grown in totals.items() if key[2] == 5}
    assert fine == {(metric, currency, 5): grown for (metric, currency, grain), grown in totals.items() if grain == 60}


@pytest.mark.parametrize("feed", ["refund.created", "charge.refunded", "both"])
@given(told=refunds(), seed=seeds)
def test_either_telling_of_refunds_or_both_count_each_once(feed: str, told: list[Refunded], seed: int) -> None:
    by_refund = [each for each in told if each.refund]
    by_charge = [each for each in told if not each.refund]
    fed: Sequence[Told] = {"refund.created": by_refund, "charge.refunded": by_charge, "both": told}[feed]
    totals = recorded(shuffled(fed, seed))
    assert totals[REFUND, told[0].currency, 60] == (len(by_refund), sum(each.amount for each in by_refund))


def attempt(charge: str, created: int, metric: str = PAYMENT_FAILED) -> Fact:
    return Fact(
        metric, created, claim=f"{charge}:{metric}", stratum=RENEWAL, currency="usd", amount=900, attempt_of="pi_1"
    )


def strata(grown: Iterable[Bucket]) -> dict[tuple[str, str], int]:
    return {(bucket.metric, bucket.stratum): bucket.count for bucket in grown if bucket.grain == 60}


def test_later_attempts_of_a_payment_are_retries() -> None:
    ledger = Ledger()
    first = ledger.record([attempt("ch_2", 60), attempt("ch_1", 0), attempt("ch_3", 120)])
    assert strata(first) == {(PAYMENT_FAILED, RENEWAL): 1, (PAYMENT_FAILED, RETRY): 2}
    later = ledger.record([attempt("ch_4", 180, PAYMENT_SUCCEEDED)])
    assert strata(later) == {(PAYMENT_SUCCEEDED, RETRY): 1}


def test_of_two_tellings_in_a_batch_the_earlier_one_counts() -> None:
    grown = Ledger().record([attempt("ch_1", 7201), attempt("ch_1", 3599)])
    assert {(bucket.grain, bucket.start, bucket.count) for bucket in grown} == {(5, 3300, 1), (60, 0, 1)}


@pytest.mark.parametrize("amount", [0, -5])
def test_a_charge_that_says_nothing_was_refunded_counts_nothing(amount: int) -> None:
    assert Ledger().record([Refunded("ch_1", 0, "usd", amount=amount)]) == []


def test_refunds_that_one_feed_did_not_tell_are_made_up_for_by_the_other() -> None:
    ledger = Ledger()
    ledger.record([Refunded("ch_1", 0, "usd", refund="re_1", amount=100)])
    ledger.record([Refunded("ch_1", 600, "usd", amount=350)])  # re_2 was lost
    assert ledger.totals()[REFUND, "usd", 60] == (1, 350)
    ledger.record([Refunded("ch_1", 300, "usd", refund="re_2", amount=250)])
    assert ledger.totals()[REFUND, "usd", 60] == (2, 350)
