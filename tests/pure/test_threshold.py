"""Users' rules: what is above or below, held against which past, and when they say nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from detectors.strip import Line, Strip
from detectors.threshold import Threshold

HOUR, DAY, WEEK = 12, 288, 2016  # bins
SIZE = WEEK + 2 * DAY
RULE = Threshold("many", "x")  # the last hour above three times the hourly average of 7 days, plus one


def strip(counts: np.ndarray, age: float = 365.0) -> Strip:
    """Days are known for `age`; the newest hour is the last of the counts."""
    return Strip(0, {"x": Line(counts.astype(np.float64))}, {}, age)


def steady(per_bin: float, last_hour: float) -> np.ndarray:
    """So many in each bin, and `last_hour` in all of the newest twelve."""
    counts = np.full(SIZE, per_bin)
    counts[-HOUR:] = 0.0
    counts[-HOUR // 2] = last_hour
    return counts


def holds(rule: Threshold, counts: np.ndarray, age: float = 365.0, end: float = SIZE, floor: float = 0.0) -> bool:
    return bool(rule.scan(strip(counts, age), np.array([end]), floor))


@pytest.mark.parametrize(
    ("changed", "usual", "now", "expected"),
    [
        ({}, 24.0, 73.0, False),  # 73 = 3 * 24 + 1
        ({}, 24.0, 73.1, True),
        ({}, 0.0, 1.0, False),
        ({}, 0.0, 2.0, True),
        ({"factor": 2.0}, 24.0, 49.1, True),
        ({"plus": 5.0}, 24.0, 76.9, False),
        ({"least": 5.0}, 0.0, 4.0, False),
        ({"least": 5.0}, 0.0, 5.0, True),
        ({"factor": 0.0, "plus": 50.0}, 90.0, 51.0, True),
        ({"factor": 0.0, "plus": 50.0}, 0.0, 50.0, False),
        ({"compare": "below", "factor": 0.5, "plus": 0.0}, 12.0, 6.0, False),
        ({"compare": "below", "factor": 0.5, "plus": 0.0}, 12.0, 5.9, True),
        ({"compare": "below", "factor": 0.5, "plus": 0.0, "least": 13.0}, 12.0, 0.0, False),
        ({"compare": "below", "factor": 0.5, "plus": 0.0, "least": 12.0}, 12.0, 0.0, True),
        ({"compare": "below", "factor": 0.0, "plus": 3.0}, 90.0, 2.0, True),
    ],
)
def test_the_window_is_held_against_a_factor_of_its_average_and_a_constant(
    changed: dict[str, float], usual: float, now: float, expected: bool
) -> None:
    rule = replace(RULE, **changed)
    counts = steady(usual / HOUR, now)
    assert holds(rule, counts) is expected
    assert bool(rule.gone(strip(counts), np.array([float(SIZE)]), 6)[0]) is not expected


def test_the_average_is_of_the_past_before_the_window_alone() -> None:
    counts = steady(1.0, 40.0)
    counts[: SIZE - HOUR - DAY] = 99.0
    (signal,) = replace(RULE, past=DAY).scan(strip(counts), np.array([float(SIZE)])).values()
    assert (signal.observed, signal.expected, signal.window) == (40.0, 12.0, HOUR)
    assert (signal.start, signal.end, signal.side) == (SIZE - HOUR, SIZE, "up")


@pytest.mark.parametrize(
    ("age", "changed", "expected"),
    [
        (0.0, {}, False),  # an account's first hour
        (0.9, {}, False),
        (1.0, {}, True),
        (0.2, {"past": 2 * HOUR}, True),  # all the past that the rule asks for
        (0.0, {"factor": 0.0}, True),  # which asks for none
    ],
)
def test_nothing_is_said_before_a_day_of_the_past_is_known(
    age: float, changed: dict[str, float], expected: bool
) -> None:
    counts = np.zeros(SIZE)
    counts[-HOUR:] = 5.0
    assert holds(replace(RULE, **changed), counts, age) is expected


def test_a_young_accounts_average_is_of_the_days_that_it_has() -> None:
    counts = np.zeros(SIZE)
    counts[-HOUR - 2 * DAY :] = 1.0
    (signal,) = replace(RULE, factor=0.5).scan(strip(counts, age=2.0), np.array([float(SIZE)])).values()
    assert signal.expected == pytest.approx(12.0)


def test_what_is_still_to_come_of_the_running_bin_is_missed_by_nobody() -> None:
    rule = replace(RULE, compare="below", factor=0.95, plus=0.0)
    counts = np.ones(SIZE)
    counts[-1] = 0.0  # the bin has only begun
    assert not holds(rule, counts, end=SIZE - 0.9)
    assert holds(rule, counts, end=SIZE - 0.1)


def test_a_window_cut_by_what_an_incident_used_up_misses_nothing_before_that() -> None:
    rule = replace(RULE, window=6 * HOUR, compare="below", factor=0.5, plus=0.0)
    counts = np.ones(SIZE)
    counts[: SIZE - 2 * HOUR] *= 3.0
    counts[-2 * HOUR :] = 2.0
    assert not holds(rule, counts, floor=SIZE - 2 * HOUR)
    counts[-2 * HOUR :] = 1.0
    assert holds(rule, counts, floor=SIZE - 2 * HOUR)


def test_the_range_of_usual_windows_is_that_of_the_past() -> None:
    counts = np.zeros(SIZE)
    counts[0 : SIZE - HOUR : 2 * HOUR] = 10.0  # every other hour: 0 or 10, 5 on average
    counts[-HOUR:] = 3.0
    (signal,) = RULE.scan(strip(counts), np.array([float(SIZE)])).values()
    assert signal.expected == pytest.approx(5.0)
    assert signal.sd == pytest.approx(5.0)


def test_money_says_its_currency() -> None:
    (signal,) = replace(RULE, currency="usd").scan(strip(steady(0.0, 1200.0)), np.array([float(SIZE)])).values()
    assert (signal.scope, signal.observed) == ("usd", 1200.0)


def test_a_line_that_is_not_there_is_nothing_to_judge() -> None:
    rule, ends = replace(RULE, line="y"), np.array([float(SIZE)])
    assert rule.scan(strip(np.ones(SIZE)), ends) == {}
    assert rule.gone(strip(np.ones(SIZE)), ends, 6).all()


def test_the_curve_is_the_counts_and_their_average() -> None:
    counts, average = RULE.curve(strip(steady(2.0, 60.0)), SIZE - 8, SIZE - 4)
    assert counts.tolist() == [0.0, 0.0, 60.0, 0.0]
    assert average.tolist() == [(WEEK - 4) * 2.0 / WEEK] * 4


@given(
    st.integers(0, 999),
    st.sampled_from(["above", "below"]),
    st.integers(1, 30),
    st.integers(1, 300),
    st.floats(0, 4),
    st.floats(0, 20),
)
def test_any_rule_says_what_can_be_worked_out_by_hand(
    seed: int, compare: str, window: int, past: int, factor: float, plus: float
) -> None:
    counts = np.random.default_rng(seed).poisson(9.0, DAY + 40 + seed % 20).tolist()
    rule = replace(RULE, window=window, past=past, compare=compare, factor=factor, plus=plus)
    end = len(counts)
    now = sum(counts[end - window :])
    before = counts[max(0, end - window - past) : end - window]
    limit = factor * sum(before) / len(before) * window + plus
    if abs(now - limit) < 1e-6 or len(before) < min(past, DAY):
        return
    expected = now > limit if compare == "above" else now < limit
    assert bool(rule.scan(strip(np.array(counts)), np.array([float(end)]))) is expected


@settings(max_examples=20)
@given(st.integers(0, 999), st.integers(1, 24), st.sampled_from([12, 300]))
def test_many_ticks_say_the_same_as_each_alone(seed: int, window: int, past: int) -> None:
    counts = np.random.default_rng(seed).poisson(4.0, 720)
    rule, here = replace(RULE, window=window, past=past, factor=1.2), strip(counts)
    ends = np.arange(600.0, 640.0, 0.4)
    assert rule.scan(here, ends) == {
        tick: signal for tick, end in enumerate(ends) for signal in rule.scan(here, np.array([end])).values()
    }
