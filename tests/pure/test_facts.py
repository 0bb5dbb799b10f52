"""What every kind of event tells, in each API shape."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.model import Fact, Refunded
from detectors.event import Event, read_event
from detectors.facts import (
    LARGEST_AMOUNT,
    LONGEST_KEY,
    Told,
    UnknownShape,
    read_facts,
)

OLD = "2024-06-20"
PAYLOADS = {path.name.removesuffix(".json"): path for path in Path(__file__).parents[1].glob("payloads/*.json")}

Row = tuple[str, str, str, int, str, str]  # metric, stratum, currency, amount, claim, attempt_of


def row(told: Told) -> Row:
    if isinstance(told, Refunded):
        return ("refunded", "", told.currency, told.amount, told.refund, told.charge)
    if told.metric == "object.any":  # what it is the pulse of, without the stratum and the day
        return pulse(told.claim.partition(":")[2].rpartition(":")[0])
    return (told.metric, told.stratum, told.currency, told.amount, told.claim, told.attempt_of)


def pulse(root: str) -> Row:
    return ("object.any", "", "", 0, f"any:{root}", "")


def paid(stratum: str, currency: str, amount: int, charge: str, intent: str) -> list[Row]:
    claim = f"{charge}:payment.succeeded"
    return [("payment.succeeded", stratum, currency, amount, claim, intent), pulse(intent)]


def failed(stratum: str, amount: int, charge: str, intent: str) -> list[Row]:
    claim = f"{charge}:payment.failed"
    return [("payment.failed", stratum, "usd", amount, claim, intent), pulse(intent)]


def counted(metric: str, stratum: str = "", currency: str = "usd", amount: int = 0, after: str = "") -> Row:
    lasting = "due:" if after else ""  # a cancellation is asked for long before it is told again
    return (metric, stratum, currency, amount, f"{lasting}{{id}}:{metric}{after}", "")


def mrr(amount: int) -> Row:
    return ("mrr.changed", "gained" if amount > 0 else "lost", "usd", amount, "", "")


def due(amount: int, at: int = 1791972000, subscription: str = "{id}") -> Row:
    return ("renewal.due", "", "usd", amount, f"due:{subscription}:{at}:{amount}", "")


def undone(amount: int, at: int = 1791972000, subscription: str = "{id}") -> Row:
    return ("renewal.due", "", "usd", -amount, f"due:{subscription}:{at}:{amount}:undone", "")


# Braces name a field of the payload's object. A name without a version is that of every version without its own row.
FACTS: dict[str, list[Row]] = {
    "charge.dispute.created": [counted("dispute.created", amount=12900), pulse("{id}")],
    "charge.dispute.created-inquiry": [counted("dispute.inquiry", amount=1900), pulse("{id}")],
    "charge.failed": failed("checkout", 4900, "{id}", "{payment_intent}"),
    "charge.failed-renewal": failed("renewal", 8700, "{id}", "{payment_intent}"),
    "charge.refunded": [("refunded", "", "usd", 1500, "", "{id}"), pulse("{id}")],
    "charge.refunded-second": [("refunded", "", "usd", 4900, "", "{id}"), pulse("{id}")],
    "charge.succeeded": paid("checkout", "usd", 4900, "{id}", "{payment_intent}"),
    "charge.succeeded-connect": paid("checkout", "usd", 4900, "{id}", "{payment_intent}"),
    "charge.succeeded-jpy": paid("checkout", "jpy", 7900, "{id}", "{payment_intent}"),
    "charge.succeeded-kwd": paid("checkout", "kwd", 23700, "{id}", "{payment_intent}"),
    "charge.succeeded-renewal": paid("renewal", "usd", 8700, "{id}", "{payment_intent}"),
    "checkout.session.completed": [counted("checkout.completed", amount=4900), pulse("{id}")],
    "checkout.session.expired": [counted("checkout.expired", amount=1900), pulse("{id}")],
    "customer.subscription.created": [
        counted("subscription.created", currency=""),
        mrr(8700),
        due(8700),
        pulse("{id}"),
    ],
    "customer.subscription.created-trial": [
        counted("subscription.created", currency=""),
        due(8700, at=1790589600),
        pulse("{id}"),
    ],
    "customer.subscription.deleted": [
        counted("subscription.canceled", "voluntary", amount=8700, after=":{canceled_at}"),
        mrr(-8700),
        pulse("{id}"),
    ],
    "customer.subscription.deleted-payment_failed": [
        counted("subscription.canceled", "involuntary", amount=8700, after=":{canceled_at}"),
        mrr(-8700),
        undone(8700),
        pulse("{id}"),
    ],
    "customer.subscription.updated-cancel_at_period_end": [
        counted("subscription.canceled", "voluntary", amount=8700, after=":{canceled_at}"),
        undone(8700),
        pulse("{id}"),
    ],
    "customer.subscription.updated-downgrade": [mrr(-38900), undone(39800), due(900), pulse("{id}")],
    "customer.subscription.updated-renewal": [due(8700), pulse("{id}")],
    "customer.subscription.updated-trial_ended": [
        counted("trial.converted", currency=""),
        mrr(8700),
        due(8700, at=1793181600),
        pulse("{id}"),
    ],
    # Since basil an invoice names neither its charge nor its intent.
    "invoice.paid": [pulse("{id}")],
    f"invoice.paid.{OLD}": paid("renewal", "usd", 8700, "{charge}", "{payment_intent}"),
    "invoice.payment_failed": [pulse("{id}")],
    f"invoice.payment_failed.{OLD}": failed("renewal", 8700, "{charge}", "{payment_intent}"),
    "invoice_payment.paid": [pulse("{id}")],
    "payment_intent.payment_failed": failed("checkout", 4900, "{last_payment_error[charge]}", "{id}"),
    "payment_intent.payment_failed-3ds": failed("checkout", 4900, "{id}@1789380040", "{id}"),
    "payment_intent.payment_failed-renewal": failed("renewal", 8700, "{last_payment_error[charge]}", "{id}"),
    "payment_intent.succeeded": paid("checkout", "usd", 4900, "{latest_charge}", "{id}"),
    "payment_intent.succeeded-renewal": paid("renewal", "usd", 8700, "{latest_charge}", "{id}"),
    "payout.failed": [counted("payout.failed", amount=812345), pulse("{id}")],
    "radar.early_fraud_warning.created": [counted("fraud_warning.created", currency=""), pulse("{id}")],
    "refund.created": [("refunded", "", "usd", 1500, "{id}", "{charge}"), pulse("{id}")],
    "refund.created-second": [("refunded", "", "usd", 3400, "{id}", "{charge}"), pulse("{id}")],
    "v1.charge.failed.thin": [pulse("{id}")],
}


def kind(name: str) -> str:
    """A payload's name without its API version."""
    return re.sub(r"\.\d{4}-\d\d-\d\d(\.[a-z]+)?$", "", name)


def object_of(body: bytes) -> dict[str, Any]:
    envelope = msgspec.json.decode(body)
    thing: dict[str, Any] = envelope["data"]["object"] if "data" in envelope else envelope["related_object"]
    return thing


@pytest.mark.parametrize("name", sorted(PAYLOADS))
def test_every_payload_tells_exactly_this(name: str) -> None:
    body = PAYLOADS[name].read_bytes()
    event, thing = read_event(body), object_of(body)
    told = read_facts(event)
    expected = [
        (*values, claim.format(**thing), attempt_of.format(**thing))
        for *values, claim, attempt_of in FACTS.get(name) or FACTS[kind(name)]
    ]
    assert [row(each) for each in told] == expected
    assert {each.created for each in told if row(each)[0] != "renewal.due"} == {event.created}


@pytest.mark.parametrize("name", sorted(name for name in PAYLOADS if "subscription" in name))
def test_a_renewal_counts_when_the_period_ends_and_backwards_when_it_is_off(name: str) -> None:
    for told in read_facts(read_event(PAYLOADS[name].read_bytes())):
        if isinstance(told, Fact) and told.metric == "renewal.due":
            _, _, at, amount, *undone = told.claim.split(":")
            assert (told.created, abs(told.amount)) == (int(at), int(amount))
            assert (told.count, told.undoes) == ((-1, told.claim.removesuffix(":undone")) if undone else (1, ""))


def test_every_row_has_its_payloads() -> None:
    assert {kind(name) for name in PAYLOADS} == {kind(name) for name in FACTS}


# What is known of a payment besides, and where in the object it stands. What is not named here is "".
CARD = {
    "brand": "{payment_method_details[card][brand]}",
    "country": "{payment_method_details[card][country]}",
    "funding": "{payment_method_details[card][funding]}",
    "method": "{payment_method_details[type]}",
}
ERROR = {
    "brand": "{last_payment_error[payment_method][card][brand]}",
    "country": "{last_payment_error[payment_method][card][country]}",
    "funding": "{last_payment_error[payment_method][card][funding]}",
    "method": "{last_payment_error[payment_method][type]}",
}
BUYER = {"payer": "{customer}"}
PRICED = {"price": "{items[data][0][price][id]}"}
KNOWN: dict[str, dict[str, str]] = {
    "charge.dispute.created": {"brand": CARD["brand"], "method": CARD["method"]},
    "charge.dispute.created-inquiry": {"brand": CARD["brand"], "method": CARD["method"]},
    "charge.failed": BUYER | CARD | {"decline": "insufficient_funds"},
    "charge.failed-renewal": BUYER | CARD | {"decline": "expired_card"},
    "charge.refunded": {"brand": CARD["brand"], "country": CARD["country"]},
    "charge.refunded-second": {"brand": CARD["brand"], "country": CARD["country"]},
    "charge.succeeded": BUYER | CARD,
    "charge.succeeded-connect": BUYER | CARD,
    "charge.succeeded-jpy": BUYER | CARD,
    "charge.succeeded-kwd": BUYER | CARD,
    "charge.succeeded-renewal": BUYER | CARD,
    "customer.subscription.created": PRICED,
    "customer.subscription.created-trial": PRICED,
    "customer.subscription.deleted": PRICED,
    "customer.subscription.deleted-payment_failed": PRICED,
    "customer.subscription.updated-cancel_at_period_end": PRICED,
    "customer.subscription.updated-downgrade": PRICED,
    "customer.subscription.updated-renewal": PRICED,
    "customer.subscription.updated-trial_ended": PRICED,
    f"invoice.paid.{OLD}": BUYER | {"price": "{lines[data][0][price][id]}"},
    f"invoice.payment_failed.{OLD}": BUYER | {"price": "{lines[data][0][price][id]}"},
    "payment_intent.payment_failed": BUYER | ERROR | {"decline": "insufficient_funds"},
    "payment_intent.payment_failed-3ds": BUYER | ERROR | {"decline": "payment_intent_authentication_failure"},
    "payment_intent.payment_failed-renewal": BUYER | ERROR | {"decline": "expired_card"},
    "payment_intent.succeeded": BUYER,
    "payment_intent.succeeded-renewal": BUYER,
}
NOTHING = dict.fromkeys(("payer", "brand", "country", "funding", "method", "price", "decline"), "")


def known(told: Told) -> dict[str, str]:
    return {name: getattr(told, name, "") for name in NOTHING}


@pytest.mark.parametrize("name", sorted(name for name in PAYLOADS if name in KNOWN or kind(name) in KNOWN))
def test_every_payload_says_who_paid_how_and_for_what(name: str) -> None:
    body = PAYLOADS[name].read_bytes()
    wanted = KNOWN.get(name) or KNOWN[kind(name)]
    expected = NOTHING | {key: where.format(**object_of(body)) for key, where in wanted.items()}
    *told, _ = read_facts(read_event(body))
    found = {tuple(known(each).items()) for each in told if not row(each)[4].endswith(":undone")}
    assert found == {tuple(expected.items())}


PAYMENTS = sorted(
    name for name in PAYLOADS if re.match(r"(charge|payment_intent)\.(succeeded|failed|payment_failed)", name)
)


@pytest.mark.parametrize("name", PAYMENTS)
def test_a_payment_knows_whether_an_invoice_asked_for_it(name: str) -> None:
    payment, _ = read_facts(read_event(PAYLOADS[name].read_bytes()))
    assert isinstance(payment, Fact)
    assert payment.invoiced == ("renewal" in name)


def test_what_is_no_longer_due_has_the_price_it_had() -> None:
    body = PAYLOADS[f"customer.subscription.updated-downgrade.{OLD}"].read_bytes()
    was = msgspec.json.decode(body)["data"]["previous_attributes"]["items"]["data"][0]["price"]["id"]
    now = object_of(body)["items"]["data"][0]["price"]["id"]
    told = [each for each in read_facts(read_event(body)) if isinstance(each, Fact) and each.metric == "renewal.due"]
    assert [(each.count, each.price) for each in told] == [(-1, was), (1, now)]


# Shapes that no recorded payload has


def made(type: str, thing: object, previous: object = None, **envelope: Any) -> Event:
    data = {"object": thing, "previous_attributes": previous or {}}
    return read_event(
        msgspec.json.encode({"id": "evt_1", "object": "event", "type": type, "created": 1000, "data": data} | envelope)
    )


CHARGE = {"id": "ch_1", "amount": 500, "currency": "usd"}
INTENT = {"id": "pi_1", "amount": 500, "currency": "usd"}
ORDER = {"payment_details": {"order_reference": "in_1"}}


def price(amount: int, interval: str = "month", count: int = 1, usage: str = "licensed") -> dict[str, Any]:
    recurring = {"interval": interval, "interval_count": count, "usage_type": usage}
    return {"unit_amount": amount, "currency": "usd", "recurring": recurring}


def subscription(status: str, *items: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = items or ({"price": price(900)},)
    return {"id": "sub_1", "status": status, "currency": "usd", "items": {"data": list(found)}} | more


CREATED = ("subscription.created", "", "", 0, "sub_1:subscription.created", "")
LAPSED = ("trial.lapsed", "", "", 0, "sub_1:trial.lapsed", "")
CANCELED_NOW = ("subscription.canceled", "voluntary", "usd", 900, "due:sub_1:subscription.canceled:1000", "")
UPDATED, DELETED = "customer.subscription.updated", "customer.subscription.deleted"

EDGES: dict[str, tuple[Event, list[Row]]] = {
    "expanded intent": (
        made("charge.succeeded", CHARGE | {"payment_intent": {"id": "pi_9", "amount": 1}}),
        paid("checkout", "usd", 500, "ch_1", "pi_9"),
    ),
    "expanded invoice": (
        made("charge.failed", CHARGE | {"invoice": {"id": "in_1"}}),
        failed("renewal", 500, "ch_1", "in_1"),
    ),
    "neither intent nor invoice": (made("charge.failed", CHARGE), failed("checkout", 500, "ch_1", "ch_1")),
    "first payment of a subscription": (
        made("charge.succeeded", CHARGE | ORDER | {"description": "Subscription creation"}),
        paid("checkout", "usd", 500, "ch_1", "in_1"),
    ),
    "an order reference that is no invoice": (
        made("charge.succeeded", CHARGE | {"payment_details": {"order_reference": "4711"}}),
        paid("checkout", "usd", 500, "ch_1", "ch_1"),
    ),
    "authorised only": (made("charge.succeeded", CHARGE | {"captured": False}), [pulse("ch_1")]),
    "captured in part": (
        made("charge.captured", CHARGE | {"captured": True, "amount_captured": 300}),
        paid("checkout", "usd", 300, "ch_1", "ch_1"),
    ),
    "received in part": (
        made("payment_intent.succeeded", INTENT | {"amount_received": 300, "latest_charge": "ch_1"}),
        paid("checkout", "usd", 300, "ch_1", "pi_1"),
    ),
    "expanded latest charge": (
        made("payment_intent.succeeded", INTENT | ORDER | {"latest_charge": {"id": "ch_1"}}),
        paid("renewal", "usd", 500, "ch_1", "pi_1"),
    ),
    "charges as before 2022-11-15": (
        made("payment_intent.succeeded", INTENT | {"charges": {"data": [{"id": "ch_1"}]}}),
        paid("checkout", "usd", 500, "ch_1", "pi_1"),
    ),
    "no charge named": (made("payment_intent.succeeded", INTENT), paid("checkout", "usd", 500, "pi_1", "pi_1")),
    "expanded charge of the error": (
        made("payment_intent.payment_failed", INTENT | {"last_payment_error": {"charge": {"id": "ch_1"}}}),
        failed("checkout", 500, "ch_1", "pi_1"),
    ),
    "failed without a charge, an older charge known": (
        made("payment_intent.payment_failed", INTENT | {"last_payment_error": {}, "latest_charge": "ch_0"}),
        failed("checkout", 500, "pi_1@1000", "pi_1"),
    ),
    "first invoice of a subscription": (
        made(
            "invoice.paid",
            {
                "id": "in_1",
                "currency": "usd",
                "amount_paid": 500,
                "charge": "ch_1",
                "billing_reason": "subscription_create",
            },
        ),
        paid("checkout", "usd", 500, "ch_1", "in_1"),
    ),
    "invoice of nothing": (made("invoice.paid", {"id": "in_1", "currency": "usd", "amount_paid": 0}), [pulse("in_1")]),
    "action required": (
        made("payment_intent.requires_action", INTENT),
        [("payment.action_required", "", "usd", 500, "pi_1:payment.action_required", ""), pulse("pi_1")],
    ),
    "refund that failed": (made("refund.created", CHARGE | {"id": "re_1", "status": "failed"}), [pulse("re_1")]),
    "refund that was canceled": (
        made("refund.created", CHARGE | {"id": "re_1", "status": "canceled"}),
        [pulse("re_1")],
    ),
    "refund on its way": (
        made("refund.created", CHARGE | {"id": "re_1", "status": "pending", "charge": {"id": "ch_1"}}),
        [("refunded", "", "usd", 500, "re_1", "ch_1"), pulse("re_1")],
    ),
    "refund of an intent": (
        made("refund.created", CHARGE | {"id": "re_1", "payment_intent": "pi_1"}),
        [("refunded", "", "usd", 500, "re_1", "pi_1"), pulse("re_1")],
    ),
    "refund of nothing we know": (
        made("refund.created", CHARGE | {"id": "re_1"}),
        [("refunded", "", "usd", 500, "re_1", "re_1"), pulse("re_1")],
    ),
    "payout without an amount": (
        made("payout.failed", {"id": "po_1", "currency": None, "amount": None}),
        [("payout.failed", "", "", 0, "po_1:payout.failed", ""), pulse("po_1")],
    ),
    "credit note": (
        made("credit_note.created", {"id": "cn_1", "currency": "eur", "total": 700}),
        [("credit_note.created", "", "eur", 700, "cn_1:credit_note.created", ""), pulse("cn_1")],
    ),
    "prices of every interval, metered ones apart": (
        made(
            "customer.subscription.created",
            subscription(
                "active",
                {"price": price(1200, "year"), "quantity": 3},
                {"price": price(900, "month", 3)},
                {"price": price(700, "week"), "quantity": 1},
                {"price": price(100, "day"), "quantity": 0},
                {"price": price(5, usage="metered")},
                {"price": None},
            ),
        ),
        [CREATED, mrr(300 + 300 + round(700 * 365 / 84)), pulse("sub_1")],
    ),
    "first payment outstanding": (
        made("customer.subscription.created", subscription("incomplete")),
        [CREATED, pulse("sub_1")],
    ),
    "past due still counts as revenue": (
        made(UPDATED, subscription("past_due"), {"status": "active"}),
        [pulse("sub_1")],
    ),
    "unpaid does not": (made(UPDATED, subscription("unpaid"), {"status": "past_due"}), [mrr(-900), pulse("sub_1")]),
    "quantity changed": (
        made(
            UPDATED,
            subscription("active", {"price": price(900), "quantity": 4}),
            {"items": {"data": [{"price": price(900), "quantity": 1}]}, "quantity": 1},
        ),
        [mrr(2700), pulse("sub_1")],
    ),
    "end set by date": (
        made(UPDATED, subscription("active", cancel_at=2000, canceled_at=1000), {"cancel_at": None}),
        [CANCELED_NOW, pulse("sub_1")],
    ),
    "cancellation taken back": (
        made(UPDATED, subscription("active", cancel_at_period_end=False), {"cancel_at_period_end": True}),
        [pulse("sub_1")],
    ),
    "trial ended unpaid": (made(UPDATED, subscription("paused"), {"status": "trialing"}), [LAPSED, pulse("sub_1")]),
    "deleted in its trial": (
        made(DELETED, subscription("canceled", trial_end=2000, ended_at=1000)),
        [CANCELED_NOW, LAPSED, pulse("sub_1")],
    ),
    "unknown type": (made("tax_rate.created", {"id": "txr_1"}), [pulse("txr_1")]),
    "unknown type without an object": (made("a.new.thing", None), [pulse("evt_1")]),
    "largest amount": (
        made("charge.failed", CHARGE | {"amount": LARGEST_AMOUNT}),
        failed("checkout", LARGEST_AMOUNT, "ch_1", "ch_1"),
    ),
}


PERIOD = {"items": {"data": [{"price": price(900), "current_period_end": 5000}]}}
ENDLESS = {"current_period_end": 1001 + 5 * 366 * 86_400}

RENEWALS: dict[str, tuple[Event, list[Row]]] = {
    "the period's end on the subscription": (
        made("customer.subscription.created", subscription("active", current_period_end=5000)),
        [due(900, 5000, "sub_1")],
    ),
    "the period's end on the item": (
        made("customer.subscription.created", subscription("active", **PERIOD)),
        [due(900, 5000, "sub_1")],
    ),
    "several periods, the shortest first": (
        made(
            "customer.subscription.created",
            subscription(
                "active",
                {"price": price(9000, "year"), "current_period_end": 90_000},
                {"price": price(900), "quantity": 2, "current_period_end": 5000},
                {"price": price(50), "current_period_end": 5000},
                {"price": price(7, usage="metered"), "current_period_end": 5000},
            ),
        ),
        [due(1850, 5000, "sub_1")],
    ),
    "metered only": (
        made(
            "customer.subscription.created",
            subscription("active", {"price": price(7, usage="metered")}, current_period_end=5000),
        ),
        [due(0, 5000, "sub_1")],
    ),
    "in its trial": (
        made("customer.subscription.created", subscription("trialing", **PERIOD)),
        [due(900, 5000, "sub_1")],
    ),
    "first payment outstanding": (made("customer.subscription.created", subscription("incomplete", **PERIOD)), []),
    "first payment made": (
        made(UPDATED, subscription("active", **PERIOD), {"status": "incomplete"}),
        [due(900, 5000, "sub_1")],
    ),
    "paid by hand": (
        made("customer.subscription.created", subscription("active", collection_method="send_invoice", **PERIOD)),
        [],
    ),
    "canceled from the start": (
        made("customer.subscription.created", subscription("active", cancel_at_period_end=True, **PERIOD)),
        [],
    ),
    "to end before the period does": (
        made("customer.subscription.created", subscription("active", cancel_at=4999, **PERIOD)),
        [],
    ),
    "to end in a later period": (
        made(UPDATED, subscription("active", cancel_at=9000, canceled_at=1000, **PERIOD), {"cancel_at": None}),
        [],
    ),
    "to end with the period, by date": (
        made(UPDATED, subscription("active", cancel_at=5000, canceled_at=1000, **PERIOD), {"cancel_at": None}),
        [undone(900, 5000, "sub_1")],
    ),
    "collection paused": (
        made(
            UPDATED, subscription("active", pause_collection={"behavior": "void"}, **PERIOD), {"pause_collection": None}
        ),
        [undone(900, 5000, "sub_1")],
    ),
    "collection resumed": (
        made(UPDATED, subscription("active", **PERIOD), {"pause_collection": {"behavior": "void"}}),
        [due(900, 5000, "sub_1")],
    ),
    "no longer paying": (
        made(UPDATED, subscription("unpaid", **PERIOD), {"status": "past_due"}),
        [undone(900, 5000, "sub_1")],
    ),
    "late payment, due all the same": (made(UPDATED, subscription("past_due", **PERIOD), {"status": "active"}), []),
    "something else changed": (made(UPDATED, subscription("active", **PERIOD), {"metadata": {}}), []),
    "moved while it runs": (
        made(UPDATED, subscription("active", current_period_end=5000), {"current_period_end": 3000}),
        [undone(900, 3000, "sub_1"), due(900, 5000, "sub_1")],
    ),
    "moved when it was over": (
        made(UPDATED, subscription("active", current_period_end=5000), {"current_period_end": 1000}),
        [due(900, 5000, "sub_1")],
    ),
    "deleted at once": (made(DELETED, subscription("canceled", **PERIOD)), [undone(900, 5000, "sub_1")]),
    "deleted when the period was over": (made(DELETED, subscription("canceled", current_period_end=1000)), []),
    "deleted after it was off already": (
        made(DELETED, subscription("canceled", cancel_at_period_end=True, **PERIOD)),
        [],
    ),
    "an end beyond every plan": (made("customer.subscription.created", subscription("active", **ENDLESS)), []),
}


@pytest.mark.parametrize("case", RENEWALS)
def test_renewals_that_are_due_and_those_that_are_not(case: str) -> None:
    event, expected = RENEWALS[case]
    assert [row(told) for told in read_facts(event) if row(told)[0] == "renewal.due"] == expected


VISA = {"brand": "visa", "country": "FR", "funding": "debit", "fingerprint": "Xt5"}
BY_CARD = {"type": "card", "card": VISA}
OF_VISA = {"payer": "card:Xt5", "brand": "visa", "country": "FR", "funding": "debit", "method": "card"}
LISTED = {"id": "ch_1", "payment_method_details": BY_CARD}
FAILED = {"code": "card_declined", "charge": "ch_1"}

MEANS: dict[str, tuple[Event, dict[str, str]]] = {
    "a guest's card": (made("charge.succeeded", CHARGE | {"payment_method_details": BY_CARD}), OF_VISA),
    "a customer's card": (
        made("charge.succeeded", CHARGE | {"payment_method_details": BY_CARD, "customer": "cus_1"}),
        OF_VISA | {"payer": "cus_1"},
    ),
    "a customer in full": (made("charge.succeeded", CHARGE | {"customer": {"id": "cus_1"}}), {"payer": "cus_1"}),
    "a card at a terminal": (
        made("charge.succeeded", CHARGE | {"payment_method_details": {"type": "card_present", "card_present": VISA}}),
        OF_VISA | {"method": "card_present"},
    ),
    "a bank account": (
        made("charge.succeeded", CHARGE | {"payment_method_details": {"type": "sepa_debit", "sepa_debit": {}}}),
        {"method": "sepa_debit"},
    ),
    "a card that says little": (
        made("charge.succeeded", CHARGE | {"payment_method_details": {"type": "card", "card": {"country": None}}}),
        {"method": "card"},
    ),
    "charges as before 2022-11-15": (
        made("payment_intent.succeeded", INTENT | {"charges": {"data": [LISTED]}}),
        OF_VISA,
    ),
    "expanded latest charge": (made("payment_intent.succeeded", INTENT | {"latest_charge": LISTED}), OF_VISA),
    "expanded payment method": (
        made(
            "payment_intent.succeeded", INTENT | {"latest_charge": "ch_1", "payment_method": BY_CARD | {"id": "pm_1"}}
        ),
        OF_VISA,
    ),
    "nothing expanded": (
        made("payment_intent.succeeded", INTENT | {"latest_charge": "ch_1", "payment_method": "pm_1"}),
        {},
    ),
    "an error without a decline code": (
        made("payment_intent.payment_failed", INTENT | {"last_payment_error": FAILED}),
        {"decline": "card_declined"},
    ),
    "an error with one": (
        made("payment_intent.payment_failed", INTENT | {"last_payment_error": FAILED | {"decline_code": "fraudulent"}}),
        {"decline": "fraudulent"},
    ),
    "an error of before": (made("payment_intent.succeeded", INTENT | {"last_payment_error": FAILED}), {}),
    "a failure code alone": (
        made("charge.failed", CHARGE | {"failure_code": "expired_card", "outcome": None}),
        {"decline": "expired_card"},
    ),
    "blocked by a rule": (
        made("charge.failed", CHARGE | {"failure_code": "card_declined", "outcome": {"reason": "highest_risk_level"}}),
        {"decline": "highest_risk_level"},
    ),
    "reviewed and paid": (made("charge.succeeded", CHARGE | {"outcome": {"reason": "elevated_risk_level"}}), {}),
}


@pytest.mark.parametrize("case", MEANS)
def test_who_paid_and_how_in_every_shape(case: str) -> None:
    event, expected = MEANS[case]
    assert known(read_facts(event)[0]) == NOTHING | expected


@pytest.mark.parametrize(("received", "expected"), [(1300, 1300), (0, 1000)])
def test_the_pulse_says_when_it_arrived_and_else_when_it_was_created(received: int, expected: int) -> None:
    (*told, any_) = read_facts(made("charge.failed", CHARGE), received)
    assert isinstance(any_, Fact)
    assert (any_.metric, any_.received) == ("object.any", expected)
    assert {getattr(each, "received", 0) for each in told} == {0}


@pytest.mark.parametrize(
    ("name", "stratum"),
    [
        ("charge.succeeded", "people"),
        ("charge.failed", "people"),
        ("payment_intent.succeeded", "people"),
        ("checkout.session.completed", "people"),
        ("refund.created", "people"),
        ("customer.subscription.created", "people"),
        ("charge.succeeded-renewal", "clockwork"),
        ("payment_intent.payment_failed-renewal", "clockwork"),
        ("invoice.paid", "clockwork"),
        ("customer.subscription.updated-renewal", "clockwork"),
        ("payout.failed", "clockwork"),
    ],
)
def test_what_people_do_is_told_from_what_a_date_makes_due(name: str, stratum: str) -> None:
    found = next(path for known, path in sorted(PAYLOADS.items()) if kind(known) == name)
    any_ = read_facts(read_event(found.read_bytes()))[-1]
    assert isinstance(any_, Fact)
    assert (any_.stratum, any_.claim.partition(":")[0]) == (stratum, stratum)


def test_the_pulse_of_one_object_counts_once_a_day() -> None:
    pulses = [read_facts(msgspec.structs.replace(made("charge.failed", CHARGE), created=at))[-1] for at in (0, 86_399)]
    assert {each.claim for each in pulses if isinstance(each, Fact)} == {"people:ch_1:0"}
    (*_, later) = read_facts(msgspec.structs.replace(made("charge.failed", CHARGE), created=86_400))
    assert isinstance(later, Fact)
    assert later.claim == "people:ch_1:1"


@pytest.mark.parametrize("case", EDGES)
def test_uncommon_shapes(case: str) -> None:
    event, expected = EDGES[case]
    assert [row(told) for told in read_facts(event)] == expected


MISTAKES: dict[str, tuple[Event, str]] = {
    "amount as text": (made("charge.failed", CHARGE | {"amount": "12.50"}), "Expected `int`, got `str`"),
    "amount as a fraction": (made("charge.failed", CHARGE | {"amount": 12.5}), "Expected `int`, got `float`"),
    "amount as a truth": (made("charge.failed", CHARGE | {"amount": True}), "Expected `int`, got `bool`"),
    "no amount": (made("charge.failed", {"id": "ch_1", "currency": "usd"}), "missing required field `amount`"),
    "no currency": (made("refund.created", {"id": "re_1", "amount": 1}), "missing required field `currency`"),
    "no object": (made("charge.failed", None), "Expected `object`, got `null`"),
    "a list for an object": (made("charge.failed", []), "Expected `object`, got `array`"),
    "a number for a link": (made("charge.failed", CHARGE | {"payment_intent": 5}), "`$.payment_intent`"),
    "a number for an id": (made("charge.failed", CHARGE | {"id": 5}), "`$.id`"),
    "items as text": (made(UPDATED, subscription("active", items="none")), "`$.items`"),
    "previous attributes as a list": (made(UPDATED, subscription("active"), ["status"]), "got `array`"),
    "amount too large": (made("charge.failed", CHARGE | {"amount": LARGEST_AMOUNT + 1}), "an amount beyond 1e+15"),
    "amount too small": (made("charge.failed", CHARGE | {"amount": -LARGEST_AMOUNT - 1}), "an amount beyond 1e+15"),
    "revenue too large": (
        made("customer.subscription.created", subscription("active", {"price": price(10**12), "quantity": 10**6})),
        "an amount beyond 1e+15",
    ),
    "id with NUL": (made("charge.failed", CHARGE | {"id": "ch_\0"}), "too long or holds NUL"),
    "fingerprint with NUL": (
        made("charge.succeeded", CHARGE | {"payment_method_details": {"card": {"fingerprint": "a\0"}}}),
        "too long or holds NUL",
    ),
    "customer without end": (made("charge.succeeded", CHARGE | {"customer": "c" * 999}), "too long or holds NUL"),
    "a card as text": (
        made("charge.failed", CHARGE | {"payment_method_details": {"card": "visa"}}),
        "`$.payment_method_details.card`",
    ),
    "id without end": (made("charge.failed", CHARGE | {"id": "c" * LONGEST_KEY}), "too long or holds NUL"),
    "currency without end": (made("charge.refunded", CHARGE | {"currency": "u" * 999}), "too long or holds NUL"),
    "unknown type, id without end": (made("a.new.thing", {"id": "x" * LONGEST_KEY}), "too long or holds NUL"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_wrong_shape_is_named_and_not_quoted(case: str) -> None:
    event, why = MISTAKES[case]
    with pytest.raises(UnknownShape) as caught:
        read_facts(event)
    assert str(caught.value).startswith(f"{event.type}: ")
    assert why in str(caught.value)
    assert "12.50" not in str(caught.value)


def test_a_price_beyond_every_float_is_a_wrong_shape() -> None:
    thing = msgspec.json.encode(subscription("active")).replace(b"900", b"9" * 400)
    event = made("customer.subscription.created", msgspec.Raw(thing))
    with pytest.raises(UnknownShape):
        read_facts(event)


TYPES = sorted({read_event(path.read_bytes()).type for path in PAYLOADS.values()})
FIELDS = sorted(set(re.findall(r"[a-z_]{2,}", " ".join([*CHARGE, *INTENT, *ORDER, *subscription("active")]))))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)


@given(
    st.sampled_from(TYPES),
    st.fixed_dictionaries(
        {"id": st.text(), "amount": st.integers(), "currency": JSON, "status": JSON}, optional={"items": JSON}
    ),
    JSON,
)
def test_whatever_the_object_is_there_are_facts_or_an_unknown_shape(
    type: str, thing: dict[str, Any], previous: Any
) -> None:
    try:
        told = read_facts(made(type, msgspec.Raw(msgspec.json.encode(thing)), previous))
    except UnknownShape:
        return
    assert sum(isinstance(each, Fact) and each.metric == "object.any" for each in told) == 1
