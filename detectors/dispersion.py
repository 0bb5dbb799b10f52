"""How much a count varies when nothing is wrong: clusters, hourly and daily noise, each measured on its own.

Nothing here knows seasons: it is given what was counted and what had been forecast, hour by hour.
"""

import numpy as np
from msgspec import Struct

from detectors.calendar import Bools, Floats

PHI, PHI_COUNTS = 1.2, 12.0  # the prior of phi, and how many counts it is worth
PHI_MOST, PHI_SESSIONS = 12.0, 40.0
ENOUGH = 500.0  # counts
QUIET = 2.0  # expected in an hour
PRIOR_SD = 0.15  # of each tau squared
DAY_PRIOR, DAY_LEAST = 0.01, 0.001
KAPPA_PRIOR = 1.5
TAU_LEAST, TAU_MOST = 0.0025, 2.0
NORMAL = 10.0  # from this mean on a count is symmetric enough to judge each side by itself


class Spread(Struct, frozen=True):
    """Relative variances on one side of the forecast."""

    hour: float = 0.0225  # tau1 squared: of a window up to an hour
    kappa: float = KAPPA_PRIOR  # how much of it the hours of a longer window share: 1 none, 6 all
    day: float = DAY_PRIOR  # tau24 squared: what a whole day shares


class Dispersion(Struct, frozen=True):
    """The variance of a window around its mean, in parts."""

    phi: float = PHI  # events come in clusters: variance per mean
    fine: float = 0.0  # tau5 squared: multiplicative noise of a 5-minute bin
    up: Spread = Spread()
    down: Spread = Spread()

    def variance(self, mean: Floats, square: Floats, bins: Floats, spread: Spread) -> Floats:
        """Of windows with this mean. `square` sums 12 lambda^2 over their bins; `bins` is their length.

        A window carried by one busy hour is as noisy as that hour, which mean^2 alone would not tell.
        """
        short = spread.hour * mean * mean
        long = spread.kappa * spread.hour * square + spread.day * mean * mean
        found: Floats = self.phi * mean + np.where(bins <= 12, short, long) + self.fine * square / 12
        return found


def measure(
    counts: Floats,
    squares: Floats,
    exposure: Floats,
    mid: Floats,
    low: Floats,
    high: Floats,
    *,
    prior: float = 0.0225,
    winsor: float = 16.0,
    sessions: bool = False,
) -> Dispersion:
    """From days of hours, all of shape [days, 24]: what was counted, the squares of its twelve bins summed,
    whether the hour counts (exposure 1), and what had been forecast for it, NaN where nothing had.

    With `sessions` the clusters are as long as an hour: staff who sit down to a pile, of which five minutes tell
    nothing. They show in hours in which next to nothing is expected.
    """
    valid = (exposure == 1) & np.isfinite(low) & np.isfinite(high) & (mid > 0)
    phi, fine = _clusters(counts, squares, mid, valid if valid.any() else exposure == 1)
    mid, low, high = (np.where(valid, each, 0.0) for each in (mid, low, high))
    counts = np.where(valid, counts, 0.0)
    if sessions:
        phi = max(phi, _sessions(counts, mid, valid))
    return Dispersion(
        phi,
        fine,
        up=_spread(counts - high, counts - mid, mid, valid, phi, prior, winsor),
        down=_spread(low - counts, low - counts, mid, valid, phi, prior, winsor),
    )


def _clusters(counts: Floats, squares: Floats, mid: Floats, valid: Bools) -> tuple[float, float]:
    """Phi and tau5 squared, from the spread of the twelve bins inside each hour, less what a straight line from hour
    to hour makes of it. Where there is enough to choose from, from the flatter half of the hours: how a steep one
    bends nobody knows.
    """
    slope = _slope(np.nan_to_num(mid))
    steep = slope * np.nan_to_num(mid)
    flat: Bools = valid & (steep <= np.median(steep[valid])) if valid.any() else valid
    if counts[flat].sum() > ENOUGH:
        valid = flat
    bent = counts**2 * slope
    x, spread, busy = counts[valid], (squares - counts**2 / 12 - bent)[valid] * 12 / 11, mid[valid]
    total = float(x.sum())
    phi = (PHI * PHI_COUNTS + float(spread.sum())) / (PHI_COUNTS + total)
    fine = 0.0
    if total > 2000 and np.isfinite(busy).all():
        # An hour's bins spread as phi + tau5^2 m: the hours that were to be quiet and those that were to be busy are
        # two equations. By what was counted instead, a cluster would make its own hour a busy one.
        halves = [busy <= np.median(busy), busy > np.median(busy)]
        (s0, n0, q0), (s1, n1, q1) = (
            (float(spread[half].sum()), float(x[half].sum()), float((x[half] ** 2).sum())) for half in halves
        )
        if n0 > 200 and n1 > 200 and q1 / n1 > 1.3 * q0 / n0:
            m0, m1 = q0 / n0 / 12, q1 / n1 / 12
            fine = min(max((s1 / n1 - s0 / n0) / (m1 - m0), 0.0), 0.5)
            phi = s0 / n0 - fine * m0
    return min(max(phi, 1.0), PHI_MOST), fine


def _slope(mid: Floats) -> Floats:
    """The spread of twelve bins on straight lines between hours, to the square of the hour's mean."""
    hours = mid.ravel()
    before, after = np.concatenate([hours[:1], hours[:-1]]), np.concatenate([hours[1:], hours[-1:]])
    known = (before > 0) & (hours > 0) & (after > 0)
    place = (np.arange(12) + 0.5) / 12 - 0.5
    rise = np.where(place < 0, -place * before[:, None], place * after[:, None])
    bins = rise + (1 - np.abs(place)) * hours[:, None]
    total = np.maximum(bins.sum(1), 1e-9)
    spread = (bins**2).sum(1) / total**2 - 1 / 12
    return np.where(known, spread, 0.0).reshape(mid.shape)


def _sessions(counts: Floats, mid: Floats, valid: Bools) -> float:
    """Variance per mean of the quiet hours."""
    quiet = valid & (mid <= QUIET)
    squared, mean = (counts[quiet] - mid[quiet]) ** 2, mid[quiet]
    phi = (PHI * PHI_COUNTS + float(squared.sum())) / (PHI_COUNTS + float(mean.sum()))
    return min(phi, PHI_SESSIONS)


def _spread(edge: Floats, error: Floats, mid: Floats, valid: Bools, phi: float, prior: float, winsor: float) -> Spread:
    """Relative variances from one-step-ahead errors: `edge` beyond the hull (1 h), `error` beyond what longer
    windows are held against.
    """
    hour = max(TAU_LEAST, _excess(_one_sided(edge, mid), phi * mid, mid * mid, valid, prior, winsor))
    days: Bools = np.asarray(valid.sum(axis=1) >= 20)
    day_mid, day_error = mid.sum(axis=1), error.sum(axis=1)
    square = (mid * mid).sum(axis=1)
    floor = phi * day_mid + hour * square
    day = _excess(_one_sided(day_error, day_mid), floor, day_mid**2, days, DAY_PRIOR, winsor)
    blocks: Bools = np.asarray(valid.reshape(-1, 6).all(axis=1))
    block_mid, block_error = mid.reshape(-1, 6).sum(axis=1), error.reshape(-1, 6).sum(axis=1)
    block_square = (mid * mid).reshape(-1, 6).sum(axis=1)
    floor = phi * block_mid + day * block_mid**2
    shared = _excess(_one_sided(block_error, block_mid), floor, block_square, blocks, KAPPA_PRIOR * hour, winsor)
    return Spread(hour, min(max(shared / hour, 1.0), 6.0), max(day, DAY_LEAST))


def _one_sided(error: Floats, mean: Floats) -> Floats:
    """Squared errors; where the count is symmetric only this side's, doubled."""
    found: Floats = np.where(mean > NORMAL, 2 * np.maximum(error, 0) ** 2, error**2)
    return found


def _excess(squared: Floats, known: Floats, scale: Floats, valid: Bools, prior: float, winsor: float) -> float:
    """The relative variance beyond what is known, each error weighed by how much it can tell."""
    squared, known, scale = squared[valid], known[valid], scale[valid]
    if not len(squared):
        return prior
    strength = 1 / PRIOR_SD**2
    tau = prior
    for _ in range(3):  # what counts as an outlier follows from the variance that is being measured
        v = known + max(tau, prior) * scale
        weight = scale**2 / (2 * v**2)
        excess = (np.minimum(squared, winsor * v) - known) / scale
        tau = (prior * strength + float((weight * excess).sum())) / (strength + float(weight.sum()))
    return min(max(tau, 0.0), TAU_MOST)
