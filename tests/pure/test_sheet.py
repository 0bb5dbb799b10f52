"""Counts by line and bin: which rollups add up to what, in which bins, and what is kept when the sheet slides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.catalogue import LINES, Source, routes
from detectors.sheet import BINS, Sheet
from detectors.strip import BIN

FIRST = 500_000  # an hour
START = FIRST * 3600


@pytest.mark.parametrize(
    ("metric", "stratum", "currency", "lines"),
    [
        ("payment.failed", "checkout", "usd", {"attempt.checkout", "failure.checkout"}),
        ("payment.failed", "renewal", "eur", {"attempt.renewal", "failure.renewal"}),
        ("payment.failed", "retry", "usd", set()),
        ("payment.succeeded", "checkout", "jpy", {"attempt.checkout", "success", "revenue.jpy"}),
        ("payment.succeeded", "renewal", "jpy", {"attempt.renewal", "success"}),
        ("payment.small_failed", "checkout", "usd", {"small"}),
        ("refund.created", "", "usd", {"refund"}),
        ("subscription.canceled", "voluntary", "usd", {"cancel"}),
        ("subscription.canceled", "involuntary", "usd", set()),
        ("mrr.changed", "lost", "eur", {"mrr_lost.eur", "contraction"}),
        ("mrr.changed", "gained", "eur", set()),
        ("object.any", "people", "", {"any"}),
        ("object.any", "clockwork", "", set()),
        ("delivery.late", "", "", {"late"}),
        ("payout.failed", "", "usd", set()),
    ],
)
def test_rollups_go_to_the_lines_that_count_them(metric: str, stratum: str, currency: str, lines: set[str]) -> None:
    assert {name for name, _ in routes(LINES, metric, stratum, currency)} == lines


def test_a_rule_of_one_currency_counts_its_money_only() -> None:
    lines = {"rule.big": Source(("refund.created",), currency="eur", amounts=True)}
    assert routes(lines, "refund.created", "", "eur") == (("rule.big", True),)
    assert routes(lines, "refund.created", "", "usd") == ()


@given(
    st.lists(
        st.tuples(st.integers(-20, 80), st.integers(1, 9), st.integers(-500, 500), st.sampled_from(["usd", "eur"])),
        max_size=30,
        unique_by=lambda row: (row[0], row[3]),
    )
)
def test_the_same_is_counted_one_by_one_and_as_columns(rows: list[tuple[int, int, int, str]]) -> None:
    one, many = (Sheet(LINES, FIRST, 5) for _ in range(2))
    for place, count, amount, currency in rows:
        one.add("refund.created", "", currency, START + place * BIN, count, amount)
    for currency in ("usd", "eur"):
        here = np.array([row[:3] for row in rows if row[3] == currency], np.int64).reshape(-1, 3)
        many.add("refund.created", "", currency, START + here[:, 0] * BIN, here[:, 1], here[:, 2])
    inside = [row for row in rows if 0 <= row[0] < 5 * BINS]
    assert one.bins["refund"].tolist() == many.bins["refund"].tolist()
    assert one.bins["refund"].sum() == sum(row[1] for row in inside)
    end = START + 5 * 3600
    assert one.amounts("refund", START, end) == many.amounts("refund", START, end)
    for currency, amount in one.amounts("refund", START, end).items():
        assert amount == sum(abs(row[2]) for row in inside if row[3] == currency)


def test_hours_sum_their_bins_and_the_squares_of_them() -> None:
    sheet = Sheet(LINES, FIRST, 3)
    for place, count in ((12, 3), (13, 4), (24, 5)):
        sheet.add("refund.created", "", "usd", START + place * BIN, count, 0)
    sums, squares = sheet.hours("refund", FIRST + 1, FIRST + 3)
    assert (sums.tolist(), squares.tolist()) == ([7, 5], [25, 25])


def test_sliding_keeps_what_is_still_inside() -> None:
    sheet = Sheet(LINES, FIRST, 4)
    for place in (0, 13, 47):
        sheet.add("refund.created", "", "usd", START + place * BIN, 1, 250)
    sheet.slide(FIRST + 1)
    assert np.nonzero(sheet.bins["refund"])[0].tolist() == [1, 35]
    assert sheet.amounts("refund", START, START + 5 * 3600) == {"usd": 500}
    sheet.add("refund.created", "", "usd", START + 48 * BIN, 1, 0)
    assert sheet.bins["refund"][36] == 1
