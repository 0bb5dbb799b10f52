"""Counting: neither the order, nor the batches, nor repetition of what is told changes a total."""

import random
from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.model import Bucket, Fact, Paid, RefundBook, Refunded
from detectors.facts import (
    ANY,
    ARRIVED,
    CARD,
    CHECKOUT,
    DISPUTE,
    DUE,
    DUPLICATE,
    LATE,
    MRR,
    PAYMENT_FAILED,
    PAYMENT_SUCCEEDED,
    PEOPLE,
    REFUND,
    RENEWAL,
    RETRY,
    SMALL_FAILED,
    Told,
)
from detectors.filter import Filter
from detectors.tally import charges, claims, payments, tally

Totals = dict[tuple[str, str, int], tuple[int, int]]  # metric, currency, grain -> count, amount
CURRENCIES = ("usd", "eur", "jpy")
DAY = 86400


class Ledger:
    """What the store remembers between batches: claims, the book of refunds, who paid of late, the rollups."""

    def __init__(self, *filters: Filter) -> None:
        self.filters = filters
        self.claimed: set[str] = set()
        self.book: dict[str, RefundBook] = {}
        self.paid: dict[str, list[Paid]] = {}
        self.grown: list[Bucket] = []

    def record(self, told: Sequence[Told]) -> list[Bucket]:
        """Count a batch; what it grew by."""
        fresh = claims(told, self.filters) - self.claimed
        self.claimed |= fresh
        recent = {key: self.paid[key] for key in payments(told, fresh) if key in self.paid}
        book = {charge: self.book[charge] for charge in charges(told) & self.book.keys()}
        grown, changed, paid = tally(told, fresh, book, recent, self.filters)
        self.book |= changed
        for key, each in paid.items():
            self.paid[key] = [*self.paid.get(key, ()), *each]
        self.grown += grown
        return grown

    def totals(self) -> Totals:
        sums: Totals = {}
        for bucket in self.grown:
            key = (bucket.metric, bucket.currency, bucket.grain)
            count, amount = sums.get(key, (0, 0))
            sums[key] = (count + bucket.count, amount + bucket.amount)
        return {key: total for key, total in sums.items() if any(total)}


def recorded(batches: Iterable[Sequence[Told]], *filters: Filter) -> Totals:
    ledger = Ledger(*filters)
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
def attempts(draw: st.DrawFn) -> Fact:
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
    st.lists(attempts(), max_size=25), st.lists(heard, max_size=4, unique_by=lambda told: told[0].charge)
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


# Payments made twice


def sale(attempt: str, created: int, *, payer: str = "cus_1", amount: int = 900, **more: object) -> Fact:
    claim = f"{attempt.replace('pi', 'ch')}:{PAYMENT_SUCCEEDED}"
    plain = Fact(PAYMENT_SUCCEEDED, created, claim, CHECKOUT, "usd", amount, attempt, payer=payer)
    return msgspec.structs.replace(plain, **more)


def duplicates(grown: Iterable[Bucket]) -> list[tuple[int, int, int]]:
    """(start, count, amount) of what was paid twice."""
    found: dict[int, tuple[int, int]] = {}
    for each in grown:
        if each.metric == DUPLICATE and each.grain == 5:
            assert (each.stratum, each.currency) == ("", "usd")
            count, amount = found.get(each.start, (0, 0))
            found[each.start] = (count + each.count, amount + each.amount)
    return sorted((start, *grown) for start, grown in found.items())


PAIRS: dict[str, tuple[list[Fact], list[tuple[int, int, int]]]] = {
    "the same twice in ten minutes": ([sale("pi_1", 300), sale("pi_2", 900)], [(900, 1, 900)]),
    "the same a second later": ([sale("pi_1", 300), sale("pi_2", 901)], []),
    "at the same second": ([sale("pi_1", 300), sale("pi_2", 300)], [(300, 1, 900)]),
    "three times": ([sale("pi_1", 0), sale("pi_2", 1), sale("pi_3", 2)], [(0, 2, 1800)]),
    "a chain": ([sale("pi_1", 0), sale("pi_2", 600), sale("pi_3", 1200)], [(600, 1, 900), (1200, 1, 900)]),
    "another amount": ([sale("pi_1", 0), sale("pi_2", 1, amount=901)], []),
    "another currency": ([sale("pi_1", 0), sale("pi_2", 1, currency="eur")], []),
    "another customer": ([sale("pi_1", 0), sale("pi_2", 1, payer="cus_2")], []),
    "nobody knows who": ([sale("pi_1", 0, payer=""), sale("pi_2", 1, payer="")], []),
    "of nothing": ([sale("pi_1", 0, amount=0), sale("pi_2", 1, amount=0)], []),
    "one that failed": ([sale("pi_1", 0), sale("pi_2", 1, metric=PAYMENT_FAILED)], []),
    "two charges of one intent": ([sale("pi_1", 0), sale("pi_1", 1, claim="ch_9:payment.succeeded")], []),
    "the same card, no customer": ([sale("pi_1", 0, payer="card:x"), sale("pi_2", 1, payer="card:x")], [(0, 1, 900)]),
    "two invoices": ([sale("pi_1", 0, invoiced=True), sale("pi_2", 1, invoiced=True)], []),
    "an invoice, and then by hand": ([sale("pi_1", 0, invoiced=True), sale("pi_2", 1)], [(0, 1, 900)]),
    "by hand, and then an invoice": ([sale("pi_1", 0), sale("pi_2", 1, invoiced=True)], [(0, 1, 900)]),
    "an invoice between two by hand": (
        [sale("pi_1", 0), sale("pi_2", 500, invoiced=True), sale("pi_3", 1000)],
        [(300, 1, 900), (900, 1, 900)],
    ),
    "two invoices, by hand long before": (
        [sale("pi_1", 0), sale("pi_2", 599, invoiced=True), sale("pi_3", 601, invoiced=True)],
        [(300, 1, 900)],
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_payments_made_twice_whichever_is_told_first(case: str) -> None:
    told, expected = PAIRS[case]
    for ordered in (told, told[::-1]):
        assert duplicates(Ledger().record(ordered)) == expected
        ledger = Ledger()
        assert duplicates([each for fact in ordered for each in ledger.record([fact])]) == expected


def test_a_guest_whom_only_the_charge_knows_is_known_though_the_intent_was_told_first() -> None:
    ledger = Ledger()
    for attempt, created in (("pi_1", 0), ("pi_2", 60)):
        ledger.record([sale(attempt, created, payer="")])
        ledger.record([sale(attempt, created, payer="card:x")])
    assert ledger.totals()[PAYMENT_SUCCEEDED, "usd", 60] == (2, 1800)
    assert ledger.totals()[DUPLICATE, "usd", 60] == (1, 900)


sales = st.lists(
    st.builds(
        sale,
        st.integers(0, 30).map("pi_{}".format),
        st.integers(0, 40).map(lambda minutes: minutes * 60),
        payer=st.sampled_from(["cus_1", "cus_2", f"{CARD}x", ""]),
        amount=st.sampled_from([900, 1900]),
        invoiced=st.booleans(),
    ),
    max_size=20,
    unique_by=lambda fact: fact.attempt_of,
)


@given(sales, seeds)
def test_no_order_no_batch_and_no_repetition_changes_what_was_paid_twice(told: list[Fact], seed: int) -> None:
    again = [*told, *random.Random(seed).choices(told, k=len(told) and 20)]
    one, many = Ledger(), Ledger()
    one.record(told)
    for batch in shuffled(again, seed):
        many.record(batch)
    assert one.totals() == many.totals()
    assert sum(count for _, count, _ in duplicates(one.grown)) == sum(count for _, count, _ in duplicates(many.grown))


@given(sales)
def test_what_was_paid_twice_is_what_has_another_one_shortly_before(told: list[Fact]) -> None:
    def twice(one: Fact, other: Fact) -> bool:
        return (
            (one.payer, one.amount) == (other.payer, other.amount)
            and (one.created, one.attempt_of) < (other.created, other.attempt_of)
            and other.created - one.created <= 600
            and not (one.invoiced and other.invoiced)
        )

    expected = sum(any(twice(one, other) for one in told) for other in told if other.payer)
    assert sum(count for _, count, _ in duplicates(Ledger().record(told))) == expected


# Arrivals


def pulse(root: str, created: int, received: int) -> Fact:
    return Fact(ANY, created, claim=f"people:{root}:0", stratum=PEOPLE, received=received)


@pytest.mark.parametrize(
    ("received", "late"),
    [(7000, 0), (7300, 0), (7301, 1), (7000 + 6 * 3600, 1), (7001 + 6 * 3600, 0), (6000, 0)],
    ids=["at once", "just in time", "late", "just not stale", "replayed", "before it was created"],
)
def test_an_object_arrives_in_the_bucket_of_its_arrival(received: int, late: int) -> None:
    grown = Ledger().record([pulse("ch_1", 7000, received)])
    found = {(each.metric, each.start): each.count for each in grown if each.grain == 5}
    start = received // 300 * 300
    assert found == {(ANY, 6900): 1, (ARRIVED, start): 1} | ({(LATE, start): 1} if late else {})


def test_of_an_object_told_again_the_first_telling_arrived() -> None:
    ledger = Ledger()
    ledger.record([pulse("ch_1", 0, 900), pulse("ch_1", 0, 10), pulse("ch_1", 5, 7)])
    ledger.record([pulse("ch_1", 0, 800)])
    assert ledger.totals()[ARRIVED, "", 60] == (1, 0)
    assert (LATE, "", 60) not in ledger.totals()


# Renewals ahead


def due(number: int = 1, amount: int = 900) -> Fact:
    return Fact(DUE, DAY, claim=f"due:sub_{number}:{DAY}:{amount}", currency="usd", amount=amount)


def undone(number: int = 1, amount: int = 900) -> Fact:
    told = due(number, amount)
    return msgspec.structs.replace(told, claim=f"{told.claim}:undone", undoes=told.claim, count=-1, amount=-amount)


def test_a_renewal_that_is_off_is_taken_back_once_and_only_if_it_was_told() -> None:
    ledger = Ledger()
    assert ledger.record([undone(2)]) == []
    assert [(each.count, each.amount) for each in ledger.record([due(1)])] == [(1, 900)] * 2
    assert [(each.count, each.amount) for each in ledger.record([undone(1)])] == [(-1, -900)] * 2
    assert ledger.record([undone(1), due(1), due(2)]) == []


renewals = st.lists(
    st.builds(lambda tell, *what: tell(*what), st.sampled_from([due, undone]), st.integers(1, 4), st.integers(1, 3)),
    max_size=20,
)


@given(renewals, seeds)
def test_no_order_and_no_batch_changes_what_is_due(told: list[Fact], seed: int) -> None:
    claimed = {each.claim for each in told if each.count > 0} - {each.undoes for each in told}
    expected = (len(claimed), sum(int(claim.rsplit(":", 1)[1]) for claim in claimed))
    assert recorded(shuffled(told, seed)).get((DUE, "usd", 60), (0, 0)) == expected


# Users' rules that count apart

DECLINE = Fact(PAYMENT_FAILED, 60, "ch_1:x", CHECKOUT, "usd", 900, "pi_1", brand="visa", country="FR", price="price_1")
VISAS = Filter("visas", PAYMENT_FAILED, brand="visa")

MATCHES: dict[str, tuple[Filter, bool]] = {
    "metric alone": (Filter("r", PAYMENT_FAILED), True),
    "another metric": (Filter("r", PAYMENT_SUCCEEDED), False),
    "one of the strata": (Filter("r", PAYMENT_FAILED, strata=(RENEWAL, CHECKOUT)), True),
    "none of the strata": (Filter("r", PAYMENT_FAILED, strata=(RENEWAL, RETRY)), False),
    "currency": (Filter("r", PAYMENT_FAILED, currency="usd"), True),
    "another currency": (Filter("r", PAYMENT_FAILED, currency="eur"), False),
    "brand": (Filter("r", PAYMENT_FAILED, brand="visa"), True),
    "another brand": (Filter("r", PAYMENT_FAILED, brand="amex"), False),
    "country": (Filter("r", PAYMENT_FAILED, country="FR"), True),
    "another country": (Filter("r", PAYMENT_FAILED, country="DE"), False),
    "price": (Filter("r", PAYMENT_FAILED, price="price_1"), True),
    "another price": (Filter("r", PAYMENT_FAILED, price="price_2"), False),
    "all of it": (Filter("r", PAYMENT_FAILED, (CHECKOUT,), "usd", "visa", "FR", "price_1"), True),
    "all but one": (Filter("r", PAYMENT_FAILED, (CHECKOUT,), "usd", "visa", "DE", "price_1"), False),
}


@pytest.mark.parametrize("case", MATCHES)
def test_a_rule_counts_what_it_asks_for(case: str) -> None:
    rule, matches = MATCHES[case]
    assert rule.matches(DECLINE, CHECKOUT) == matches
    grown = [each for each in Ledger(rule).record([DECLINE]) if each.metric == "rule.r"]
    failures = [each for each in Ledger().record([DECLINE]) if each.metric == PAYMENT_FAILED]
    assert grown == ([msgspec.structs.replace(each, metric="rule.r") for each in failures] if matches else [])


def test_a_rule_takes_nothing_from_the_metric_that_it_watches() -> None:
    told = [DECLINE, pulse("pi_1", 60, 60)]
    apart = [each for each in Ledger(VISAS).record(told) if each.metric != "rule.visas"]
    assert apart == Ledger().record(told)


def test_a_rule_for_a_card_counts_the_telling_that_knows_it_whichever_comes_first() -> None:
    unknown, known = sale("pi_1", 60), sale("pi_1", 60, brand="visa")
    rule = Filter("visas", PAYMENT_SUCCEEDED, (CHECKOUT,), brand="visa")
    for batches in ([[unknown], [known]], [[known], [unknown]], [[unknown, known]], [[known], [known, unknown]]):
        assert recorded(batches, rule)["rule.visas", "usd", 60] == (1, 900)


def test_a_rule_for_a_card_tells_retries_from_first_attempts() -> None:
    later = msgspec.structs.replace(DECLINE, claim="ch_2:x", created=120)
    unknown = msgspec.structs.replace(DECLINE, claim="ch_2:x", created=120, brand="", country="")
    for batches in ([[DECLINE], [unknown], [later]], [[DECLINE, unknown, later]], [[later, DECLINE]]):
        ledger = Ledger(VISAS)
        for batch in batches:
            ledger.record(batch)
        found = {each.stratum: each.count for each in ledger.grown if (each.metric, each.grain) == ("rule.visas", 60)}
        assert found == {CHECKOUT: 1, RETRY: 1}


@given(stories, seeds)
def test_no_order_and_no_batch_changes_what_rules_count(told: list[Told], seed: int) -> None:
    rules = (
        Filter("euros", PAYMENT_FAILED, currency="eur"),
        Filter("small", SMALL_FAILED, currency="jpy"),
        Filter("refunds", REFUND, currency="usd"),
    )
    assert recorded(shuffled(told, seed), *rules) == recorded([told], *rules)


def test_a_rule_for_small_failures_of_a_card_counts_them_as_well() -> None:
    tiny = msgspec.structs.replace(DECLINE, amount=100)
    assert recorded([[tiny]], Filter("tiny", SMALL_FAILED, brand="visa"))["rule.tiny", "usd", 60] == (1, 100)


@given(refunds(), seeds)
def test_a_rule_for_refunds_of_a_card_counts_them_by_what_the_charge_tells(told: list[Refunded], seed: int) -> None:
    carded = [each if each.refund else msgspec.structs.replace(each, brand="visa") for each in told]
    counted = recorded(shuffled(carded, seed), Filter("visas", REFUND, brand="visa"))
    currency = told[0].currency
    assert counted["rule.visas", currency, 60] == counted[REFUND, currency, 60]
    assert ("rule.visas", currency, 60) not in recorded([carded], Filter("visas", REFUND, brand="amex"))


def test_a_rule_for_disputes_of_a_brand_counts_them() -> None:
    told = Fact(DISPUTE, 0, claim="dp_1:dispute", currency="usd", amount=900, brand="amex")
    assert recorded([[told], [told]], Filter("amex", DISPUTE, brand="amex"))["rule.amex", "usd", 5] == (1, 900)
