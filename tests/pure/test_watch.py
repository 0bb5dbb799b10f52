"""A stream of whole events through facts, counts, learning, judgement and incidents: what is told, and what is not."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest

from billingwatch.model import Tenant
from billingwatch.simulator.delivery import deliver
from billingwatch.simulator.incidents import parse, place
from billingwatch.simulator.stream import Scenario, simulate
from detectors.backtest import Arrival, Finding, backtest
from detectors.event import read_event
from detectors.registry import configure

SEPTEMBER = 1_788_220_800  # the 1st, midnight
DAY, HOUR = 86_400, 3600
PLANS, _ = configure({})


def scenario(*planted: str, **changes: Any) -> Scenario:
    fields: dict[str, Any] = {"seed": 3, "start": SEPTEMBER, "days": 9, "volume": 150}
    return Scenario(**(fields | changes), incidents=tuple(map(parse, planted)))


def arrivals(made: Scenario, delay: int = 2) -> Iterator[Arrival]:
    for event in simulate(made):
        read = read_event(msgspec.json.encode(event))
        yield Arrival(read, read.created + delay)


def told(stream: Iterable[Arrival]) -> list[Finding]:
    return list(backtest(stream, PLANS))


def merged(*streams: Iterable[Arrival]) -> Iterator[Arrival]:
    return heapq.merge(*streams, key=lambda each: each.received)


@pytest.fixture(scope="module")
def calm() -> list[Arrival]:
    return list(arrivals(scenario()))


def test_a_new_account_is_left_alone(calm: list[Arrival]) -> None:
    assert told(calm) == []


def test_what_comes_twice_counts_once(calm: list[Arrival]) -> None:
    assert told(each for each in calm for _ in range(2)) == []


def test_a_month_that_is_replayed_at_once_tells_nothing() -> None:
    planted = scenario("failed_payments@+10d,size=0.9,for=6h", "refund_spike@+20d,size=200,for=2h", days=30, volume=40)
    month = list(arrivals(planted))
    now = month[-1].received + HOUR
    assert told(Arrival(each.event, now + number // 200) for number, each in enumerate(month)) == []


def test_a_month_s_first_days_with_their_renewals_and_cancellations_are_no_incident() -> None:
    assert told(arrivals(scenario(start=SEPTEMBER - 14 * DAY, days=18))) == []


def test_a_sale_is_no_incident(calm: list[Arrival]) -> None:
    """Three times the business of a day, from one hour to the next."""
    sale = [arrivals(scenario(start=SEPTEMBER + 8 * DAY + 9 * HOUR, days=0.5, seed=seed)) for seed in (11, 12)]
    assert told(merged(calm, *sale)) == []


def test_a_flood_in_test_mode_is_no_news_about_live_money(calm: list[Arrival]) -> None:
    flood = arrivals(scenario(start=SEPTEMBER + 8 * DAY, days=0.5, volume=4000, livemode=False))
    assert [each for each in told(merged(calm, flood)) if each.incident.tenant.livemode] == []


def test_a_backfill_after_an_outage_is_of_the_silence_and_of_nothing_else() -> None:
    made = scenario(volume=600, days=10)
    outage = place(parse("webhook_outage@+9d9h,for=5h"), made.start, made.end)
    late = (
        Arrival(read_event(bytes(each.event)), int(each.received_at)) for each in deliver(simulate(made), [outage], 3)
    )
    found = told(late)
    assert {each.incident.detector for each in found} == {"webhook_silence"}
    assert [each.reason for each in found if each.reason] == ["first", "resolved"]


def test_an_outage_of_payments_is_found_by_the_account_that_has_it() -> None:
    begins = SEPTEMBER + 8 * DAY + 14 * HOUR
    found = told(arrivals(scenario("failed_payments@+8d14h,size=0.9,for=2h", volume=300)))
    assert {each.incident.detector for each in found} == {"failure_rate"}
    assert begins <= found[0].at <= begins + HOUR
    assert {each.incident.tenant for each in found} == {Tenant("default", True)}
    assert found[0].incident.customers > 0
    assert [each.currency for each in found[0].incident.at_risk] == ["usd"]


def test_the_order_within_a_minute_changes_nothing() -> None:
    planted = list(arrivals(scenario("card_testing@+5d12h,size=20", days=6)))
    by_minute: dict[int, list[Arrival]] = {}
    for each in planted:
        by_minute.setdefault(-(-each.received // 60), []).append(each)
    shuffled = [Arrival(each.event, minute * 60) for minute, group in by_minute.items() for each in reversed(group)]
    assert told(shuffled) == told(planted) != []


def test_what_people_announced_opens_nothing_and_is_no_evidence_afterwards() -> None:
    stream = list(arrivals(scenario("failed_payments@+8d14h,size=0.9,for=2h", volume=300)))
    begins = SEPTEMBER + 8 * DAY + 13 * HOUR
    spans = {Tenant("default", True): ((begins, begins + 4 * HOUR),)}
    assert list(backtest(stream, PLANS, expected=spans)) == []
