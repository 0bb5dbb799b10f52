"""When events arrive: seldom late or twice, nothing while deliveries are down, and several accounts side by side."""

import itertools
from collections import Counter
from typing import Any

import msgspec
import pytest

from billingwatch.model import ZERO_DECIMAL
from billingwatch.simulator import fleet
from billingwatch.simulator.delivery import Delivery
from billingwatch.simulator.stream import Scenario, Stream, simulate
from tests.pure.shop import DAY, HOUR, START, plain, scenario


def delivered(*incidents: str, **changes: Any) -> list[tuple[float, dict[str, Any]]]:
    """What arrives at the shop, and when."""
    stream = Stream(scenario(*incidents, arrivals=True, **changes))
    return [(each.received_at, msgspec.json.decode(each.event)) for each in stream.deliveries()]


def test_everything_arrives_in_order_of_arrival_and_after_it_happened() -> None:
    got = delivered()
    assert [at for at, _ in got] == sorted(at for at, _ in got)
    assert all(at > event["created"] for at, event in got)
    assert {event["id"] for _, event in got} == {event["id"] for event in plain()}


def test_a_few_come_late_some_twice_and_many_out_of_order() -> None:
    got = delivered()
    times = Counter(event["id"] for _, event in got)
    late = sum(at - event["created"] > 300 for at, event in got)
    assert set(times.values()) == {1, 2}
    assert 0.001 < list(times.values()).count(2) / len(times) < 0.01
    assert 0 < late / len(got) < 0.006
    created = [event["created"] for _, event in got]
    assert sum(second < first for first, second in itertools.pairwise(created)) > 100


def test_equal_seeds_arrive_equally() -> None:
    assert delivered(days=1) == delivered(days=1)
    assert delivered(days=1) != delivered(days=1, seed=6)


def test_lag_makes_its_share_of_objects_late_with_all_their_events() -> None:
    begin = START + 3 * DAY
    late: dict[str, set[bool]] = {}
    first: dict[str, float] = {}
    for at, event in delivered("webhook_lag@+3d,size=0.6,for=6h"):
        first.setdefault(event["id"], at)
        if event["type"].startswith("payment_intent.") and begin <= event["created"] < begin + 6 * HOUR:
            late.setdefault(event["data"]["object"]["id"], set()).add(first[event["id"]] - event["created"] > 300)
    assert len(late) > 40
    whole = [marks for marks in late.values() if len(marks) == 1]
    assert len(whole) > 0.97 * len(late)
    assert 0.45 < sum(True in marks for marks in whole) / len(whole) < 0.75


def test_silence_swallows_what_happens_and_lets_nothing_through() -> None:
    begin = START + 3 * DAY + HOUR
    got = delivered("webhook_silence@+3d1h,for=3h")
    assert not any(begin <= event["created"] < begin + 3 * HOUR for _, event in got)
    assert not any(begin <= at < begin + 3 * HOUR for at, _ in got)


def test_outage_loses_nothing_and_ends_in_a_burst() -> None:
    begin, end = START + 3 * DAY + HOUR, START + 3 * DAY + 4 * HOUR
    got = delivered("webhook_outage@+3d1h,for=3h")
    held = {event["id"] for event in plain() if begin <= event["created"] < end}
    assert len(held) > 50
    assert not any(begin <= at < end for at, _ in got)
    assert held <= {event["id"] for at, event in got if end <= at < end + HOUR / 2}


def test_outages_among_the_surprises_are_labelled() -> None:
    stream = Stream(scenario(days=90, volume=5, surprises=True, arrivals=True))
    got = [each.received_at for each in stream.deliveries()]
    labels = stream.labels()
    assert {label.kind for label in labels} == {"webhook_outage"}
    for label in labels:
        assert 600 <= (label.end - label.start).total_seconds() <= 5400
        assert not any(label.start.timestamp() <= at < label.end.timestamp() for at in got)
    assert Stream(scenario(days=90, volume=5, surprises=True)).labels() == ()


# Several accounts


def accounts(*incidents: str, **changes: Any) -> tuple[Scenario, ...]:
    return fleet.fleet(scenario(*incidents, **changes), 7)


def test_accounts_are_the_one_asked_for_and_connected_ones_that_differ() -> None:
    first, *others = accounts(days=2)
    assert first == scenario(days=2)
    assert all(each.account.startswith("acct_") for each in others)
    for field in ("seed", "account", "volume"):
        assert len({getattr(each, field) for each in (first, *others)}) == 7
    assert {each.kind for each in others} == {"b2c", "b2b", "global", "food"}
    assert len({each.zone for each in others}) > 4
    assert {each.currency for each in others} >= {"usd", "eur", "jpy", "kwd"}
    assert all(each.days == 2 and 5 <= each.volume <= 50_000 for each in others)


def test_accounts_of_a_run_are_one_ordered_stream() -> None:
    wanted = accounts(days=0.5, volume=60)
    merged = list(fleet.events([Stream(each) for each in wanted]))
    assert [event["created"] for event in merged] == sorted(event["created"] for event in merged)
    for each in wanted:
        own = [event for event in merged if event.get("account", "") == each.account]
        assert own == list(simulate(each)) != []
    currencies = {event["data"]["object"]["currency"] for event in merged if event["type"] == "payment_intent.created"}
    assert currencies & ZERO_DECIMAL


def test_deliveries_to_several_accounts_are_one_ordered_stream() -> None:
    wanted = accounts(days=0.5, volume=60, arrivals=True)
    merged = list(fleet.deliveries([Stream(each) for each in wanted]))
    assert [each.received_at for each in merged] == sorted(each.received_at for each in merged)
    assert len(merged) == sum(len(list(Stream(each).deliveries())) for each in wanted)
    assert all(isinstance(each, Delivery) for each in merged)


def test_incident_goes_to_the_account_that_it_names() -> None:
    wanted = accounts("refund_spike@+1d", "cancel_spike@+1d,on=3", "card_testing@+2d,on=3")
    kinds = [[planted.kind for planted in each.incidents] for each in wanted]
    assert kinds == [["refund_spike"], [], ["cancel_spike", "card_testing"], [], [], [], []]
    with pytest.raises(ValueError, match="account 8 of 7"):
        accounts("refund_spike@+1d,on=8")
