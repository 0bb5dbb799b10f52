"""The simulator: repeatable bytes, order, memory, ids that agree, both shapes of objects, amounts of any currency."""

import re
import tracemalloc
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import msgspec
import pytest
import stripe

from billingwatch.simulator.objects import BASIL, CURRENT, OLD, Account
from billingwatch.simulator.stream import simulate
from tests.pure.shop import DAY, START, encoded, plain, scenario, seen

PAYLOADS = sorted((Path(__file__).parents[1] / "payloads").glob("*.json"))


def test_same_scenario_same_bytes() -> None:
    wanted = scenario("refund_spike@+1d", days=2)
    assert encoded(wanted) == encoded(wanted)
    assert encoded(wanted) != encoded(scenario("refund_spike@+1d", days=2, seed=6))
    full = scenario("mrr_drop@+1d", days=2, kind="food", zone="Asia/Tokyo", surprises=True)
    assert encoded(full) == encoded(full)


@pytest.mark.parametrize("surprises", [False, True])
def test_a_longer_stream_begins_with_the_shorter(surprises: bool) -> None:
    longer = encoded(scenario(days=9, volume=60, surprises=surprises))
    assert longer.startswith(encoded(scenario(days=7, volume=60, surprises=surprises)))


def test_ordered_within_the_span_and_never_the_same_id() -> None:
    events = plain()
    created = [event["created"] for event in events]
    assert created == sorted(created)
    assert created[0] >= START
    assert created[-1] < START + 6 * DAY
    assert len({event["id"] for event in events}) == len(events)


def test_an_unread_stream_costs_nothing_of_its_length() -> None:
    first = next(simulate(scenario(days=3000)))
    assert first["object"] == "event"


def test_memory_does_not_grow_with_the_stream() -> None:
    stream = simulate(scenario(days=1000, volume=40))
    tracemalloc.start()
    try:
        peaks = []
        for _ in range(3):
            tracemalloc.reset_peak()
            assert sum(1 for _ in islice(stream, 8000)) == 8000
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    # The first weeks bring sales that may be refunded for months, and regulars; after them it is the same again.
    assert peaks[2] < 1.15 * peaks[1]


def test_ids_agree_across_events() -> None:
    events = list(simulate(scenario(days=10)))
    charges = {charge["id"]: charge for charge in seen(events, "charge.succeeded")}
    failed = {charge["id"]: charge for charge in seen(events, "charge.failed")}
    opened = {intent["id"]: intent for intent in seen(events, "payment_intent.created")}
    assert len(charges) > 1000
    for charge in [*charges.values(), *failed.values()]:
        intent = opened[charge["payment_intent"]]
        assert intent["amount"] == charge["amount"]
        assert intent["customer"] == charge["customer"]
    for intent in seen(events, "payment_intent.succeeded"):
        assert charges[intent["latest_charge"]]["payment_intent"] == intent["id"]
    drafts = {invoice["id"]: invoice for invoice in seen(events, "invoice.created")}
    paid = seen(events, "invoice.paid")
    links = {link["invoice"]: link for link in seen(events, "invoice_payment.paid")}
    assert len(links) > 100
    for invoice in paid:
        assert drafts[invoice["id"]]["customer"] == invoice["customer"]
        if invoice["amount_paid"]:
            assert links[invoice["id"]]["payment"]["payment_intent"] in opened
    for refund in seen(events, "refund.created"):
        if refund["charge"] in charges:  # others refund sales from before the stream
            assert charges[refund["charge"]]["payment_intent"] == refund["payment_intent"]


def test_refunds_add_up_to_what_the_charge_says() -> None:
    events = list(simulate(scenario("refund_spike@+1d,size=60,for=12h", days=10)))
    own: defaultdict[str, int] = defaultdict(int)
    several = 0
    for event in events:
        thing = event["data"]["object"]
        if event["type"] == "refund.created":
            own[thing["charge"]] += thing["amount"]
        elif event["type"] == "charge.refunded":
            previous = event["data"]["previous_attributes"]["amount_refunded"]
            assert thing["amount_refunded"] == own[thing["id"]] > previous
            assert thing["amount_refunded"] <= thing["amount"]
            assert thing["refunded"] is (thing["amount_refunded"] == thing["amount"])
            several += previous > 0
    assert several > 0


def test_subscriptions_follow_a_possible_life() -> None:
    status: dict[str, str] = {}
    kinds: Counter[str] = Counter()
    for event in simulate(scenario(days=40, volume=250, kind="b2b")):
        if not event["type"].startswith("customer.subscription."):
            continue
        sub, before = event["data"]["object"], event["data"].get("previous_attributes", {})
        assert status.get(sub["id"]) != "canceled"
        if "status" in before and sub["id"] in status:
            assert before["status"] == status[sub["id"]]
        if event["type"].endswith("deleted"):
            assert sub["status"] == "canceled"
            kinds[sub["cancellation_details"]["reason"]] += 1
        kinds[f"{before.get('status')} to {sub['status']}"] += "status" in before
        kinds["leaving"] += "cancel_at_period_end" in before
        kinds["plan"] += list(before) == ["items"]
        status[sub["id"]] = sub["status"]
    expected = {"cancellation_requested", "payment_failed", "leaving", "plan"}
    expected |= {"active to past_due", "past_due to active", "trialing to active", "incomplete to active"}
    assert expected <= {kind for kind, count in kinds.items() if count}


@pytest.mark.parametrize("version", [OLD, BASIL, CURRENT])
def test_shape_follows_the_api_version(version: str) -> None:
    events = list(simulate(scenario(days=2.5, api_version=version)))
    direct = version == OLD
    assert {event["api_version"] for event in events} == {version}
    for charge in seen(events, "charge.succeeded"):
        assert ("invoice" in charge) is direct
    for invoice in seen(events, "invoice.paid"):
        for field in ("charge", "payment_intent", "subscription", "paid"):
            assert (field in invoice) is direct
        assert ("parent" in invoice) is not direct
    for sub in seen(events, "customer.subscription.updated"):
        assert ("current_period_end" in sub) is direct
        assert ("current_period_end" in sub["items"]["data"][0]) is not direct
    assert bool(seen(events, "invoice_payment.paid")) is not direct
    renewal = next(c for c in seen(events, "charge.succeeded") if c["description"] == "Subscription update")
    if direct:
        assert renewal["invoice"].startswith("in_")
    else:
        assert renewal["payment_details"]["order_reference"].startswith("in_")


@pytest.mark.parametrize(
    ("currency", "price", "step"),
    [("usd", 700, 1), ("eur", 700, 1), ("jpy", 700, 1), ("krw", 10_500, 1), ("kwd", 2100, 10), ("bhd", 2100, 10)],
)
def test_amounts_suit_the_currency(currency: str, price: int, step: int) -> None:
    planted = ("refund_spike@+1h,size=30", "card_testing@+2h", "revenue_drop@+12h,size=0.37,for=6h")
    events = list(simulate(scenario(*planted, days=1, currency=currency)))
    charges = seen(events, "charge.succeeded") + seen(events, "charge.failed")
    assert {charge["currency"] for charge in charges} == {currency}
    assert price in {charge["amount"] for charge in charges}
    refunded = [refund["amount"] for refund in seen(events, "refund.created")]
    paid = [invoice["amount_paid"] for invoice in seen(events, "invoice.paid")]
    amounts = [charge["amount"] for charge in charges] + refunded + paid
    assert all(isinstance(amount, int) and amount % step == 0 for amount in amounts)


@pytest.mark.parametrize(
    ("currency", "expected"), [("usd", 2900), ("jpy", 2900), ("kwd", 8700), ("krw", 43_500), ("vnd", 725_000)]
)
def test_a_price_keeps_its_worth(currency: str, expected: int) -> None:
    assert Account(currency=currency).price(2900) == expected


def test_account_stands_in_connect_events_only() -> None:
    own = list(simulate(scenario(days=0.5)))
    connected = list(simulate(scenario(days=0.5, account="acct_1Example", livemode=False)))
    assert not any("account" in event for event in own)
    assert {event["account"] for event in connected} == {"acct_1Example"}
    assert not any(event["livemode"] or event["data"]["object"].get("livemode", False) for event in connected)


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.stem)
def test_payloads_are_whole_events(path: Path) -> None:
    event = msgspec.json.decode(path.read_bytes())
    name = re.fullmatch(r"([a-z0-9_.]+?)(?:-\w+)?\.(\d{4}-\d\d-\d\d(?:\.\w+)?|thin)\.json", path.name)
    assert name
    assert event["type"] == name[1]
    if name[2] == "thin":
        assert event["object"] == "v2.core.event"
        assert "data" not in event
        return
    assert event["api_version"] == name[2]
    parsed = stripe.Event.construct_from(event, None)
    assert parsed.data.object["id"] == event["data"]["object"]["id"]


def test_payloads_cover_three_api_versions() -> None:
    versions = Counter(
        match[1] for path in PAYLOADS if (match := re.search(r"\.(\d{4}-\d\d-\d\d(?:\.\w+)?)\.json$", path.name))
    )
    assert set(versions) == {OLD, BASIL, CURRENT}
    assert min(versions.values()) > 25
