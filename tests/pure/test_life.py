"""What happens to an open incident: which growth of its effect is news to people."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from detectors.life import MORE, SETTLE, WORSE, Life, intensity, step
from detectors.signal import Signal
from detectors.strip import BIN

NOW = 1_790_000_100
MINUTE, HOUR = 60, 3600
LATER = SETTLE + MINUTE


def signal(at: int, observed: float, expected: float, **changes: Any) -> Signal:
    """What a window of an hour holds at an instant."""
    fields: dict[str, Any] = {
        "detector": "refund_spike" if observed > expected else "volume_drop",
        "side": "up" if observed > expected else "down",
        "window": 12,
        "start": float(at - HOUR),
        "end": float(at),
        "observed": float(observed),
        "expected": float(expected),
        "sd": 1.0,
        "score": 7.0,
        "needed": 6.5,
    }
    return Signal(**(fields | changes))


def told(*seen: tuple[float, float], every: int = LATER, onset: int = -2 * HOUR, **changes: Any) -> list[str]:
    """What these counts and expectations, `every` so many seconds, are told as; "" where they are not. The incident
    began at `onset`, seconds from the first.
    """
    life, found = Life(), list[str]()
    for number, (observed, expected) in enumerate(seen):
        at = NOW + number * every
        now = signal(at, observed, expected, **changes)
        life, changed = step(life, at, {now.detector: now}, (), {now.detector: NOW + onset})
        found.append(changed[0].reason if changed else "")
    return found


def then_told(first: tuple[float, float], *seen: tuple[float, float], **changes: Any) -> list[str]:
    """The same, of what comes once the first has settled."""
    opens, settles, *found = told(first, first, *seen, **changes)
    assert (opens, settles) == ("first", "")
    return found


@pytest.mark.parametrize(
    ("name", "first", "then", "news"),
    [
        ("more than twice as far, by twelve", (12, 4), (24, 4), "worse"),
        ("twice as far, and no more", (16, 4), (28, 4), ""),
        ("thirty more, and not twice as far", (50, 10), (80, 10), ""),
        ("more than twice as far, of few", (4, 1), (9, 1), ""),
        ("three times as many, in a busier hour", (12, 4), (36, 12), "worse"),
        ("more is missing, for more is expected by day", (40, 100), (115, 300), ""),
        ("few, and by now ten times what is usual", (3, 0.5), (7, 0.5), "stronger"),
        ("more than twice as much is missing", (60, 100), (15, 100), "worse"),
        ("more than twice as much is missing, of few", (15, 20), (9, 20), ""),
        ("nothing was left before, and longer now", (0, 20), (0, 60), ""),
        ("it eases", (40, 4), (20, 4), ""),
    ],
)
def test_what_is_twice_as_far_from_usual_by_no_small_number_is_news(
    name: str, first: tuple[float, float], then: tuple[float, float], news: str
) -> None:
    assert then_told(first, then) == [news], name


def test_what_grows_on_is_told_again_and_what_stays_is_not() -> None:
    counts = [20, 30, 30, 40, 60, 60, 180, 300]
    assert then_told((14, 4), *((count, 4) for count in counts)) == [
        "", "worse", "", "stronger", "worse", "", "worse", ""
    ]  # fmt: skip


def test_slow_growth_is_held_against_what_was_told_and_not_against_what_came_before() -> None:
    reasons = then_told((12, 4), *((12 + n, 4) for n in range(20)))
    assert [number for number, reason in enumerate(reasons) if reason == "worse"] == [10]  # 18 over are 8 and 10


def test_what_was_only_the_beginning_is_told_once_when_it_has_settled() -> None:
    minutes = [12, 40, 200, 1000, *(2500 + 10 * n for n in range(60))]
    reasons = told(*((count, 4) for count in minutes), every=MINUTE, onset=-5 * MINUTE)
    assert [number for number, reason in enumerate(reasons) if reason == "worse"] == [SETTLE // MINUTE]
    grown = told((12, 4), *[(30, 4)] * 60, every=MINUTE, onset=-5 * MINUTE)
    assert "worse" not in grown  # the first figures of anything are small


@pytest.mark.parametrize("rate", [0.5, 2, 10])  # a minute
def test_what_goes_on_at_the_same_rate_hardly_ever_gets_worse_while_its_window_fills(rate: float) -> None:
    """Whenever in its bin it begins, and however chance has its events come."""
    worse = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        start = NOW + rng.uniform(0, BIN)
        arrivals = np.sort(rng.uniform(start, start + 3 * HOUR, rng.poisson(rate * 180)))
        life = Life()
        for at in range(NOW, NOW + 3 * HOUR, 30):
            count = int(np.sum((arrivals <= at) & (arrivals > at - HOUR)))
            if count >= 5:
                now = signal(at, count, 0.2)
                life, changes = step(life, at, {now.detector: now}, (), {now.detector: NOW})
                worse += [change.reason for change in changes].count("worse")
    assert worse <= 1  # of 30


@pytest.mark.parametrize("score", [0.0, 300.0], ids=["a rule of the user's", "past the largest score"])
def test_it_is_told_though_the_score_grows_no_more_and_with_the_figures_of_now(score: float) -> None:
    fixed: dict[str, Any] = {"score": score, "needed": min(score, 6.5)}
    assert then_told((30, 4), (100, 4), (1000, 4), **fixed) == ["worse", "worse"]
    life, _ = step(Life(), NOW, {"refund_spike": signal(NOW, 30, 4, **fixed)}, (), {})
    life, _ = step(life, NOW + MINUTE, {"refund_spike": signal(NOW + MINUTE, 40, 4, **fixed)}, (), {})
    assert life.open["refund_spike"].signal.observed == 40


def test_what_is_told_as_worse_is_what_is_now() -> None:
    """A sharp rise may be less surprising than a long one before it."""
    life, at = Life(), NOW
    for at in (NOW, NOW + LATER):
        life, _ = step(life, at, {"refund_spike": signal(at, 60, 10, score=40.0)}, (), {"refund_spike": NOW - 2 * HOUR})
    sharp = signal(at + MINUTE, 30, 1, start=float(at + MINUTE - BIN), window=1, score=30.0)
    life, (change,) = step(life, at + MINUTE, {"refund_spike": sharp}, (), {})
    assert (change.reason, change.part.signal) == ("worse", sharp)


def test_an_incident_of_the_release_before_counts_from_what_it_was() -> None:
    life, _ = step(Life(), NOW, {"refund_spike": signal(NOW, 12, 4)}, (), {"refund_spike": NOW - 2 * HOUR})
    older = replace(
        life, open={name: replace(part, told=None, heard=0, settling=None) for name, part in life.open.items()}
    )
    at = NOW + LATER
    same, changes = step(older, at, {"refund_spike": signal(at, 14, 4)}, (), {})
    assert changes == []
    after, changes = step(same, at + 1, {"refund_spike": signal(at + 1, 26, 4)}, (), {})
    assert [change.reason for change in changes] == ["worse"]
    assert after.open["refund_spike"].heard == at + 1


def test_intensity_is_of_the_time_since_the_onset() -> None:
    over, short = signal(NOW, 12, 4), signal(NOW, 4, 12)
    assert intensity(over, NOW - HOUR) == intensity(short, NOW - HOUR) == 8
    assert intensity(over, NOW - 2 * HOUR) == 8
    assert intensity(over, NOW - HOUR // 2) == 16
    assert (WORSE, MORE) == (2, 10)
