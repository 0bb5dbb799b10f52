"""The simulator: repeatable bytes, order, ids that agree, both shapes of objects, incidents that can be seen."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import stripe
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.cli.simulate import simulate as command
from billingwatch.simulator import rhythm
from billingwatch.simulator.incidents import KINDS, Planted, parse
from billingwatch.simulator.objects import BASIL, CURRENT, OLD
from billingwatch.simulator.stream import Scenario, labels, simulate

START = int(datetime(2026, 8, 30, tzinfo=UTC).timestamp())  # a Sunday; the 1st of the month is the third day
DAY = 86_400
PAYLOADS = sorted((Path(__file__).parents[1] / "payloads").glob("*.json"))


def scenario(*incidents: str, **changes: Any) -> Scenario:
    """Six days of a shop with 300 charges a day."""
    facts: dict[str, Any] = {"seed": 5, "start": START, "days": 6, "volume": 300}
    return Scenario(**{**facts, **changes}, incidents=tuple(parse(text) for text in incidents))


@cache
def plain() -> list[dict[str, Any]]:
    """The events of the six days without an incident; not to be changed."""
    return list(simulate(scenario()))


def encoded(wanted: Scenario) -> bytes:
    return b"\n".join(map(msgspec.json.encode, simulate(wanted)))


def counts(events: Iterable[dict[str, Any]], first: int, last: int) -> Counter[str]:
    """Events by type in `[first, last)`, in seconds after the start."""
    return Counter(event["type"] for event in events if START + first <= event["created"] < START + last)


def test_same_scenario_same_bytes() -> None:
    wanted = scenario("refund_spike@+1d", days=2)
    assert encoded(wanted) == encoded(wanted)
    assert encoded(wanted) != encoded(scenario("refund_spike@+1d", days=2, seed=6))


def test_a_longer_stream_begins_with_the_shorter() -> None:
    longer = encoded(scenario(days=2))
    assert longer.startswith(encoded(scenario(days=1)))


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


def seen(events: Iterable[dict[str, Any]], type: str) -> list[dict[str, Any]]:
    return [event["data"]["object"] for event in events if event["type"] == type]


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


@pytest.mark.parametrize(("currency", "amount"), [("usd", 700), ("jpy", 700), ("kwd", 2100)])
def test_amounts_suit_the_currency(currency: str, amount: int) -> None:
    charges = seen(simulate(scenario(days=1, currency=currency)), "charge.succeeded")
    assert {charge["currency"] for charge in charges} == {currency}
    assert amount in {charge["amount"] for charge in charges}


def test_account_stands_in_connect_events_only() -> None:
    own = list(simulate(scenario(days=0.5)))
    connected = list(simulate(scenario(days=0.5, account="acct_1Example", livemode=False)))
    assert not any("account" in event for event in own)
    assert {event["account"] for event in connected} == {"acct_1Example"}
    assert not any(event["livemode"] or event["data"]["object"].get("livemode", False) for event in connected)


def test_usual_shares_are_usual() -> None:
    rates = set()
    for seed in range(3):
        events = list(simulate(scenario(seed=seed, days=7, start=START + 5 * DAY)))  # clear of the 1st to the 3rd
        intents = len(seen(events, "payment_intent.created"))
        first: set[str] = set()
        for event in events:
            if event["type"] == "payment_intent.payment_failed":
                first.add(event["data"]["object"]["id"])
        assert 0.7 * 7 * 300 < intents < 1.25 * 7 * 300
        rates.add(len(first) / intents)
    assert all(0.015 < rate < 0.14 for rate in rates)
    assert max(rates) > 1.15 * min(rates)


def test_b2b_rests_at_the_weekend_and_at_night() -> None:
    events = list(simulate(scenario(kind="b2b", days=14)))
    starts = [e["created"] for e in events if e["type"] == "payment_intent.created" and e["request"]["id"]]
    days = Counter(rhythm.weekday(at) for at in starts)
    hours = Counter(at % DAY // 3600 for at in starts)
    assert days[5] + days[6] < 0.5 * (days[1] + days[2])
    assert hours[3] < 0.4 * hours[10]


def test_renewals_crowd_the_first_of_the_month() -> None:
    events = list(simulate(scenario(days=30, volume=150, start=START + 2 * DAY)))
    days = Counter(rhythm.day_of_month(invoice["created"]) for invoice in seen(events, "invoice.created"))
    assert days[1] > 3 * days[20]
    assert days[15] > 1.5 * days[20]


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


def test_labels_say_what_was_planted() -> None:
    wanted = scenario("webhook_silence@2026-09-03T00:00:00Z,for=90m", "refund_spike@+2d3h,size=20", livemode=False)
    first, second = labels(wanted)
    assert (first.kind, first.detector, first.account, first.livemode) == (
        "refund_spike",
        "refund_spike",
        "default",
        False,
    )
    assert (first.start, first.size) == (datetime(2026, 9, 1, 3, tzinfo=UTC), 20)
    assert (second.end - second.start).total_seconds() == 5400
    assert labels(scenario("refund_spike@+1d", account="acct_1Example"))[0].account == "acct_1Example"


def test_incident_is_cut_where_the_stream_ends() -> None:
    (label,) = labels(scenario("refund_spike@+5d23h,for=4h"))
    assert label.end == datetime.fromtimestamp(START + 6 * DAY, UTC)


def test_incident_outside_the_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the stream"):
        simulate(scenario("refund_spike@+6d"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("refund_spik@+2d", "unknown kind 'refund_spik'; the kinds are failed_payments, refund_spike"),
        ("refund_spike", "no time after"),
        ("refund_spike@", "no time after"),
        ("refund_spike@soon", "'soon' is neither ISO time nor an offset"),
        ("refund_spike@+", "'' is not a span"),
        ("refund_spike@+2x", "'2x' is not a span"),
        ("refund_spike@+2d,size=many", "size='many' is not a number"),
        ("failed_payments@+2d,size=1.5", "cannot be above 1"),
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
)
def test_parse_reads_what_is_written(kind: str, days: int, hours: int, minutes: int, size: Any) -> None:
    assert parse(f"{kind}@+{days}d{hours}h,size={size},for={minutes}m") == Planted(
        kind, days * DAY + hours * 3600, False, float(size), minutes * 60
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


@given(st.integers(0, 4_000_000_000), st.integers(1, 31), st.integers(-30, 30))
def test_month_later_keeps_anchor_and_second(at: int, anchor: int, months: int) -> None:
    then, now = (datetime.fromtimestamp(t, UTC) for t in (rhythm.month_later(at, anchor, months), at))
    assert then.time() == now.time()
    assert then.year * 12 + then.month == now.year * 12 + now.month + months
    assert then.day <= anchor
    assert then.day == anchor or (then.day >= 28 and rhythm.day_of_month(int(then.timestamp()) + DAY) == 1)


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


def test_command_writes_events_and_labels(tmp_path: Path) -> None:
    out, marks = tmp_path / "day.jsonl", tmp_path / "labels.json"
    arguments = (
        f"--days 1 --seed 3 --volume 50 --start 2026-09-01 --incident refund_spike@+3h -o {out} --labels {marks}"
    )
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    events = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    assert f"{len(events)} events, 1 planted incidents" in result.stderr
    assert all(event["object"] == "event" for event in events)
    (mark,) = msgspec.json.decode(marks.read_bytes())
    assert mark["start"] == "2026-09-01T03:00:00Z"


@pytest.mark.parametrize(
    "arguments",
    [
        "--days 1 --incident nonsense@+1h -o -",
        "--days 1 --incident refund_spike@+2d -o -",
        "--days 0 -o -",
        "--days 1 --start yesterday -o -",
        "--days 1 --account me -o -",
        "--days 1 --currency euros -o -",
        "--days 1 --api-version newest -o -",
    ],
)
def test_command_answers_wrong_usage_with_2(arguments: str) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2
