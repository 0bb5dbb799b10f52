"""Tails of the negative binomial, held against sums of its own terms."""

from math import exp, lgamma, log, log10

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.tail import shortfall, silence, surprise


def probability(count: int, mean: float, variance: float) -> float:
    size = mean * mean / (variance - mean)
    odds = mean / (mean + size)
    return exp(lgamma(count + size) - lgamma(size) - lgamma(count + 1) + size * log(1 - odds) + count * log(odds))


@given(st.floats(0.5, 40), st.floats(1.05, 6), st.integers(0, 120))
def test_both_tails_are_the_sums_of_their_terms(mean: float, phi: float, count: int) -> None:
    variance = mean * phi
    if count > mean:
        upper = sum(probability(k, mean, variance) for k in range(count, count + 3000))
        assert surprise(count, mean, variance) == pytest.approx(-log10(upper), abs=1e-4)
        assert shortfall(count, mean, variance) == 0.0
    elif count < mean:
        lower = sum(probability(k, mean, variance) for k in range(count + 1))
        assert shortfall(count, mean, variance) == pytest.approx(-log10(lower), abs=1e-4)
        assert surprise(count, mean, variance) == 0.0


def test_silence_is_the_shortfall_to_nothing() -> None:
    assert silence(12.0, 14.0) == pytest.approx(shortfall(0, 12.0, 14.0))
    assert silence(12.0, 12.0) == pytest.approx(12 / 2.302585, rel=1e-3)


@given(st.integers(5, 200), st.floats(0.1, 4.0))
def test_more_is_never_less_surprising(count: int, mean: float) -> None:
    assert surprise(count + 1, mean, mean * 1.5) >= surprise(count, mean, mean * 1.5)


def test_more_spread_makes_the_same_count_less_surprising() -> None:
    assert surprise(30, 10.0, 11.0) > surprise(30, 10.0, 20.0) > surprise(30, 10.0, 60.0)
