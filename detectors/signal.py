"""A signal: one window in which a detector sees too much or too little; and how windows become signals."""

from math import ceil, log10
from typing import Literal

import numpy as np
from msgspec import Struct

from detectors.calendar import Bools, Floats
from detectors.strip import View
from detectors.tail import shortfall, surprise

Side = Literal["up", "down"]

# Standard deviations below which no tail is computed: it could not be small enough. Counts lean to the right, so
# their upper tail falls slower than the lower one.
WORTH: dict[Side, float] = {"up": 3.2, "down": 2.5}
NEAR = 0.5  # of a score: a longer window that tells no more than this is no better witness
PER_DECADE = 0.8  # a longer window, looked at as often, changes less


class Signal(Struct, frozen=True):
    """What a detector compared at one instant. Windows are in 5-minute bins; `start` and `end` are the strip's
    positions while detectors judge, and epoch seconds from then on.
    """

    detector: str
    side: Side
    window: int
    start: float
    end: float
    observed: float
    expected: float
    sd: float
    score: float  # -log10 of the probability of this or more by normal variation
    needed: float
    scope: str = ""
    out_of: float = 0.0  # attempts, where a share is judged

    @property
    def effect(self) -> float:
        """Observed to expected."""
        return self.observed / max(self.expected, 1e-9)

    @property
    def margin(self) -> float:
        return self.score - self.needed

    @property
    def usual(self) -> tuple[float, float]:
        """Where 95 % of such windows lie."""
        return max(0.0, self.expected - 2 * self.sd), self.expected + 2 * self.sd


def spans(end: float, windows: tuple[int, ...], floor: float) -> list[tuple[int, int]]:
    """First and last bin of the windows that end at one tick, as `View` has them for many."""
    top, first = ceil(end - 1e-9), ceil(floor)
    return [(min(max(top - window, first), top), top) for window in windows]


def total(row: Floats, start: int, end: float) -> float:
    """The sum between two positions of one row of prefix sums, in plain numbers: at a single tick most windows are far
    from any signal, and to call numpy for each costs twenty times what it takes to see that.
    """
    whole = int(end)
    found: float = row.item(whole) - row.item(start)
    if end > whole:
        found += (end - whole) * (row.item(min(whole + 1, len(row) - 1)) - row.item(whole))
    return found


def distant(distance: float, variance: float, side: Side) -> bool:
    """Whether a tail is worth computing."""
    return distance > 0 and distance * distance > WORTH[side] ** 2 * variance


def needed(sensitivity: float, shift: float, windows: Floats) -> Floats:
    """The score at which windows of these lengths are a signal."""
    found: Floats = sensitivity - PER_DECADE * np.log10(windows) + shift
    return found


def signals(
    detector: str,
    side: Side,
    view: View,
    observed: Floats,
    expected: Floats,
    variance: Floats,
    limits: Floats,
    gate: Bools,
    *,
    scope: str = "",
    out_of: Floats | None = None,
) -> dict[int, Signal]:
    """The strongest signal of each tick that has one, of nearly equal ones the shortest. All arrays are
    [windows, ticks] with ascending windows.

    Exact tails are computed only for what passes every gate and lies far enough out.
    """
    sign = 1.0 if side == "up" else -1.0
    far = sign * (observed - expected) > WORTH[side] * np.sqrt(variance)
    found: dict[int, Signal] = {}
    limits = np.broadcast_to(limits, observed.shape)
    rows, ticks = np.nonzero(far & gate & view.valid)
    tail = surprise if side == "up" else shortfall
    for row, tick in zip(rows.tolist(), ticks.tolist(), strict=True):
        x, mean, spread = float(observed[row, tick]), float(expected[row, tick]), float(variance[row, tick])
        score = tail(x, mean, max(spread, mean))
        limit = float(limits[row, tick])
        known = found.get(tick)
        if score < limit or (known and known.margin + NEAR >= score - limit):
            continue
        found[tick] = Signal(
            detector=detector,
            side=side,
            window=int(view.windows[row, 0]),
            start=float(view.start[row, tick]),
            end=float(view.ends[tick]),
            observed=x,
            expected=mean,
            sd=spread**0.5,
            score=score,
            needed=limit,
            scope=scope,
            out_of=float(out_of[row, tick]) if out_of is not None else 0.0,
        )
    return found


def stronger(first: dict[int, Signal], second: dict[int, Signal]) -> dict[int, Signal]:
    """Of two detectors' signals by tick, the stronger ones."""
    found = dict(first)
    for tick, signal in second.items():
        known = found.get(tick)
        if known is None or signal.margin > known.margin:
            found[tick] = signal
    return found


def recovery(window: int) -> int:
    """Bins over which the effect of a signal with this window must be gone: half of it, 30 minutes to 6 hours."""
    return min(max(6, window // 2), 72)


def onset(observed: Floats, expected: Floats, side: Side) -> int:
    """The bin in which the steepest run to the end begins, by CUSUM with a slack halfway to what was seen."""
    total = float(expected.sum())
    ratio = float(observed.sum()) / total if total > 0 else 2.0
    excess = observed - expected * (1 + min(ratio, 10.0)) / 2
    run = np.cumsum((excess if side == "up" else -excess)[::-1])[::-1]
    return int(np.argmax(run)) if len(run) else 0


def odds(score: float) -> str:
    """`"once in 3 million"`: how often normal variation would give this."""
    for power, word in ((12, "trillion"), (9, "billion"), (6, "million"), (3, "thousand")):
        if score >= 15:
            return "less than once in a thousand trillion"
        if score >= power:
            return f"once in {10 ** (score - power):.0f} {word}"
    return f"once in {10**score:.0f}" if score > log10(2) else "often"


def limit(signal: Signal) -> float:
    """The count at which the window would have been a signal: the first whose tail is small enough."""
    variance = max(signal.sd**2, signal.expected)
    tail = surprise if signal.side == "up" else shortfall
    if signal.needed <= 0 or signal.score < signal.needed:
        return signal.observed
    near, far = round(signal.expected), round(signal.observed)  # at `far` it is one, near the mean it is none
    while abs(far - near) > 1:
        middle = (near + far) // 2
        if tail(middle, signal.expected, variance) >= signal.needed:
            far = middle
        else:
            near = middle
    return float(far)
