"""What the events of a window tell of an incident: each object once, whichever events told it, of one tenant."""

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from psycopg import Connection

from billingwatch.model import Tenant
from billingwatch.simulator.objects import Json
from billingwatch.store import events, markers
from billingwatch.store.evidence import Observation, objects, read_changes, read_window
from billingwatch.store.markers import Marker
from detectors.contributors import contributors, customers, money
from detectors.event import read_event
from tests.factories import LIVE, NOON, TEST, charge, event

VERSIONS = ("2024-06-20", "2025-03-31.basil", "2026-10-28.endive")
OLD, *BASIL = VERSIONS
PAYLOADS = Path(__file__).parents[1] / "payloads"
START = int(NOON.timestamp())
SPAN = (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))

Tell = Callable[..., None]


@pytest.fixture
def tell(conn: Connection) -> Tell:
    """Store these events, as a worker would."""
    events.ensure_months(conn, [date(2026, month, 1) for month in range(3, 12)])

    def store(*told: Json, tenant: Tenant = LIVE) -> None:
        with conn.transaction():
            assert events.insert(conn, [_new(each, tenant) for each in told]).refused == []

    return store


def _new(told: Json, tenant: Tenant) -> events.NewEvent:
    body = msgspec.json.encode(told)
    read = read_event(body)
    return events.NewEvent(
        tenant, read.id, read.type, read.created, read.api_version, read.object_id, read.customer, read.created, body
    )


def payload(name: str, version: str) -> Json:
    found: Json = json.loads((PAYLOADS / f"{name}.{version}.json").read_text())
    return found


def read(conn: Connection, metric: str, **options: Any) -> list[Observation]:
    return read_window(conn, LIVE, metric, *SPAN, **options)


CARD = {"card brand", "card country", "card funding", "payment method", "currency", "API version"}
PLAN = {"price", "product", "currency", "API version"}
# By the names of payloads: the metric, and the bad and the other objects, each as dimensions and minor units.
TOLD: dict[tuple[str, ...], tuple[str, list[tuple[set[str], int]], list[tuple[set[str], int]]]] = {
    ("charge.failed",): ("payment.failed", [(CARD | {"decline code"}, 4900)], []),
    ("payment_intent.payment_failed",): ("payment.failed", [(CARD | {"decline code"}, 4900)], []),
    ("payment_intent.payment_failed", "charge.failed"): ("payment.failed", [(CARD | {"decline code"}, 4900)], []),
    ("payment_intent.payment_failed-3ds",): ("payment.failed", [(CARD | {"decline code"}, 4900)], []),
    ("charge.failed", "charge.succeeded"): (
        "payment.small_failed",
        [(CARD | {"decline code"}, 4900)],
        [(CARD, 4900)],
    ),
    ("payment_intent.succeeded", "charge.succeeded"): ("payment.failed", [], [(CARD, 4900)]),
    ("payment_intent.succeeded",): ("payment.failed", [], [({"currency", "API version"}, 4900)]),
    ("refund.created",): ("refund.created", [({"currency", "API version"}, 1500)], []),
    ("charge.refunded",): ("refund.created", [(CARD, 1500)], []),
    ("charge.refunded-second",): ("refund.created", [(CARD, 3400)], []),
    ("refund.created", "charge.refunded"): ("refund.created", [(CARD, 1500)], []),
    ("refund.created", "charge.refunded", "charge.refunded-second", "refund.created-second"): (
        "refund.created",
        [(CARD, 1500), (CARD, 3400)],
        [],
    ),
    ("refund.created", "charge.succeeded"): ("refund.created", [(CARD, 1500)], []),
    ("charge.succeeded",): ("refund.created", [], [(CARD, 4900)]),
    ("charge.dispute.created", "charge.succeeded"): (
        "dispute.created",
        [({"reason", "card brand", "payment method", "currency", "API version"}, 12900)],
        [(CARD, 4900)],
    ),
    ("charge.dispute.created-inquiry",): ("dispute.created", [], []),
    ("radar.early_fraud_warning.created",): ("fraud_warning.created", [({"reason", "API version"}, 0)], []),
    ("customer.subscription.updated-cancel_at_period_end",): ("subscription.canceled", [(PLAN | {"reason"}, 8700)], []),
    ("customer.subscription.updated-cancel_at_period_end", "customer.subscription.deleted"): (
        "subscription.canceled",
        [(PLAN | {"reason"}, 8700)],
        [],
    ),
    ("customer.subscription.updated-cancel_at_period_end", "customer.subscription.created"): (
        "mrr.changed",
        [(PLAN | {"reason"}, 8700)],
        [(PLAN, 8700)],
    ),
    ("customer.subscription.deleted-payment_failed",): ("subscription.canceled", [], []),
    ("customer.subscription.updated-renewal",): ("subscription.canceled", [], [(PLAN, 8700)]),
    ("customer.subscription.created",): ("subscription.canceled", [], [(PLAN, 8700)]),
    ("checkout.session.expired", "checkout.session.completed"): (
        "checkout.expired",
        [({"payment method", "currency", "API version"}, 1900)],
        [({"payment method", "currency", "API version"}, 4900)],
    ),
    ("charge.failed", "refund.created"): ("object.any", [], []),
}


@pytest.mark.parametrize("names", TOLD, ids=" + ".join)
def test_every_shape_tells_each_object_once(conn: Connection, tell: Tell, names: tuple[str, ...]) -> None:
    metric, bad, others = TOLD[names]
    for version in VERSIONS:
        tenant = Tenant(version, True)
        tell(*(payload(name, version) for name in names), tenant=tenant)
        found = read_window(conn, tenant, metric, *SPAN)
        assert [({*each.dims}, each.amount) for each in found if each.bad] == bad, version
        assert [({*each.dims}, each.amount) for each in found if not each.bad] == others, version


@pytest.mark.parametrize("name", ["charge.failed", "payment_intent.payment_failed"])
def test_values_are_the_cards_and_the_banks(conn: Connection, tell: Tell, name: str) -> None:
    tell(payload(name, OLD))
    (found,) = read(conn, "payment.failed")
    assert found == Observation(
        dims={
            "decline code": "insufficient_funds",
            "card brand": "mastercard",
            "card country": "AU",
            "card funding": "debit",
            "payment method": "card",
            "currency": "usd",
            "API version": OLD,
        },
        customer="cus_jTUd8hrC8g0eho",
        amount=4900,
        currency="usd",
        bad=True,
        kind="payment",
        id=found.id,
    )
    assert found.id.startswith("ch_")


def test_invoice_that_names_its_charge_adds_what_was_sold(conn: Connection, tell: Tell) -> None:
    tell(payload("charge.failed-renewal", OLD), payload("invoice.payment_failed", OLD))
    (found,) = read(conn, "payment.failed")
    assert found.bad
    assert found.dims["decline code"] == "expired_card"
    assert found.dims["price"] == "price_1uBbUmV6OktH8RPZN6ChIQ6u"


@pytest.mark.parametrize("version", BASIL)
def test_invoice_that_names_no_charge_is_no_second_failure(conn: Connection, tell: Tell, version: str) -> None:
    tell(payload("charge.failed-renewal", version), payload("invoice.payment_failed", version))
    assert [each.bad for each in read(conn, "payment.failed")] == [True]


def test_cancellation_that_was_asked_for_before_the_window_is_not_counted_again_when_it_ends(
    conn: Connection, tell: Tell
) -> None:
    tell(payload("customer.subscription.deleted", OLD))
    october = datetime(2026, 10, 1, tzinfo=UTC)
    assert read_window(conn, LIVE, "subscription.canceled", october, SPAN[1]) == []


def sale(created: int, *, failed: bool = False, **changes: Any) -> Json:
    """A charge's own event, with some of the charge's fields changed."""
    made = charge(created, failed=failed) | changes
    return event("charge.failed" if failed else "charge.succeeded", made, created)


def test_charge_that_failed_after_it_had_succeeded_counts_as_it_ended_first(conn: Connection, tell: Tell) -> None:
    made = charge(START)
    tell(event("charge.succeeded", made, START), event("charge.failed", made | {"status": "failed"}, START + 60))
    assert [each.bad for each in read(conn, "payment.failed")] == [False]


def test_two_challenges_that_failed_for_one_intent_are_two_failures(conn: Connection, tell: Tell) -> None:
    told = payload("payment_intent.payment_failed-3ds", OLD)
    tell(told, told | {"id": "evt_again", "created": told["created"] + 90})
    assert [each.bad for each in read(conn, "payment.failed")] == [True, True]


def test_refund_that_failed_moved_no_money_and_is_left_out(conn: Connection, tell: Tell) -> None:
    made = payload("refund.created", OLD)
    made["data"]["object"]["status"] = "failed"
    tell(made)
    assert read(conn, "refund.created") == []


def pay(at: int, **changes: Any) -> Json:
    return sale(START + at, **{"customer": "cus_1", "amount": 2900, "amount_captured": 2900, **changes})


INVOICED = {"payment_details": {"order_reference": "in_1"}}
GUEST: dict[str, Any] = {"customer": None, "payment_method_details": {"type": "card", "card": {"fingerprint": "f"}}}
REPEATS: dict[str, tuple[list[Json], list[bool]]] = {
    "the same again within ten minutes": ([pay(0), pay(599)], [False, True]),
    "three times": ([pay(0), pay(60), pay(90)], [False, True, True]),
    "the same after ten minutes": ([pay(0), pay(601)], [False, False]),
    "another amount": ([pay(0), pay(60, amount=3900)], [False, False]),
    "another currency": ([pay(0), pay(60, currency="eur")], [False, False]),
    "another customer": ([pay(0), pay(60, customer="cus_2")], [False, False]),
    "one payment intent": ([pay(0, payment_intent="pi_1"), pay(60, payment_intent="pi_1")], [False, False]),
    "a guest by his card": ([pay(0, **GUEST), pay(60, **GUEST)], [False, True]),
    "guests of whom nothing is known": (
        [pay(at, customer=None, payment_method_details=None) for at in (0, 60)],
        [False, False],
    ),
    "two invoices": ([pay(0, **INVOICED), pay(60, **INVOICED)], [False, False]),
    "an invoice and a checkout": ([pay(0, **INVOICED), pay(60)], [False, True]),
    "the first before the window": ([pay(-300), pay(200)], [True]),
}


@pytest.mark.parametrize(("told", "bad"), REPEATS.values(), ids=REPEATS)
def test_double_charge_is_the_later_of_two_equal_payments(
    conn: Connection, tell: Tell, told: list[Json], bad: list[bool]
) -> None:
    tell(*told)
    found = read_window(conn, LIVE, "payment.duplicate", NOON, NOON + timedelta(hours=1))
    assert [each.bad for each in found] == bad


def test_window_is_half_open_and_other_tenants_events_are_not_read(conn: Connection, tell: Tell) -> None:
    tell(*(sale(START + at, failed=True) for at in (-1, 0, 3599, 3600)))
    tell(sale(START + 5, failed=True), tenant=TEST)
    tell(sale(START + 5, failed=True), tenant=Tenant("acct_1", True))
    assert len(read_window(conn, LIVE, "payment.failed", NOON, NOON + timedelta(hours=1))) == 2


def test_of_more_events_than_the_limit_the_newest_are_read(conn: Connection, tell: Tell) -> None:
    tell(*(sale(START + n, failed=n >= 15) for n in range(20)))
    assert [each.bad for each in read(conn, "payment.failed", limit=8)] == [False] * 3 + [True] * 5


FIELDS = (
    "amount amount_refunded payment_method_details payment_method_types last_payment_error outcome charges items"
    " cancellation_details canceled_at cancel_at latest_charge payment_intent customer currency status"
).split()
STRANGE: list[Any] = [
    None,
    7,
    "text",
    [],
    [None],
    {"data": None},
    {"card": None, "type": None, "id": 4},
    {"data": [None, {"price": "price_1", "quantity": "x"}]},
]


@pytest.mark.parametrize("value", STRANGE, ids=json.dumps)
def test_object_of_another_shape_is_read_as_far_as_it_goes(conn: Connection, tell: Tell, value: Any) -> None:
    for type, object, metric in (
        ("charge.failed", "charge", "payment.failed"),
        ("charge.refunded", "charge", "refund.created"),
        ("payment_intent.succeeded", "payment_intent", "payment.duplicate"),
        ("customer.subscription.created", "subscription", "subscription.canceled"),
        ("checkout.session.expired", "checkout.session", "checkout.expired"),
    ):
        tenant = Tenant(type, True)
        fields = dict.fromkeys(FIELDS, value)
        told = event(type, {"id": "x_1", "object": object, **fields}, START)
        tell(told | {"data": told["data"] | {"previous_attributes": fields}}, tenant=tenant)
        (found,) = read_window(conn, tenant, metric, *SPAN)
        assert found.amount in {0, 7}, type
        assert found.dims.keys() <= {"payment method", "currency", "API version"}, type


def test_what_a_person_typed_is_no_code_and_never_told(conn: Connection, tell: Tell) -> None:
    tell(sale(START, failed=True, outcome={"reason": "Mei Okafor, mei@example.com"}))
    (found,) = read(conn, "payment.failed")
    assert "decline code" not in found.dims


def test_event_that_is_kept_as_bytes_is_passed_over(conn: Connection, tell: Tell) -> None:
    tell(sale(START, failed=True, description="a\0b"), sale(START, failed=True))
    assert len(read(conn, "payment.failed")) == 1


def test_an_outage_of_one_brand_is_explained_from_its_events(conn: Connection, tell: Tell) -> None:
    told: list[Json] = []
    for n in range(60):
        made = charge(START + n, failed=n < 25)
        made["payment_method_details"]["card"]["brand"] = "visa" if n < 24 or n % 3 == 1 else "mastercard"
        told.append(event("charge.failed" if n < 25 else "charge.succeeded", made, START + n))
    tell(*told)
    seen = read_window(conn, LIVE, "payment.failed", NOON, NOON + timedelta(hours=1))
    assert [each.sentence for each in contributors(seen, rate=0.06)] == [
        "25 of 25: decline code generic_decline",
        "24 of 25: card brand visa (34 % of the others)",
    ]
    assert customers(seen) == len({each["data"]["object"]["customer"] for each in told[:25]} - {None})
    assert [str(each) for each in money(seen)] == ["725.00 USD"]


# By the names of payloads: the metric, and what has a page of its own: the kind, and how its id begins.
PAGES: dict[tuple[str, ...], tuple[str, str, str]] = {
    ("charge.failed",): ("payment.failed", "payment", "ch_"),
    ("payment_intent.payment_failed", "charge.failed"): ("payment.failed", "payment", "ch_"),
    ("payment_intent.payment_failed-3ds",): ("payment.failed", "payment", "pi_"),
    ("refund.created", "charge.succeeded"): ("refund.created", "payment", "ch_"),
    ("charge.refunded",): ("refund.created", "payment", "ch_"),
    ("charge.dispute.created", "charge.succeeded"): ("dispute.created", "dispute", "du_"),
    ("radar.early_fraud_warning.created",): ("fraud_warning.created", "payment", "ch_"),
    ("customer.subscription.deleted",): ("subscription.canceled", "subscription", "sub_"),
}


@pytest.mark.parametrize("names", PAGES, ids=" + ".join)
def test_every_shape_tells_the_page_of_what_is_bad(conn: Connection, tell: Tell, names: tuple[str, ...]) -> None:
    metric, kind, begins = PAGES[names]
    for version in VERSIONS:
        tenant = Tenant(version, True)
        tell(*(payload(name, version) for name in names), tenant=tenant)
        (shown,) = objects(read_window(conn, tenant, metric, *SPAN))
        assert shown["kind"] == kind, version
        assert re.fullmatch(f"{begins}[A-Za-z0-9]{{6,}}", shown["id"]), version


def seen(id: str, amount: int = 100, *, bad: bool = True) -> Observation:
    return Observation(dims={}, customer="", amount=amount, currency="usd", bad=bad, id=id)


def test_examples_are_the_three_largest_of_what_is_bad_each_once() -> None:
    some = [seen("ch_1", 5), seen("ch_2", 900), seen("ch_2", 700), seen("ch_3", 8000, bad=False), seen("pi_4", 800)]
    assert [each["id"] for each in objects([*some, seen("ch_5", 6), seen("ch_6", 4)])] == ["ch_2", "pi_4", "ch_5"]
    assert objects([]) == []


@pytest.mark.parametrize("id", ["", "ch_", "evt_1", "cus_1", "ch_1/../../x", "ch_1?a=b", "ch_1 ", "CH_1", "mei@x.com"])
def test_what_is_no_id_of_stripes_has_no_page(id: str) -> None:
    assert objects([seen(id)]) == []


def changed(type: str, at: int, id: str = "price_1") -> Json:
    return event(type, {"id": id, "object": type.partition(".")[0]}, START + at)


def changes(conn: Connection, tenant: Tenant = LIVE, hours: int = 6) -> list[tuple[int, str, str, str]]:
    """What changed until noon, in seconds from then."""
    found = read_changes(conn, tenant, NOON - timedelta(hours=hours), NOON)
    return [(each["at"] - START, each["what"], each["name"], each["how"]) for each in found]


def deploy(at: int, text: str, tenant: Tenant = LIVE, **fields: Any) -> Marker:
    when = NOON + timedelta(seconds=at)
    told: dict[str, Any] = {"kind": "deploy", "who": "ada", **fields}
    return Marker(tenant=tenant, starts_at=when, ends_at=when, text=text, **told)


def test_changes_are_the_three_newest_of_deploys_coupons_and_prices(conn: Connection, tell: Tell) -> None:
    markers.add(conn, deploy(-700, "v2.31 of checkout"))
    tell(
        changed("coupon.created", -900, "SPRING20"),
        changed("promotion_code.created", -800, "promo_1"),
        changed("price.updated", -600),
        changed("charge.succeeded", -10, "ch_1"),
    )
    assert changes(conn) == [
        (-600, "price", "price_1", "updated"),
        (-700, "deploy", "v2.31 of checkout", ""),
        (-800, "promotion code", "promo_1", "created"),
    ]


@pytest.mark.parametrize(
    ("type", "what", "how"),
    [
        ("coupon.created", "coupon", "created"),
        ("coupon.updated", "coupon", "updated"),
        ("coupon.deleted", "coupon", "deleted"),
        ("promotion_code.created", "promotion code", "created"),
        ("price.created", "price", "created"),
        ("price.updated", "price", "updated"),
        ("plan.created", "price", "created"),
        ("plan.updated", "price", "updated"),
    ],
)
def test_change_is_told_as_people_call_it(conn: Connection, tell: Tell, type: str, what: str, how: str) -> None:
    tell(changed(type, -60, "x_1"))
    assert changes(conn) == [(-60, what, "x_1", how)]


def test_price_that_is_told_as_a_plan_too_is_one_change(conn: Connection, tell: Tell) -> None:
    tell(changed("price.created", -60), changed("plan.created", -60), changed("price.updated", -30))
    assert changes(conn) == [(-30, "price", "price_1", "updated"), (-60, "price", "price_1", "created")]


def test_changes_of_another_time_or_tenant_and_other_marks_are_none(conn: Connection, tell: Tell) -> None:
    hour = 3600
    tell(changed("coupon.created", -hour, "first"), changed("coupon.created", 0, "last"))
    tell(changed("coupon.created", -hour - 1, "before"), changed("coupon.created", 1, "after"))
    tell(changed("coupon.created", -5, "theirs"), tenant=TEST)
    markers.add(conn, deploy(-5, "theirs", Tenant("acct_1", True)))
    markers.add(conn, deploy(-5, "a sale", kind="expected"))
    for at in (-hour - 1, 1):
        markers.add(conn, deploy(at, "another time"))
    assert [name for _, _, name, _ in changes(conn, hours=1)] == ["last", "first"]


def test_address_in_a_deploys_mark_is_left_out(conn: Connection) -> None:
    markers.add(conn, deploy(-5, "v2 by mei@example.com <b>\n release-7"))
    assert changes(conn) == [(-5, "deploy", "v2 by release-7", "")]
