"""From what happened to an account to the incident that is stored and told: figures, words, money, severity."""

from typing import Any

import msgspec
import pytest

from billingwatch.model import Incident, Money, Tenant
from detectors.incident import Scene, tell
from detectors.life import Change, Open
from detectors.registry import configure
from detectors.sheet import Sheet
from detectors.signal import Signal
from detectors.strip import BIN

NOW = 1_790_000_100
PLANS, _ = configure(
    {"detectors": {"refund_spike": {"severity": "high"}}, "rules": {"many": {"metric": "refund.created"}}}
)
PLAN = PLANS.of("default")


def signal(**changes: Any) -> Signal:
    fields: dict[str, Any] = {
        "detector": "refund_spike",
        "side": "up",
        "window": 36,
        "start": NOW - 36 * BIN,
        "end": NOW,
        "observed": 12.0,
        "expected": 5.0,
        "sd": 1.2,
        "score": 7.9,
        "needed": 6.5,
    }
    return Signal(**(fields | changes))


def part(**changes: Any) -> Open:
    fields: dict[str, Any] = {
        "incident": 4,
        "opened": NOW,
        "onset": NOW - 7200,
        "window": 36,
        "signal": signal(),
        "rank": 0,
    }
    return Open(**(fields | changes))


def scene(units: dict[str, float] | None = None) -> Scene:
    sheet = Sheet(PLAN.lines, NOW // 3600 - 5, 6)
    for currency, amount in (("usd", 900), ("jpy", 5000)):
        sheet.add("refund.created", "", currency, NOW // BIN * BIN - BIN, 3, amount)
    return Scene(Tenant("default", True), PLAN.judges, PLAN.lines, sheet, units or {})


def opened(*parts: Open, where: Scene | None = None) -> Incident:
    found, reason = tell(None, parts, [Change(NOW, "refund_spike", "first", parts[0])], NOW, where or scene())
    assert reason == "first"
    return found


def test_what_opens_says_what_was_compared() -> None:
    found = opened(part())
    assert (found.number, found.detector, found.metric, found.state) == (4, "refund_spike", "refund.created", "open")
    assert (found.observed, found.expected, found.peak, found.told) == (12, 5, 12, 12)
    assert found.expected < found.limit <= found.observed
    assert found.why == "12 refunds in 3 h, normally 2-8 (expected 5.0); by normal variation once in 79 million"
    assert found.at_risk == (Money(5000, "jpy"), Money(900, "usd"))
    assert int(found.first_breach_at.timestamp()) == NOW - 7200
    (told,) = found.evidence["signals"]
    assert (told["observed"], told["score"], told["needed"]) == (12, 7.9, 6.5)


@pytest.mark.parametrize(
    ("detector", "rank", "severity"),
    [
        ("refund_spike", 0, "high"),  # as the file says, at the least
        ("refund_spike", 2, "critical"),
        ("churn_spike", 0, "medium"),
        ("churn_spike", 1, "high"),
        ("webhook_silence", 0, "critical"),
        ("many", 2, "medium"),  # a rule's own
    ],
)
def test_severity_is_the_rank_s_and_the_detector_s_at_least(detector: str, rank: int, severity: str) -> None:
    assert opened(part(rank=rank, signal=signal(detector=detector))).severity == severity


def test_a_share_is_told_as_a_share() -> None:
    failing = signal(detector="failure_rate", observed=41, out_of=58, expected=3.5, sd=2, scope="checkout", window=3)
    found = opened(part(signal=failing))
    assert (found.observed, found.expected) == (round(41 / 58, 4), round(3.5 / 58, 4))
    assert found.expected < found.limit < found.observed
    assert found.why.startswith("41 of 58 checkout payments failed in 3 h (71%); usually 6%")


def test_money_is_told_in_its_currency_and_what_is_missing_is_at_risk() -> None:
    missing = signal(detector="revenue_drop", side="down", observed=2, expected=10, sd=1.5, scope="jpy")
    found = opened(part(signal=missing), where=scene({"revenue.jpy": 500.0}))
    assert (found.observed, found.expected) == (1000, 5000)
    assert found.why.startswith("1,000 JPY from checkouts in 3 h, normally 3,500 JPY to 6,500 JPY")
    assert found.at_risk == (Money(4000, "jpy"),)


def test_the_strongest_part_speaks_first_and_every_part_is_evidence() -> None:
    other = part(rank=2, onset=NOW - 9000, signal=signal(detector="churn_spike", score=9.0))
    found = opened(part(), other)
    assert (found.severity, found.detector) == ("critical", "churn_spike")
    assert [each["detector"] for each in found.evidence["signals"]] == ["churn_spike", "refund_spike"]
    assert [each.split(" ")[1] for each in found.why.split("; also ")] == ["cancellations", "refunds"]
    assert int(found.first_breach_at.timestamp()) == NOW - 9000


def test_a_stronger_part_that_joins_makes_it_worse_and_leaves_it_its_name_and_figures() -> None:
    before = opened(part())
    joins = part(opened=NOW + 60, rank=2, signal=signal(detector="churn_spike", observed=30.0, score=20.0))
    now, reason = tell(before, [part(), joins], [Change(NOW + 60, "churn_spike", "joined", joins)], NOW + 60, scene())
    assert (reason, now.severity, now.detector, now.observed) == ("worse", "critical", "refund_spike", 12)
    assert "; also 30 cancellations" in now.why
    eased = part(clear_since=NOW + 90)
    later, reason = tell(now, [joins], [Change(NOW + 1890, "refund_spike", "eased", eased)], NOW + 1890, scene())
    assert (reason, later.detector, later.observed, later.state) == (None, "refund_spike", 12, "open")
    assert {each["detector"] for each in later.evidence["signals"]} == {"refund_spike", "churn_spike"}


def test_what_gets_worse_is_told_and_what_stays_is_not() -> None:
    before = msgspec.structs.replace(opened(part()), id=9, state="acked")
    grown = part(rank=2, signal=signal(observed=40.0, score=20.0))
    now, reason = tell(before, [grown], [Change(NOW + 60, "refund_spike", "worse", grown)], NOW + 60, scene())
    assert (reason, now.severity, now.observed, now.told, now.peak) == ("worse", "critical", 40, 40, 40)
    assert (now.id, now.state, now.opened_at) == (9, "acked", before.opened_at)
    again, reason = tell(now, [part()], [], NOW + 120, scene())
    assert (reason, again.severity, again.observed, again.told) == (None, "critical", 12, 40)


@pytest.mark.parametrize(
    ("detector", "step", "reason"),
    [
        ("refund_spike", "worse", "worse"),  # it opened the incident, whose figures are told
        ("refund_spike", "stronger", None),  # its severity was as high before
        ("churn_spike", "worse", None),
    ],
)
def test_an_effect_that_doubles_is_told_though_the_severity_stays(detector: str, step: Any, reason: str | None) -> None:
    before = msgspec.structs.replace(opened(part(rank=2)), id=9)
    grown = part(rank=2, signal=signal(observed=40.0, score=20.0))
    other = part(rank=2, signal=signal(detector="churn_spike"))
    changed = grown if detector == "refund_spike" else other
    now, told = tell(before, [grown, other], [Change(NOW + 60, detector, step, changed)], NOW + 60, scene())
    assert (told, now.severity, now.observed) == (reason, "critical", 40)
    assert now.told == (40 if reason else 12)


def test_the_peak_is_the_largest_effect_and_not_the_strongest_evidence() -> None:
    sharp = signal(window=3, start=NOW - 3 * BIN, observed=6.0, expected=0.2, score=7.6)
    assert opened(part(extreme=sharp)).peak == 6
    assert opened(part(extreme=sharp)).observed == 12


def test_what_is_over_is_told_with_its_worst() -> None:
    before = msgspec.structs.replace(opened(part(rank=2)), id=9)
    ended = part(clear_since=NOW + 600)
    over, reason = tell(before, [], [Change(NOW + 2400, "refund_spike", "resolved", ended)], NOW + 2400, scene())
    assert (reason, over.state, over.severity) == ("resolved", "resolved", "critical")
    assert over.resolved_at is not None
    assert int(over.resolved_at.timestamp()) == NOW + 2400
    assert over.clear_since is not None
    assert int(over.clear_since.timestamp()) == NOW + 600


def test_what_comes_again_within_the_hour_is_the_same_incident_told_anew() -> None:
    before = msgspec.structs.replace(opened(part()), id=9)
    ended = part(clear_since=NOW + 60)
    over, _ = tell(before, [], [Change(NOW + 1800, "refund_spike", "resolved", ended)], NOW + 1800, scene())
    again, reason = tell(over, [part()], [Change(NOW + 2400, "refund_spike", "reopened", part())], NOW + 2400, scene())
    assert (reason, again.id, again.state, again.resolved_at) == ("first", 9, "open", None)


def test_what_is_over_tells_the_money_of_all_of_it() -> None:
    before = opened(part())
    where = scene()
    start = NOW // BIN * BIN
    where.sheet.add("refund.created", "", "usd", start + BIN, 2, 700)  # after it opened
    where.sheet.add("refund.created", "", "usd", start - 3 * 3600, 1, 50)  # before it began
    over = part(clear_since=NOW + 1200)
    now, reason = tell(before, [], [Change(NOW + 3000, "refund_spike", "resolved", over)], NOW + 3000, where)
    assert (reason, now.state) == ("resolved", "resolved")
    assert now.at_risk == (Money(5000, "jpy"), Money(1600, "usd"))


def test_what_was_missing_is_no_less_when_it_is_over() -> None:
    missing = signal(detector="revenue_drop", side="down", observed=2, expected=10, sd=1.5, scope="jpy")
    where = scene({"revenue.jpy": 500.0})
    before = opened(part(signal=missing), where=where)
    over = part(signal=missing, clear_since=NOW + 1200)
    now, _ = tell(before, [], [Change(NOW + 3000, "revenue_drop", "resolved", over)], NOW + 3000, where)
    assert now.at_risk == before.at_risk == (Money(4000, "jpy"),)
