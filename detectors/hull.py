"""The plausible expectations: a low side, a middle and a high one.

A test faces the side that is kind to normality: a surge the high one, a drop the low one.
"""

import numpy as np

from detectors.baseline import LEAST
from detectors.calendar import Floats

MEMORY = 8.0  # hours
FROM, TO = 2, 25  # hours back that the adjustment looks at
TRUST = 0.12**2  # how much of a day's level is expected to wander
HOLIDAY_LOW = 0.3
MONTH_START_HIGH = 2.2  # cancellations on the first days of a month
BINS = 12  # of an hour

_WEIGHTS = np.concatenate([np.zeros(FROM), np.exp(-np.arange(FROM, TO + 1) / MEMORY)])


def adjustment(counts: Floats, mid: Floats, exposure: Floats, phi: float) -> Floats:
    """For each hour, how its day has been running: observed to expected of the 2nd to 25th hour before it, shrunk
    and bounded. Hours without exposure say nothing.
    """
    known = (exposure > 0).astype(float)
    seen = np.convolve(counts * known, _WEIGHTS)[: len(counts)]
    expected = np.convolve(mid * known, _WEIGHTS)[: len(counts)]
    safe = np.maximum(expected, 1e-9)
    trust = TRUST / (TRUST + phi / safe)
    ratio = np.where(expected > 0, np.maximum(seen, 1e-3) / safe, 1.0)
    found: Floats = np.clip(ratio**trust, 0.6, 1.5)
    return found


def sides(mid: Floats, adjusted: Floats) -> tuple[Floats, Floats]:
    """The low and the high hourly expectations."""
    return mid * np.minimum(1, adjusted), mid * np.maximum(1, adjusted)


def rhythms(hourly: Floats, shifted: bool) -> Floats:
    """Hourly values as 5-minute ones in every plausible way, [way, bin]: in steps, in straight lines, in curves; where
    the clocks were changed of late (`shifted`) an hour earlier and later, too.

    A window is held against the least or the most that any one of them gives it.
    """
    step = np.repeat(hourly, BINS) / BINS
    place = (np.arange(len(step)) + 0.5) / BINS - 0.5
    centres = np.arange(len(hourly))
    linear = np.interp(place, centres, hourly) / BINS
    if shifted:
        return np.stack([step, linear, *(_moved(each, by) for each in (step, linear) for by in (-BINS, BINS))])
    curved = np.exp(np.interp(place, centres, np.log(np.maximum(hourly, LEAST)))) / BINS
    return np.stack([step, linear, curved])


def _moved(values: Floats, by: int) -> Floats:
    return values[np.clip(np.arange(len(values)) - by, 0, len(values) - 1)]
