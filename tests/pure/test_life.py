"""What happens to an open incident: which growth of its effect is news to people."""

from typing import Any

import pytest
from msgspec.structs import replace

from detectors.life import Life, step
from detectors.signal import Signal

NOW = 1_790_000_100
MINUTE = 60


def signal(observed: float, expected: float, **changes: Any) -> Signal:
    fields: dict[str, Any] = {
        "detector": "refund_spike" if observed > expected else "volume_drop",
        "side": "up" if observed > expected else "down",
        "window": 12,
        "start": NOW - 3600,
        "end": NOW,
        "observed": float(observed),
        "expected": float(expected),
        "sd": 1.0,
        "score": 7.0,
        "needed": 6.5,
    }
    return Signal(**(fields | changes))


def told(*signals: Signal) -> list[str]:
    """What each minute's signal, each stronger than the one before, is told as; "" where it is not."""
    found: list[str] = []
    life = Life()
    for minute, each in enumerate(signals):
        stronger = signal(each.observed, each.expected, window=each.window, score=7.0 + minute / 10)
        life, changes = step(life, NOW + minute * MINUTE, {each.detector: stronger}, (), {})
        found.append(changes[0].reason if changes else "")
    return found


@pytest.mark.parametrize(
    ("name", "first", "then", "news"),
    [
        ("more than double, by ten", (12, 4), (26, 4), "worse"),
        ("the double is not more than it", (12, 4), (24, 4), ""),
        ("ten more that are not the double", (50, 10), (70, 10), ""),
        ("the double of few", (3, 0.9), (7, 0.9), ""),
        ("the double in a longer window is the same rate", (12, 4), (24, 8), ""),
        ("few, and by now ten times what is usual", (3, 0.5), (7, 0.5), "stronger"),
        ("less than half is left of many", (40, 100), (15, 100), "worse"),
        ("less than half is left of few", (8, 20), (3, 20), ""),
        ("nothing was left before, and longer now", (0, 20), (0, 60), ""),
        ("it eases", (40, 4), (20, 4), ""),
    ],
)
def test_an_effect_that_doubles_by_no_small_number_is_news(
    name: str, first: tuple[float, float], then: tuple[float, float], news: str
) -> None:
    assert told(signal(*first), signal(*then)) == ["first", news], name


def test_what_doubles_again_is_told_again_and_what_stays_is_not() -> None:
    seen = [signal(count, 4) for count in (13, 20, 28, 30, 40, 60, 60, 120, 240)]
    assert told(*seen) == ["first", "", "worse", "", "stronger", "", "", "worse", ""]


def test_slow_growth_is_held_against_what_was_told_and_not_against_the_minute_before() -> None:
    reasons = told(*(signal(12 + n, 4) for n in range(20)))
    assert reasons.count("worse") == 1
    assert reasons.index("worse") == 13  # 25 are more than twice 12


def test_an_incident_of_the_release_before_counts_from_what_it_is_now() -> None:
    life, _ = step(Life(), NOW, {"refund_spike": signal(12, 4)}, (), {})
    older = replace(life, open={name: replace(part, told=None) for name, part in life.open.items()})
    after, changes = step(older, NOW + MINUTE, {"refund_spike": signal(26, 4, score=8.0)}, (), {})
    assert [change.reason for change in changes] == ["worse"]
    assert after.open["refund_spike"].told == after.open["refund_spike"].signal
