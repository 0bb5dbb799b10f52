"""What would have to be different for an alarm that was false, and that it then would not have been given."""

from typing import Any

import msgspec
import pytest

from billingwatch.simulator.incidents import parse
from billingwatch.simulator.stream import Scenario, simulate
from detectors.amendment import Amendment, amend
from detectors.backtest import Arrival, backtest, incidents
from detectors.event import read_event
from detectors.registry import Plans, configure
from tests.pure.shop import START

PLANS = configure({})[0]
RULES: dict[str, Any] = {
    "above": {"metric": "refund.created", "factor": 3, "plus": 1},
    "below": {"metric": "payment.succeeded", "compare": "below", "least": 5},
}


def signal(detector: str, **changes: Any) -> dict[str, Any]:
    """What one signal compared, as an incident's evidence holds it."""
    plain: dict[str, Any] = {"scope": "", "window": [0, 3600], "out_of": 0.0, "usual": [0.0, 9.0], "unit": 1.0}
    return {"detector": detector, "score": 9.1, "needed": 7.7} | plain | changes


TABLE = [
    # A little surprising: the dial, above the margin and what a longer window may have beyond that.
    (signal("refund_spike", observed=12.0, expected=0.5), ("sensitivity", 7.2, 9.2)),
    (signal("volume_drop", observed=3.0, expected=20.0, score=8.0), ("sensitivity", 7.2, 8.1)),
    (signal("webhook_lag", observed=5.0, expected=0.1, out_of=20.0, score=5.5, needed=5.0), ("score", 5.0, 6.1)),
    (signal("webhook_silence", observed=0.0, expected=16.0, score=7.0, needed=6.5), ("score", 6.5, 7.6)),
    # Beyond any chance: what says how large is harmless.
    (signal("refund_spike", observed=41.0, expected=3.5, score=60.0), ("factor", 2.0, 12.0)),
    (signal("refund_spike", observed=41.0, expected=20.0, score=60.0), ("factor", 2.0, 2.1)),
    (signal("refund_spike", observed=12.0, expected=0.02, score=60.0), ("least", 5.0, 12.0)),
    (signal("failure_rate", observed=9.0, expected=3.0, out_of=100.0, score=60.0), ("least", 4.0, 6.1)),
    (signal("failure_rate", observed=30.0, expected=10.0, out_of=1000.0, score=60.0), ("points", 0.015, 0.021)),
    (signal("volume_drop", observed=30.0, expected=60.0, score=60.0), ("factor", 0.8, 0.49)),
    (signal("volume_drop", observed=0.0, expected=60.0, score=60.0), ("least", 8.0, 61.0)),
    (signal("webhook_lag", observed=20.0, expected=0.1, out_of=21.0, score=60.0, needed=5.0), ("factor", 0.2, 0.96)),
    (signal("webhook_silence", observed=0.0, expected=41.0, score=60.0, needed=6.5), ("least", 4.0, 42.0)),
    # Told for being far beyond any record: the dial has no say in that.
    (signal("refund_spike", observed=21.0, expected=3.5, score=3.0, needed=2.2), ("factor", 2.0, 6.1)),
    # Rules of the user's.
    (signal("above", observed=30.0, expected=4.0, score=0.0, needed=0.0), ("factor", 3.0, 7.3)),
    (signal("above", observed=3.0, expected=0.0, score=0.0, needed=0.0), ("plus", 1.0, 3.1)),
    (signal("below", observed=2.0, expected=20.0, score=0.0, needed=0.0), ("least", 5.0, 21.0)),
    (signal("below", observed=9.0, expected=20.0, score=0.0, needed=0.0), ("factor", 0.5, 0.44)),
]


@pytest.mark.parametrize(("compared", "change"), TABLE)
def test_smallest_change_that_would_not_have_told_it(
    compared: dict[str, Any], change: tuple[str, float, float]
) -> None:
    plans, wrong = configure({"rules": RULES})
    assert wrong == {}
    assert amend({"signals": [compared]}, plans.of("").judges) == (Amendment(compared["detector"], *change),)


def test_each_signal_needs_its_own_and_a_detector_that_is_gone_none() -> None:
    evidence = {
        "signals": [
            signal("refund_spike", observed=12.0, expected=0.5),
            signal("no_longer", observed=12.0, expected=0.5),
            signal("churn_spike", observed=12.0, expected=0.5),
        ]
    }
    assert [each.detector for each in amend(evidence, PLANS.of("").judges)] == ["refund_spike", "churn_spike"]
    assert amend({}, PLANS.of("").judges) == ()


@pytest.mark.parametrize("detector", ["refund_spike", "volume_drop", "above", "below"])
def test_what_the_thresholds_of_today_would_not_tell_needs_no_change(detector: str) -> None:
    plans, _ = configure({"rules": RULES})
    compared = signal(detector, observed=30.0, expected=29.0, score=60.0)
    assert amend({"signals": [compared]}, plans.of("").judges) == ()


def told(stream: list[Arrival], plans: Plans) -> list[str]:
    return [each.detector for each in incidents(backtest(stream, plans))]


def as_sections(changes: tuple[Amendment, ...], part: float) -> dict[str, Any]:
    """The TOML with this part of each change."""
    return {
        "detectors": {each.detector: {each.key: each.before + part * (each.after - each.before)} for each in changes}
    }


def test_with_the_change_the_same_events_are_told_no_more() -> None:
    planted = "card_testing@+4d10h,size=3,for=1h"
    scenario = Scenario(seed=7, start=START, days=5, volume=120, incidents=(parse(planted),))
    events = [read_event(msgspec.json.encode(each)) for each in simulate(scenario)]
    stream = [Arrival(each, each.created + 2) for each in events]
    (incident,) = incidents(backtest(stream, PLANS))
    changes = amend(incident.evidence, PLANS.of("").judges)
    assert [f"{each.detector}.{each.key}" for each in changes] == ["failure_rate.sensitivity"]
    assert told(stream, configure(as_sections(changes, 1.0))[0]) == []
    assert told(stream, configure(as_sections(changes, 0.4))[0]) == [incident.detector]
