"""Variance in parts: each part is recovered from hours that were made with it alone."""

import numpy as np
import pytest

from detectors.dispersion import Dispersion, Spread, measure

DAYS = 28


def hours(mean: float, *, phi: float = 1.0, tau: float = 0.0, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Counts of DAYS days at a constant mean, and their bins' squares, summed by hour."""
    rng = np.random.default_rng(seed)
    hourly = mean / 12 * rng.lognormal(0, tau, (DAYS, 24, 1)) * np.ones(12)
    if phi > 1:
        hourly = rng.gamma(hourly / (phi - 1), phi - 1)
    bins = rng.poisson(hourly).astype(float)
    return bins.sum(2), (bins**2).sum(2)


def measured(mean: float, *, phi: float = 1.0, tau: float = 0.0) -> Dispersion:
    counts, squares = hours(mean, phi=phi, tau=tau)
    flat = np.full(counts.shape, mean)
    return measure(counts, squares, np.ones(counts.shape), flat, flat, flat)


@pytest.mark.parametrize(("phi", "low", "high"), [(1.0, 1.0, 1.15), (2.0, 1.8, 2.2), (4.0, 3.6, 4.4)])
def test_clusters_are_seen_inside_the_hours(phi: float, low: float, high: float) -> None:
    assert low <= measured(24, phi=phi).phi <= high


@pytest.mark.parametrize(("tau", "low", "high"), [(0.0, 0.0, 0.006), (0.2, 0.03, 0.055), (0.4, 0.11, 0.25)])
def test_hourly_noise_is_seen_between_the_hours(tau: float, low: float, high: float) -> None:
    assert low <= measured(200, tau=tau).up.hour <= high


def test_an_account_with_next_to_no_events_is_nearly_poisson() -> None:
    found = measured(0.02)
    mean = np.array([0.02])
    assert found.phi == pytest.approx(1.2, abs=0.2)
    assert found.variance(mean, mean**2, np.array([12.0]), found.up)[0] == pytest.approx(0.02, rel=0.3)


def test_busy_hours_that_jitter_more_are_no_clusters() -> None:
    rng = np.random.default_rng(5)
    mean = np.where(np.arange(24) < 12, 60.0, 1200.0) * np.ones((DAYS, 1))
    bins = rng.poisson(mean[:, :, None] / 12 * rng.lognormal(0, 0.15, (DAYS, 24, 12))).astype(float)
    found = measure(bins.sum(2), (bins**2).sum(2), np.ones(mean.shape), mean, mean, mean)
    assert found.phi < 1.3
    assert found.fine == pytest.approx(0.0225, rel=0.4)


def test_hours_left_out_say_nothing() -> None:
    counts, squares = hours(50)
    wild = counts.copy()
    wild[3] *= 20
    exposure = np.ones(counts.shape)
    exposure[3] = 0
    flat = np.full(counts.shape, 50.0)
    assert measure(wild, squares, exposure, flat, flat, flat) == measure(counts, squares, exposure, flat, flat, flat)


def test_a_window_carried_by_one_busy_hour_is_as_noisy_as_that_hour() -> None:
    noise = Dispersion(phi=1.0, up=Spread(hour=0.04, kappa=1.0, day=0.0))
    mean, bins = np.array([600.0]), np.array([72.0])
    spread_out, in_one_hour = np.array([6 * 100.0**2]), np.array([600.0**2])
    assert noise.variance(mean, in_one_hour, bins, noise.up) > 4 * noise.variance(mean, spread_out, bins, noise.up)


def test_the_slopes_of_a_steep_rhythm_are_no_clusters() -> None:
    mean = (30 + 4000 * np.exp(-((np.arange(24) - 13.0) ** 2) / 6)) * np.ones((DAYS, 1))
    place = np.arange(DAYS * 24 * 12) / 12 - 11 / 24
    curve = np.interp(place, np.arange(DAYS * 24), mean.ravel()) / 12
    bins = np.random.default_rng(7).poisson(curve).astype(float).reshape(DAYS, 24, 12)
    found = measure(bins.sum(2), (bins**2).sum(2), np.ones(mean.shape), mean, mean, mean)
    assert found.phi < 1.2
    assert found.fine < 0.01
