"""Incidents that are planted: how they are asked for, and what of them shows in the stream."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.simulator.incidents import KINDS, Planted, parse
from billingwatch.simulator.stream import Stream, simulate
from tests.pure.shop import DAY, HOUR, START, counts, doubles, plain, scenario, seen


@pytest.mark.parametrize(
    ("incident", "type", "factor"),
    [
        ("failed_payments@+3d10h,for=6h", "payment_intent.payment_failed", 3),
        ("refund_spike@+3d10h,for=6h", "refund.created", 5),
        ("dispute_spike@+3d10h,for=6h", "charge.dispute.created", 10),
        ("card_testing@+3d10h,for=6h", "charge.failed", 10),
    ],
)
def test_incident_shows_in_its_span_only(incident: str, type: str, factor: float) -> None:
    span = (3 * DAY + 10 * 3600, 3 * DAY + 16 * 3600)
    quiet = plain()
    loud = list(simulate(scenario(incident)))
    usual = counts(quiet, *span)[type]
    assert counts(loud, *span)[type] > factor * max(usual, 1)
    assert counts(loud, 0, span[0]) == counts(quiet, 0, span[0])


def test_cancel_spike_shows_both_ways_of_leaving() -> None:
    events = list(simulate(scenario("cancel_spike@+3d10h,size=20,for=4h")))
    leaving = [
        event["created"] - START
        for event in events
        if event["type"] == "customer.subscription.deleted"
        or "cancel_at_period_end" in event["data"].get("previous_attributes", {})
    ]
    during = [at for at in leaving if 3 * DAY + 10 * 3600 <= at < 3 * DAY + 14 * 3600]
    assert len(during) > 40
    assert len(leaving) - len(during) < len(during)


def test_card_testing_is_many_cards_and_tiny_amounts() -> None:
    events = simulate(scenario("card_testing@+10h,size=10,for=1h", days=0.5))
    tiny = [charge for charge in seen(events, "charge.failed") if charge["amount"] < 200]
    assert len(tiny) > 50
    assert len({charge["payment_method_details"]["card"]["fingerprint"] for charge in tiny}) == len(tiny)


def test_silence_drops_exactly_its_span() -> None:
    span = (3 * DAY + 3600, 3 * DAY + 4 * 3600)
    full = plain()
    silent = list(simulate(scenario("webhook_silence@+3d1h,for=3h")))
    assert counts(full, *span).total() > 20
    assert silent == [event for event in full if not START + span[0] <= event["created"] < START + span[1]]


def test_weighing_an_incident_changes_nothing_of_what_follows() -> None:
    odd = {"start": START + 150, "days": 0.5, "volume": 1500}  # slots that begin in one hour and end in the next
    full = list(simulate(scenario(**odd)))
    silent = list(simulate(scenario("webhook_silence@+2h,for=4h", **odd)))
    after = START + 150 + 6 * HOUR
    assert [event for event in silent if event["created"] >= after] == [e for e in full if e["created"] >= after]


def test_broken_checkout_keeps_buyers_away_and_renewals_running() -> None:
    span = (3 * DAY + 10 * HOUR, 3 * DAY + 16 * HOUR)
    gone = list(simulate(scenario("checkout_drop@+3d10h,size=1,for=6h")))
    inside = [event for event in gone if START + span[0] + 600 <= event["created"] < START + span[1]]
    opened = [event for event in inside if event["type"] == "payment_intent.created"]
    assert opened
    assert all(event["data"]["object"]["description"] == "Subscription update" for event in opened)
    assert counts(gone, 0, span[0]) == counts(plain(), 0, span[0])


def test_duplicate_charges_are_second_successes_of_another_payment_intent() -> None:
    loud = simulate(scenario("duplicate_charges@+3d10h,size=0.5,for=6h"))
    found = doubles(seen(loud, "charge.succeeded"))
    assert len(found) > 10
    assert all(first["payment_intent"] != second["payment_intent"] for first, second in found)
    assert all(first["customer"] == second["customer"] for first, second in found)
    begin = START + 3 * DAY + 10 * HOUR
    assert sum(begin <= second["created"] < begin + 6 * HOUR + 600 for _, second in found) > 0.9 * len(found)
    assert len(doubles(seen(plain(), "charge.succeeded"))) < 4


def test_revenue_drop_shrinks_amounts_and_leaves_counts() -> None:
    span = (3 * DAY, 4 * DAY)
    loud = [
        event for event in simulate(scenario("revenue_drop@+3d,size=0.6,for=1d")) if event["type"] == "charge.succeeded"
    ]
    quiet = [event for event in plain() if event["type"] == "charge.succeeded"]

    def inside(events: list[dict[str, Any]]) -> list[int]:
        return [
            e["data"]["object"]["amount"] for e in events if span[0] <= e["created"] - START - 7200 < span[1] - 7200
        ]

    assert len(inside(loud)) == pytest.approx(len(inside(quiet)), rel=0.2)
    assert sum(inside(loud)) / len(inside(loud)) < 0.6 * sum(inside(quiet)) / len(inside(quiet))


@pytest.mark.parametrize("version", ["2024-06-20", "2026-10-28.endive"])
def test_mrr_drop_takes_the_share_that_it_says(version: str) -> None:
    wanted = scenario("mrr_drop@+1d,size=0.3,for=6h", kind="b2b", days=1.5, api_version=version)
    stream = Stream(wanted)
    before = lost = 0.0
    for event in stream.events():
        if before == 0 and event["created"] >= START + DAY - 300:
            before = sum(monthly(*facts(sub)) for sub in stream.world.active)
        if event["type"].startswith("customer.subscription.") and event["created"] >= START + DAY:
            lost += change(event)
    assert lost == pytest.approx(0.3 * before, rel=0.15)


def facts(sub: Any) -> tuple[int, int, str]:
    return sub.plan.cents, sub.quantity, sub.plan.interval


def monthly(cents: int, quantity: int, interval: str) -> float:
    return cents * quantity / (12 if interval == "year" else 1)


def change(event: dict[str, Any]) -> float:
    """What a month loses by this event of an active subscription, in cents."""
    sub = event["data"]["object"]
    now = item(sub)
    if event["type"].endswith("deleted"):
        return now
    before = event["data"].get("previous_attributes", {})
    moved = event["type"].endswith("updated") and "items" in before and "latest_invoice" not in before
    return item(before) - now if moved else 0.0


def item(sub: dict[str, Any]) -> float:
    only = sub["items"]["data"][0]
    return monthly(only["price"]["unit_amount"], only["quantity"], only["price"]["recurring"]["interval"])


def test_incident_outside_the_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the stream"):
        simulate(scenario("refund_spike@+6d"))


@pytest.mark.parametrize("kind", ["webhook_lag", "webhook_outage"])
def test_incident_of_arrivals_is_refused_where_nothing_arrives(kind: str) -> None:
    with pytest.raises(ValueError, match="no arrivals"):
        simulate(scenario(f"{kind}@+1d"))


# How incidents are asked for


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("refund_spik@+2d", "unknown kind 'refund_spik'; the kinds are failed_payments, card_testing"),
        ("refund_spike", "no time after"),
        ("refund_spike@", "no time after"),
        ("refund_spike@soon", "'soon' is neither ISO time nor an offset"),
        ("refund_spike@+", "'' is not a span"),
        ("refund_spike@+2x", "'2x' is not a span"),
        ("refund_spike@+2d,size=many", "size='many' is not a number"),
        ("failed_payments@+2d,size=1.5", "cannot be above 1"),
        ("webhook_lag@+2d,size=2", "cannot be above 1"),
        ("refund_spike@+2d,on=0", "on='0' is not the number of an account"),
        ("refund_spike@+2d,on=shop", "on='shop' is not the number of an account"),
        ("refund_spike@+2d,for=", "'' is not a span"),
        ("refund_spike@+2d,for=0m", "longer than nothing"),
        ("refund_spike@+2d,for=99999d", "longer than a year"),
        ("refund_spike@+2d,colour=red", "unknown option 'colour=red'"),
        ("refund_spike@0001-01-01", "not of this century"),
    ],
)
def test_parse_names_the_faulty_part(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(text)


@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 300),
    st.integers(0, 23),
    st.integers(1, 5000),
    st.decimals(0, 1, places=3),
    st.integers(1, 999),
)
def test_parse_reads_what_is_written(kind: str, days: int, hours: int, minutes: int, size: Any, on: int) -> None:
    assert parse(f"{kind}@+{days}d{hours}h,size={size},for={minutes}m,on={on}") == Planted(
        kind, days * DAY + hours * 3600, False, float(size), minutes * 60, on
    )


@given(st.sampled_from(["", *KINDS]), st.text(alphabet="@+,=dhms0123456789.TZ:-sizefor é٣", max_size=40))
def test_parse_never_fails_otherwise_than_by_value_error(kind: str, rest: str) -> None:
    try:
        planted = parse(f"{kind}{rest}")
    except ValueError as error:
        message = str(error)
        assert message.startswith(repr(f"{kind}{rest}"))
    else:
        assert planted.kind in KINDS
        assert planted.span > 0
