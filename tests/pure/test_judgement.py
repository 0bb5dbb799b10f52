"""Signals and their life on one strip: an account at a steady rate, to which one thing happens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import catalogue
from detectors.dispersion import Dispersion, Spread
from detectors.judgement import run
from detectors.life import Change, Life
from detectors.strip import BIN, Line, Rate, Strip

DAYS = 4
SIZE = DAYS * 288
START = 1_790_000_000 // 3600 * 3600
RATES = {  # an hour
    "attempt.checkout": 60.0,
    "attempt.renewal": 12.0,
    "failure.checkout": 3.0,
    "failure.renewal": 1.0,
    "failure": 5.0,
    "success": 66.0,
    "small": 0.1,
    "refund": 1.0,
    "dispute": 0.1,
    "cancel": 1.0,
    "duplicate": 0.02,
    "any": 80.0,
    "arrived": 80.0,
    "late": 0.1,
}
CALM = Dispersion(phi=1.1, up=Spread(hour=0.01, day=0.002), down=Spread(hour=0.01, day=0.002))


def account(seed: int = 1, **changes: tuple[int, int, float]) -> dict[str, np.ndarray]:
    return changed(changes, seed)


def changed(changes: dict[str, tuple[int, int, float]], seed: int = 1) -> dict[str, np.ndarray]:
    """Poisson counts at the usual rates; `line=(first bin, last bin, rate an hour)` changes one.

    Checkouts that are not tried do not fail.
    """
    if "attempt_checkout" in changes:
        first, last, rate = changes["attempt_checkout"]
        failed = rate * RATES["failure.checkout"] / RATES["attempt.checkout"]
        changes = {"failure_checkout": (first, last, failed), **changes}
    rng = np.random.default_rng(seed)
    counts = {}
    for name, rate in RATES.items():
        rates = np.full(SIZE, rate / 12)
        if name.replace(".", "_") in changes:
            first, last, other = changes[name.replace(".", "_")]
            rates[first:last] = other / 12
        counts[name] = rng.poisson(rates).astype(float)
    return counts


def strip(counts: dict[str, np.ndarray]) -> Strip:
    lines = {name: Line(each, np.full(SIZE // 12, RATES[name]), dispersion=CALM) for name, each in counts.items()}
    rates = {"checkout": Rate(0.05, 0.12), "renewal": Rate(0.08, 0.12), "duplicate": Rate(0.0003, 0.25)}
    return Strip(START, lines, rates, age=60)


def judge(counts: dict[str, np.ndarray], first: int = 864, life: Life | None = None) -> tuple[Life, list[Change]]:
    """Judge at the end of every bin from `first` on; the watermark is the end of the last bin with anything in it."""
    ticks = START + np.arange(first + 1, SIZE + 1, dtype=np.int64) * BIN
    newest = np.maximum.accumulate(np.where(counts["any"] > 0, np.arange(1, SIZE + 1), 0))[first:]
    return run(strip(counts), ticks, START + newest * BIN, life or Life(), catalogue.DETECTORS, catalogue.SILENCE)


def told(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.detector, change.reason) for change in changes if change.reason not in ("worse", "stronger")]


def bin_of(at: int) -> int:
    return (at - START) // BIN


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_told_of_a_calm_day(seed: int) -> None:
    assert judge(account(seed))[1] == []


@pytest.mark.parametrize(
    ("detector", "line", "rate"),
    [
        ("refund_spike", "refund", 60.0),
        ("churn_spike", "cancel", 30.0),
        ("dispute_spike", "dispute", 20.0),
        ("duplicate_charges", "duplicate", 12.0),
        ("card_testing", "small", 60.0),
        ("failure_rate", "failure_checkout", 40.0),
        ("webhook_lag", "late", 60.0),
        ("volume_drop", "attempt_checkout", 0.0),
    ],
)
def test_each_detector_tells_its_incident_once_and_its_end(detector: str, line: str, rate: float) -> None:
    life, changes = judge(changed({line: (950, 986, rate)}))
    assert told(changes) == [(detector, "first"), (detector, "resolved")]
    first, last = changes[0], changes[-1]
    assert 950 <= bin_of(first.at) <= 975
    assert 945 <= bin_of(first.part.onset) <= 960
    assert bin_of(last.at) <= 986 + 72
    assert life.open == {}


def test_silence_holds_the_drop_that_it_causes_and_hides_what_never_came() -> None:
    counts = account()
    for name in counts:
        counts[name][950:1000] = 0.0
    life, changes = judge(counts)
    assert told(changes) == [("webhook_silence", "first"), ("webhook_silence", "resolved")]
    assert bin_of(changes[0].at) <= 954
    (start, end) = life.hidden[0]
    assert bin_of(start) == 950
    assert bin_of(end) <= 1001


def test_a_backlog_of_our_own_is_no_absence_of_theirs() -> None:
    counts = account()
    for name in counts:
        counts[name][950:1000] = 0.0
    ticks = START + np.arange(951, 1000, dtype=np.int64) * BIN
    watermark = np.full(len(ticks), START + 950 * BIN)
    _, changes = run(strip(counts), ticks, watermark, Life(), catalogue.DETECTORS, catalogue.SILENCE, backlog=True)
    assert changes == []


def test_signals_that_open_within_the_hour_are_one_incident() -> None:
    _, changes = judge(account(small=(950, 986, 60.0), failure_checkout=(952, 986, 63.0)))
    opened = [change for change in changes if change.reason in ("first", "joined")]
    assert [change.reason for change in opened] == ["first", "joined"]
    assert len({change.part.incident for change in opened}) == 1
    assert [change.reason for change in changes][-1] == "resolved"


def test_evidence_is_used_once() -> None:
    _, changes = judge(account(cancel=(900, 912, 60.0)))
    assert [change.reason for change in changes if change.detector == "churn_spike"].count("first") == 1


def test_it_gets_worse_and_says_so() -> None:
    counts = account(attempt_checkout=(950, 1000, 27.0))
    counts["attempt.checkout"][976:1000] = 0.0
    _, changes = judge(counts)
    assert "stronger" in [change.reason for change in changes]
    assert changes[0].part.rank < max(change.part.rank for change in changes)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(870, SIZE - 2), max_size=6))
def test_the_same_is_told_however_the_ticks_are_cut_into_runs(cuts: set[int]) -> None:
    counts = account(refund=(950, 986, 60.0), cancel=(1010, 1030, 30.0))
    whole = judge(counts)
    newest = np.maximum.accumulate(np.where(counts["any"] > 0, np.arange(1, SIZE + 1), 0))
    life, changes = Life(), []
    for first, last in zip([864, *sorted(cuts)], [*sorted(cuts), SIZE], strict=True):
        ticks = START + np.arange(first + 1, last + 1, dtype=np.int64) * BIN
        watermark = START + newest[first:last] * BIN
        life, found = run(strip(counts), ticks, watermark, life, catalogue.DETECTORS, catalogue.SILENCE)
        changes += found
    assert changes == whole[1]
    assert life == whole[0]
