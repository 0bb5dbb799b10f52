"""Sums over spans of event time, from buckets of both grains, against counting by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.model import Bucket, Fact, Money, Window, utc
from detectors.series import BUCKET, DAY, HOUR, Series, grid
from detectors.tally import tally

START = 1_789_380_000 // DAY * DAY
SPAN = 4 * HOUR  # short, so that most windows cut through something
METRICS, STRATA, CURRENCIES = ("payment.failed", "refund.created"), ("checkout", "renewal", "retry"), ("usd", "jpy", "")

facts = st.lists(
    st.builds(
        Fact,
        st.sampled_from(METRICS),
        st.integers(START, START + SPAN - 1),
        stratum=st.sampled_from(STRATA),
        currency=st.sampled_from(CURRENCIES),
        amount=st.integers(-500, 500),
    ),
    max_size=60,
)
edges = st.integers(-3, SPAN // BUCKET + 3).map(lambda n: START + n * BUCKET)
spans = st.tuples(edges, edges).map(lambda span: (min(span), max(span)))


def series(told: list[Fact]) -> Series:
    return Series(tally(told, set(), {})[0])


@given(facts, spans, st.none() | st.sets(st.sampled_from(STRATA)))
def test_any_window_is_the_sum_of_its_five_minute_buckets(
    told: list[Fact], span: tuple[int, int], strata: set[str] | None
) -> None:
    start, end = span
    inside = [
        fact
        for fact in told
        if fact.metric == METRICS[0] and start <= fact.created < end and (strata is None or fact.stratum in strata)
    ]
    by_currency = {
        currency: (len(amounts), sum(amounts))
        for currency in CURRENCIES
        if (amounts := [fact.amount for fact in inside if fact.currency == currency])
    }
    assert series(told).amounts(METRICS[0], start, end, strata) == by_currency
    amount = sum(fact.amount for fact in inside) if len(by_currency) == 1 else 0
    assert series(told).window(METRICS[0], start, end, strata) == Window(utc(start), utc(end), len(inside), amount)


@given(facts, spans, edges)
def test_a_window_is_the_sum_of_its_parts(told: list[Fact], span: tuple[int, int], cut: int) -> None:
    start, end = span
    cut = max(start, min(cut, end))
    read = series(told)
    parts = [read.window(METRICS[0], start, cut), read.window(METRICS[0], cut, end)]
    assert sum(part.count for part in parts) == read.window(METRICS[0], start, end).count


def test_money_is_told_by_currency_and_the_largest_first() -> None:
    told = [
        Fact(METRICS[1], START, currency=currency, amount=amount)
        for currency, amount in [("jpy", 300), ("usd", 500), ("usd", 50), ("", 900), ("eur", 0)]
    ]
    assert series(told).money(METRICS[1], START, START + HOUR) == (Money(550, "usd"), Money(300, "jpy"))


def test_order_of_the_buckets_does_not_matter() -> None:
    rows = [Bucket(METRICS[0], "", "usd", 5, START + n * BUCKET, 1, n) for n in (2, 0, 1)]
    window = Series(rows).window(METRICS[0], START + BUCKET, START + 3 * BUCKET)
    assert (window.count, window.amount) == (2, 3)


@pytest.mark.parametrize(
    ("counts", "usual", "began"),
    [
        ([0] * 9 + [4, 4, 4], 0.0, 9),
        ([2] * 9 + [9, 9, 9], 2.0, 9),
        ([0, 0, 3, 4, 0, 5, 6, 5, 0, 0, 0, 0], 0.1, 2),
        ([5] * 12, 0.5, 0),
        ([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], 0.1, 11),
        ([0] * 12, 0.5, 0),
    ],
)
def test_an_excess_began_where_its_steepest_rise_did(counts: list[int], usual: float, began: int) -> None:
    told = [Fact(METRICS[0], START + n * BUCKET) for n, count in enumerate(counts) for _ in range(count)]
    assert series(told).onset(METRICS[0], START, START + HOUR, usual) == START + began * BUCKET


@pytest.mark.parametrize(
    ("at", "end"),
    [(START, START + 300), (START + 0.5, START + 300), (START + 299.9, START + 300), (START + 300, START + 600)],
)
def test_the_bucket_under_way_is_part_of_the_window(at: float, end: int) -> None:
    assert grid(utc(at)) == end
