"""Judged live, tick by tick, an account gets the signals that a backtest gives it over many ticks at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.catalogue import DETECTORS, FORECAST, LINES, SILENCE
from detectors.share import STRATA
from detectors.strip import Line, Rate, Strip

HOURS = 100
TICKS = np.arange(96 * 12 + 1, HOURS * 12, 0.4)


def strip_of(seed: int, busy: float, sides: float) -> Strip:
    """Four days in which the last hours of every line ran `busy` times as high as forecast."""
    rng = np.random.default_rng(seed)
    lines = {}
    for name in (*LINES, "late", "arrived"):
        mid = rng.gamma(1.0, 20.0, HOURS)
        rate = np.repeat(mid, 12) / 12
        rate[95 * 12 :] *= busy
        counts = rng.poisson(rate).astype(float)
        lines[name] = Line(counts, mid, mid / sides, mid * sides) if name in FORECAST else Line(counts)
    rates = {name: Rate(0.06) for name in STRATA} | {"duplicate": Rate(0.001)}
    return Strip(0, lines, rates, 30.0)


@pytest.mark.parametrize("name", sorted(DETECTORS))
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 1.0, 3.0]), st.floats(1, 1.5), st.integers(0, 99 * 12))
@settings(max_examples=25, deadline=None)
def test_one_tick_signals_what_many_do(name: str, seed: int, busy: float, sides: float, floor: int) -> None:
    detector, strip = DETECTORS[name], strip_of(seed, busy, sides)
    at_once = detector.scan(strip, TICKS, float(floor))
    one_by_one = {
        tick: signal
        for tick in range(len(TICKS))
        for signal in detector.scan(strip, TICKS[tick : tick + 1], float(floor)).values()
    }
    assert one_by_one == at_once


@given(st.integers(0, 2**32 - 1), st.floats(0, 2), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_one_tick_of_silence_signals_what_many_do(seed: int, share: float, quiet: int) -> None:
    strip = strip_of(seed, share, 1.2)
    watermark = np.maximum(TICKS - quiet, 0)
    at_once = SILENCE.scan(strip, TICKS, watermark)
    gone = SILENCE.gone(strip, TICKS, watermark)
    for tick in range(len(TICKS)):
        one = slice(tick, tick + 1)
        assert dict(enumerate(SILENCE.scan(strip, TICKS[one], watermark[one]).values())) == (
            {0: at_once[tick]} if tick in at_once else {}
        )
        assert bool(SILENCE.gone(strip, TICKS[one], watermark[one])[0]) == bool(gone[tick])
