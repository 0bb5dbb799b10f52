"""A stream of whole events through facts, counts, judgement and incidents: its shape must not change what is told."""

from collections.abc import Iterator

import msgspec
import pytest

from billingwatch.model import Tenant
from billingwatch.simulator.incidents import parse
from billingwatch.simulator.stream import Scenario, simulate
from detectors.backtest import Arrival, Finding, backtest
from detectors.event import read_event

START = 1_788_220_800  # a midnight
DAY = 86_400


def arrivals(scenario: Scenario, delay: int = 2) -> Iterator[Arrival]:
    for event in simulate(scenario):
        read = read_event(msgspec.json.encode(event))
        yield Arrival(read, read.created + delay)


def scenario(*planted: str, volume: float = 150, days: float = 9, livemode: bool = True) -> Scenario:
    return Scenario(
        seed=3,
        start=START,
        days=days,
        volume=volume,
        livemode=livemode,
        incidents=tuple(parse(each) for each in planted),
    )


def first_of(found: list[Finding], detector: str) -> int:
    return min(each.change.at for each in found if each.change.detector == detector)


@pytest.fixture(scope="module")
def calm() -> list[Arrival]:
    return list(arrivals(scenario()))


def test_a_new_account_is_left_alone(calm: list[Arrival]) -> None:
    assert list(backtest(calm)) == []


def test_what_comes_twice_counts_once(calm: list[Arrival]) -> None:
    twice = [each for each in calm for _ in range(2)]
    assert list(backtest(twice)) == []


def test_a_month_that_is_replayed_at_once_tells_nothing(calm: list[Arrival]) -> None:
    now = calm[-1].received + 3600
    replayed = [Arrival(each.event, now + number // 200) for number, each in enumerate(calm)]
    assert list(backtest(replayed)) == []


def test_outage_of_payments_is_found_by_the_account_that_has_it() -> None:
    planted = scenario("failed_payments@+8d14h,size=0.9,for=2h", volume=300)
    found = list(backtest(arrivals(planted)))
    assert {each.change.detector for each in found} == {"failure_rate"}
    assert first_of(found, "failure_rate") - (START + 8 * DAY + 14 * 3600) <= 3600
    assert {each.tenant for each in found} == {Tenant("default", True)}


def test_the_order_within_a_minute_changes_nothing() -> None:
    planted = list(arrivals(scenario("card_testing@+5d12h", days=6)))
    by_minute: dict[int, list[Arrival]] = {}
    for each in planted:
        by_minute.setdefault(-(-each.received // 60), []).append(each)
    shuffled = [Arrival(each.event, minute * 60) for minute, group in by_minute.items() for each in reversed(group)]
    assert list(backtest(shuffled)) == list(backtest(planted)) != []
