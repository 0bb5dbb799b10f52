"""Other people's detectors on the same counts: the article's rule, a seasonal robust band, S-H-ESD, Farrington.

Each judges the last hour, every five minutes, line by line; alerts less than an hour apart are one.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bench.streams import DAY, TEST, WARM, Stream

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

UP = ("failure", "refund", "dispute", "cancel", "small", "duplicate")
DOWN = ("attempt.checkout",)
WEEK = 7 * DAY
FIRST = WARM * DAY  # bin


def article(counts: Floats, up: bool) -> Bools:
    """More than three times the hourly average of seven days, plus one."""
    hour = _hour(counts)
    average = _rolling(counts, WEEK)[:-12] / 168
    hit = np.zeros(len(counts), np.bool_)
    hit[12:] = hour[12:] > 3 * average + 1
    return hit[FIRST:] if up else np.zeros(TEST * DAY, np.bool_)


def band(counts: Floats, up: bool) -> Bools:
    """Outside the median of the same hour of six weeks, give or take 3.5 robust deviations (a 'robust' monitor)."""
    hour, past = _seasonal(counts, 6)
    middle = np.median(past, 0)
    spread = np.maximum(1.4826 * np.median(np.abs(past - middle), 0), np.sqrt(np.maximum(middle, 1)))
    return np.asarray((hour > middle + 3.5 * spread) if up else (hour < middle - 3.5 * spread))


def s_h_esd(counts: Floats, up: bool) -> Bools:
    """The seasonal hybrid ESD: residuals from the seasonal median, held against median and MAD of two weeks."""
    hour = _hour(counts)
    past = np.stack([hour[FIRST - week * WEEK : len(hour) - week * WEEK] for week in range(1, 5)])
    residual = hour[FIRST:] - np.median(past, 0)
    whole = hour[4 * WEEK :] - np.median(
        np.stack([hour[(4 - week) * WEEK : len(hour) - week * WEEK] for week in range(1, 5)]), 0
    )
    found = np.zeros(len(residual), np.bool_)
    size = 2 * WEEK // 12
    t = 4.2  # of Student with 334 degrees of freedom at 0.05 / (2 x 336)
    critical = (size - 1) * t / math.sqrt(size * (size - 2 + t * t))
    for day in range(TEST):
        end = len(whole) - (TEST - day) * DAY
        window = whole[max(0, end - 2 * WEEK) : end]
        middle = float(np.median(window))
        mad = max(1.4826 * float(np.median(np.abs(window - middle))), 0.5)
        score = (residual[day * DAY : day * DAY + DAY] - middle) / mad
        found[day * DAY : day * DAY + DAY] = score > critical if up else score < -critical
    return found


def farrington(counts: Floats, up: bool) -> Bools:
    """Beyond the 99.9 % bound of a quasi-Poisson fit to the same hour, and its neighbours, of five weeks."""
    hour, _ = _seasonal(counts, 6)
    past = np.concatenate([_seasonal(counts, 5, shift)[1] for shift in (-12, 0, 12)])
    mean = np.maximum(past.mean(0), 0.05)
    phi = np.maximum(((past - mean) ** 2 / mean).sum(0) / (len(past) - 1), 1)
    sd = np.sqrt(phi / mean + phi / mean / len(past))
    z = 3.09
    if up:
        return np.asarray((hour > mean * (1 + 2 / 3 * z * sd) ** 1.5) & (hour >= 5))
    return np.asarray((hour < mean * np.maximum(1 - 2 / 3 * z * sd, 0) ** 1.5) & (mean >= 5))


RIVALS: dict[str, Callable[[Floats, bool], Bools]] = {
    "the article's rule": article,
    "seasonal robust band": band,
    "S-H-ESD": s_h_esd,
    "Farrington-like": farrington,
}


def alerts(peer: Callable[[Floats, bool], Bools], made: Stream) -> list[tuple[str, int, int]]:
    """(line, first bin, last bin) of every alert in the test days."""
    found = []
    for line in (*UP, *DOWN):
        ticks = np.nonzero(peer(made.lines[line], line in UP))[0] + FIRST
        if not len(ticks):
            continue
        breaks = np.nonzero(np.diff(ticks) > 12)[0]
        starts, ends = ticks[np.concatenate([[0], breaks + 1])], ticks[np.concatenate([breaks, [len(ticks) - 1]])]
        found += [(line, int(start), int(end)) for start, end in zip(starts, ends, strict=True)]
    return found


def _hour(counts: Floats) -> Floats:
    """The hour before the end of each bin, that bin included."""
    return _rolling(counts, 12)


def _rolling(counts: Floats, size: int) -> Floats:
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    index = np.arange(1, len(counts) + 1)
    found: Floats = sums[index] - sums[np.maximum(index - size, 0)]
    return found


def _seasonal(counts: Floats, weeks: int, shift: int = 0) -> tuple[Floats, Floats]:
    """The last hour at each test tick, and the same hour of the weeks before, [week, tick]."""
    hour = _hour(counts)
    past = [hour[FIRST - week * WEEK + shift : len(hour) - week * WEEK + shift] for week in range(1, weeks + 1)]
    size = min(len(each) for each in past)
    return hour[FIRST:], np.stack([each[:size] for each in past])
