"""The sentence of each detector: numbers that a person can check, in words that a person says."""

from typing import Any

import pytest

from detectors.registry import configure
from detectors.sentence import sentence
from detectors.signal import Signal, limit, odds

PLANS, _ = configure({"rules": {"many": {"metric": "refund.created", "window": "1h", "factor": 3, "plus": 1}}})
JUDGES = PLANS.of("default").judges


def signal(detector: str, side: str = "up", **changes: Any) -> Signal:
    fields: dict[str, Any] = {
        "detector": detector,
        "side": side,
        "window": 36,
        "start": 0,
        "end": 10_800,
        "observed": 12.0,
        "expected": 1.1,
        "sd": 1.0,
        "score": 6.5,
        "needed": 6.0,
    }
    return Signal(**(fields | changes))


CHANCE = "; by normal variation once in 3 million"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (signal("refund_spike"), f"12 refunds in 3 h, normally 0-4 (expected 1.1){CHANCE}"),
        (signal("churn_spike", observed=1), f"1 cancellation in 3 h, normally 0-4 (expected 1.1){CHANCE}"),
        (signal("dispute_spike", end=86_400), f"12 disputes in 24 h, normally 0-4 (expected 1.1){CHANCE}"),
        (signal("card_testing", end=900), f"12 small payments failed in 15 min, normally 0-4 (expected 1.1){CHANCE}"),
        (signal("duplicate_charges"), f"12 payments were taken twice in 3 h, normally 0-4 (expected 1.1){CHANCE}"),
        (
            signal("volume_drop", "down", observed=3, expected=51, sd=5.5, end=3600),
            f"3 attempts to pay in 60 min, normally 40-62 (expected 51){CHANCE}",
        ),
        (
            signal("failure_rate", observed=41, out_of=58, expected=3.5, end=900),
            f"41 of 58 payments failed in 15 min (71%); usually 6%{CHANCE}",
        ),
        (
            signal("failure_rate", observed=9, out_of=10, expected=0.8, scope="renewal"),
            f"9 of 10 renewal payments failed in 3 h (90%); usually 8%{CHANCE}",
        ),
        (
            signal("webhook_silence", "down", observed=0, expected=34, end=7500),
            f"nothing from Stripe for 2 h 5 min, where 34 payments and other things were to be expected{CHANCE}",
        ),
        (
            signal("webhook_lag", observed=14, out_of=20, end=900),
            f"14 of 20 events came more than 5 min late in 15 min{CHANCE}",
        ),
        (
            signal("revenue_drop", "down", observed=1, expected=10, sd=2, scope="kwd", end=86_400),
            f"2.500 KWD from checkouts in 24 h, normally 15.000 KWD to 35.000 KWD{CHANCE}",
        ),
        (
            signal("many", observed=12, expected=2, end=3600),
            "12 in 60 min: more than 3 times the average of 7 days (2.0) plus 1",
        ),
    ],
)
def test_each_detector_says_what_it_compared(told: Signal, words: str) -> None:
    assert sentence(told, JUDGES[told.detector], unit=2500) == words


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (0.1, "often"),
        (2, "once in 100"),
        (4, "once in 10 thousand"),
        (6.5, "once in 3 million"),
        (9, "once in 1 billion"),
        (13, "once in 10 trillion"),
        (40, "less than once in a thousand trillion"),
    ],
)
def test_odds_are_words(score: float, words: str) -> None:
    assert odds(score) == words


@pytest.mark.parametrize("side", ["up", "down"])
def test_the_limit_is_the_first_count_that_would_have_been_a_signal(side: str) -> None:
    expected = 40.0
    told = signal("refund_spike", side, observed=90 if side == "up" else 2, expected=expected, sd=7, score=9, needed=6)
    found = limit(told)
    assert found == round(found)
    assert (expected < found <= 90) if side == "up" else (2 <= found < expected)
