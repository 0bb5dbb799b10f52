"""The smallest change of a detector's thresholds by which it would not have told what turned out to be a false alarm.

It is worked out of what the strongest window compared. Another window, or another detector, may still tell the same:
a backtest shows that.
"""

from collections.abc import Callable, Iterable, Mapping
from math import ceil, floor, log10
from typing import Any

from msgspec import Struct

from detectors.catalogue import SILENCE
from detectors.excess import UNHEARD_OF
from detectors.judgement import Detector
from detectors.pulse import WebhookSilence
from detectors.setting import SENSITIVITIES
from detectors.signal import NEAR
from detectors.threshold import Threshold

# Beyond this a detector is deaf to what is real as well, and another of its thresholds says better what was harmless.
DEAF = SENSITIVITIES["strict"] + 2
ROUNDED = 0.01  # how far the evidence is from what was compared


class Amendment(Struct, frozen=True):
    """One threshold of a detector or of a user's rule, as it is and as it would have to be."""

    detector: str
    key: str
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """How much it changes; of a threshold that was 0, without bound."""
        low, high = sorted((self.before, self.after))
        return high / low if low > 0 else float("inf")


def amend(evidence: Mapping[str, Any], judges: Mapping[str, Detector | WebhookSilence]) -> tuple[Amendment, ...]:
    """One for each signal of an incident's evidence whose detector is still there and can be moved; all of them are
    needed, since each signal would have opened the incident by itself.
    """
    signals = [
        (signal, judges[signal["detector"]]) for signal in evidence.get("signals", ()) if signal["detector"] in judges
    ]
    found = (_smallest(signal, detector) for signal, detector in signals)
    return tuple(each for each in found if each)


def _smallest(signal: Mapping[str, Any], detector: Any) -> Amendment | None:
    """None where the thresholds as they are now would not have told it."""
    dial = "sensitivity" if hasattr(detector, "sensitivity") else "score"
    if not isinstance(detector, Threshold) and signal["needed"] != UNHEARD_OF:  # that is asked for by another one
        # All windows are held against the same dial, so that it quiets those that the evidence does not show, too.
        before = getattr(detector, dial)
        after = _up(before + max(0.0, signal["score"] - signal["needed"]) + NEAR)
        if after <= DEAF:
            return Amendment(signal["detector"], dial, before, after)
    candidates = _of_rule(signal, detector) if isinstance(detector, Threshold) else _of_detector(signal, detector)
    found = [Amendment(signal["detector"], key, getattr(detector, key), after) for key, after in candidates if after]
    if any(each.after >= each.before if each.key in _lower(detector) else each.after <= each.before for each in found):
        return None
    return min(found, key=lambda each: each.ratio, default=None)


def _lower(detector: Any) -> frozenset[str]:
    """The thresholds that tell less the lower they are."""
    return frozenset({"factor"}) if getattr(detector, "side", "") == "down" else frozenset()


def _of_detector(signal: Mapping[str, Any], detector: Any) -> Iterable[tuple[str, float | None]]:
    observed, expected, out_of = signal["observed"], signal["expected"], signal["out_of"]
    if detector.name == SILENCE.name:
        return [("least", _up(expected))]
    if not hasattr(detector, "sensitivity"):  # lag: late arrivals, and their share of all
        return [("least", _up(observed)), ("factor", _share(observed, out_of))]
    if detector.side == "down":
        return [("least", _up(expected - observed)), ("factor", _down(observed, expected))]
    found = [("least", _up(observed - expected)), ("factor", _times(observed, expected))]
    return [*found, ("points", _share(observed - expected, out_of))] if hasattr(detector, "points") else found


def _of_rule(signal: Mapping[str, Any], rule: Threshold) -> Iterable[tuple[str, float | None]]:
    observed, average = signal["observed"], signal["expected"]
    if rule.compare == "below":
        return [("least", _up(average)), ("factor", _down(observed - rule.plus, average))]
    return [
        ("least", _up(observed)),
        ("plus", _up(observed - rule.factor * average)),
        ("factor", _times(observed - rule.plus, average)),
    ]


def _up(value: float) -> float:
    """The next number above of two digits."""
    return _rounded(value + ROUNDED, lambda steps: floor(steps) + 1)


def _times(value: float, of: float) -> float | None:
    """A factor that is just too large."""
    return _rounded(value / of * 1.005, lambda steps: floor(steps) + 1) if value > 0 and of > 0 else None


def _share(value: float, of: float) -> float | None:
    """The same where it is a share: none is above 1."""
    found = _times(value, of)
    return found if found is not None and found <= 1 else None


def _down(value: float, of: float) -> float | None:
    """A factor that is just too small."""
    return _rounded(value / of * 0.995, lambda steps: ceil(steps) - 1) if value > 0 and of > 0 else None


def _rounded(value: float, step: Callable[[float], int]) -> float:
    if value <= 0:
        return 0.0
    digits = 1 - floor(log10(value))
    scale = 10.0**digits
    return round(step(value * scale) / scale, max(0, digits))
