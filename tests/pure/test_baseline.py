"""Baselines: rhythms are found, what is too little to know stays at the prior, anomalies do not become normal."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.baseline import Baseline, History, clipped, fit, tamed
from detectors.dispersion import Dispersion

MONDAY = 20_454  # days since 1970-01-01


def history(rates: np.ndarray, *, days: int = 56, seed: int = 1) -> History:
    """Poisson counts of `days` days that end on a Sunday, at these rates by [weekday, hour]."""
    mean = rates[np.arange(MONDAY - days, MONDAY) % 7 - MONDAY % 7]
    return History(MONDAY - days, np.random.default_rng(seed).poisson(mean).astype(float), np.ones(mean.shape))


def flat(rate: float) -> np.ndarray:
    return np.full((7, 24), rate)


def test_the_rhythm_of_the_week_is_found() -> None:
    rates = flat(10.0)
    rates[:5, 9:17] = 40.0
    made = fit(history(rates))
    forecast = np.stack([made.forecast(MONDAY + day) for day in range(7)])
    assert forecast[:5, 10:16].mean() == pytest.approx(40.0, rel=0.1)
    assert forecast[5:, 10:16].mean() == pytest.approx(10.0, rel=0.35)
    assert forecast[:, :8].mean() == pytest.approx(10.0, rel=0.1)


def test_two_busy_hours_of_a_tiny_account_are_no_rhythm() -> None:
    counts = np.zeros((14, 24))
    counts[2, 9] = counts[6, 9] = 1.0
    made = fit(History(MONDAY - 14, counts, np.ones(counts.shape)))
    assert max(made.shape) < 2.5 * min(made.shape)


def test_the_level_follows_the_last_two_weeks() -> None:
    grown = history(flat(10.0))
    grown.kept = np.concatenate([grown.kept[:-14], grown.kept[-14:] * 2])
    assert fit(grown).level == pytest.approx(20.0, rel=0.1)


def test_the_guarded_days_are_not_learnt_from() -> None:
    spiked = history(flat(5.0))
    calm = fit(spiked, guard=3)
    spiked.kept = spiked.kept.copy()
    spiked.kept[-3:] = 100.0
    assert fit(spiked, guard=3).shape == calm.shape


def test_an_anomaly_is_clipped_before_it_is_learnt() -> None:
    kept = clipped(np.array([10.0, 200.0, 0.0]), np.array([10.0, 10.0, 10.0]), Dispersion())
    assert kept[0] == 10.0
    assert 20.0 < kept[1] < 30.0


def test_a_burst_of_the_first_of_the_month_is_not_missed_a_week_later() -> None:
    days = history(flat(10.0), days=8)
    days.kept = days.kept.copy()
    days.kept[0, 1] = 400.0
    plain = fit(days).forecast(MONDAY)[1]
    days.kept = tamed(days.kept, days.exposure)
    assert fit(days).forecast(MONDAY)[1] < 15.0 < 2 * plain


def test_an_hour_that_nobody_foretold_is_kept_as_it_is() -> None:
    assert clipped(np.array([200.0]), np.array([np.nan]), Dispersion())[0] == 200.0


def test_a_young_baseline_doubts_itself_more_than_an_old_one() -> None:
    young, old = fit(history(flat(10.0), days=1)), fit(history(flat(10.0)))
    assert young.error > 0.1
    assert old.error < 0.01


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.floats(0.0, 50.0), st.integers(0, 1000))
def test_a_forecast_is_always_finite_and_positive(days: int, rate: float, seed: int) -> None:
    made = fit(history(flat(rate), days=days, seed=seed))
    assert np.isfinite(made.forecast(MONDAY)).all()
    assert (made.forecast(MONDAY) > 0).all()


def test_it_survives_being_written_down() -> None:
    made = fit(history(flat(3.0)))
    assert msgspec.json.decode(msgspec.json.encode(made), type=Baseline) == made


def test_an_anomaly_that_was_clipped_does_not_pass_for_clusters() -> None:
    days = history(flat(20.0))
    days.mid = np.full(days.counts.shape, 20.0)
    days.low = days.high = days.mid
    calm = fit(days).dispersion.phi
    days.counts = days.counts.copy()
    days.counts[-5, 12] = 2000.0
    days.squares = days.counts**2 / 12 + days.counts * 11 / 12
    days.kept = clipped(days.counts, days.mid, Dispersion())
    assert fit(days).dispersion.phi < calm + 0.1
