"""What stored events of a window tell about an incident: one observation a payment, refund, dispute or subscription.

Reads one tenant's events of the window and nothing else, at most so many of them, the newest. Takes codes and ids,
never what a person typed; judges nothing, and leaves out what it cannot read. What changed just before is told by
the marks of deploys and by the events of coupons and prices.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from billingwatch.model import Tenant

LIMIT = 5000  # events
SHOWN = 3  # objects, and changes
APART = timedelta(minutes=10)  # two equal payments of one payer that are closer than this are a double charge

_FAILED = ("charge.failed", "payment_intent.payment_failed", "invoice.payment_failed")
_PAID = (
    "charge.succeeded",
    "charge.captured",
    "payment_intent.succeeded",
    "invoice.paid",
    "invoice.payment_succeeded",
)
_REFUND, _REFUNDED = "refund.created", "charge.refunded"
_DISPUTE = "charge.dispute.created"
_WARNING = "radar.early_fraud_warning.created"
_DELETED = "customer.subscription.deleted"
_SUBSCRIPTIONS = (_DELETED, "customer.subscription.updated", "customer.subscription.created")
_EXPIRED, _COMPLETED = "checkout.session.expired", "checkout.session.completed"

# What may have made the difference, by event type as `object.how`, and what people call it.
_CHANGES = {
    **{f"coupon.{how}": "coupon" for how in ("created", "updated", "deleted")},
    "promotion_code.created": "promotion code",
    **{f"{thing}.{how}": "price" for thing in ("price", "plan") for how in ("created", "updated")},
}

_CODE = re.compile(r"[\w.:-]{1,80}", re.ASCII)  # words, names and addresses of people are none
_WORD = re.compile(r"[\w.:/+#-]+")  # of a deploy's mark
_PAGE = re.compile(r"(?:ch|py|pi|dp|du|sub)_[A-Za-z0-9_]{1,100}")  # what Stripe's dashboard has a page for


class Observation(Struct, frozen=True):
    """One business object. `bad` is what the incident counts; the others are there to compare with."""

    dims: dict[str, str]  # by dimension, named as people say it; what is unknown is missing
    customer: str  # "" for a guest
    amount: int  # minor units; of a subscription what one period costs
    currency: str
    bad: bool
    kind: str = "payment"  # or "dispute" or "subscription": what the object's page is about
    id: str = ""  # the charge, else the payment intent; the dispute; the subscription


class _Row(Struct):
    """An event's object, as far as any type needs it; None where there is no such place in it."""

    type: str
    created: datetime
    customer: str
    api_version: str
    id: str | None
    charge: str | None
    intent: str | None
    amount: Any
    refunded: Any  # cumulated, and what it was before
    refunded_before: Any
    items: Any
    currency: str | None
    method: str | None
    brand: str | None
    country: str | None
    funding: str | None
    fingerprint: str | None
    decline: str | None
    reason: str | None
    price: str | None
    product: str | None
    status: str | None
    invoiced: bool
    canceling: bool  # this event is about a wish to cancel
    voluntary: bool
    canceled_at: Any

    @property
    def dims(self) -> dict[str, str]:
        found = {
            "decline code": self.decline if self.type in _FAILED else None,
            "reason": self.reason,
            "price": self.price,
            "product": self.product,
            "card brand": self.brand,
            "card country": self.country,
            "card funding": self.funding,
            "payment method": self.method,
            "currency": self.currency,
            "API version": self.api_version,
        }
        return {name: value for name, value in found.items() if value and _CODE.fullmatch(value)}

    @property
    def money(self) -> int:
        """Minor units: of a cumulated refund what it grew by."""
        if self.type == _REFUNDED:
            return max(0, _whole(self.refunded) - _whole(self.refunded_before))
        if isinstance(self.items, list):
            return sum(_cost(item) for item in self.items)
        return _whole(self.amount)


# The object is unpacked once: every path into a stored payload would unpack it anew.
_QUERY = """
    WITH told AS MATERIALIZED (
        SELECT id AS event, type, created, customer, api_version, payload #> '{data,object}' AS o,
               payload #> '{data,previous_attributes}' AS before
        FROM events
        WHERE account = %s AND livemode = %s AND created >= %s AND created < %s AND type = ANY(%s)
          AND payload IS NOT NULL
        ORDER BY created DESC, id DESC LIMIT %s
    )
    SELECT type, created, customer, api_version, o ->> 'id' AS id,
           CASE
               WHEN o ->> 'object' = 'charge' THEN o ->> 'id'
               WHEN type = 'payment_intent.payment_failed' THEN  -- latest_charge may be an older attempt's
                   coalesce(o #>> '{last_payment_error,charge,id}', o #>> '{last_payment_error,charge}')
               ELSE coalesce(o #>> '{charge,id}', o ->> 'charge', o #>> '{latest_charge,id}', o ->> 'latest_charge',
                             o #>> '{charges,data,0,id}')
           END AS charge,
           CASE WHEN o ->> 'object' = 'payment_intent' THEN o ->> 'id'
                ELSE coalesce(o #>> '{payment_intent,id}', o ->> 'payment_intent') END AS intent,
           coalesce(o -> 'amount', o -> 'amount_due', o -> 'amount_total') AS amount,
           o -> 'amount_refunded' AS refunded, before -> 'amount_refunded' AS refunded_before,
           o #> '{items,data}' AS items, o ->> 'currency' AS currency,
           coalesce(method ->> 'type', CASE WHEN jsonb_typeof(o -> 'payment_method_types') = 'array'
                                             AND o ->> 'object' = 'checkout.session'
                                             AND jsonb_array_length(o -> 'payment_method_types') = 1
                                            THEN o #>> '{payment_method_types,0}' END) AS method,
           method #>> '{card,brand}' AS brand, method #>> '{card,country}' AS country,
           method #>> '{card,funding}' AS funding, method #>> '{card,fingerprint}' AS fingerprint,
           coalesce(o #>> '{last_payment_error,decline_code}', o #>> '{outcome,reason}',
                    o #>> '{last_payment_error,code}', o ->> 'failure_code') AS decline,
           coalesce(o #>> '{cancellation_details,feedback}', o ->> 'fraud_type',
                    nullif(o ->> 'reason', 'requested_by_customer')) AS reason,  -- what everyone chooses says nothing
           coalesce(o #>> '{items,data,0,price,id}', o #>> '{items,data,0,plan,id}',
                    o #>> '{lines,data,0,price,id}', o #>> '{lines,data,0,pricing,price_details,price}') AS price,
           coalesce(o #>> '{items,data,0,price,product}', o #>> '{items,data,0,plan,product}',
                    o #>> '{lines,data,0,price,product}', o #>> '{lines,data,0,pricing,price_details,product}'
                   ) AS product,
           o ->> 'status' AS status,
           coalesce(coalesce(o #>> '{invoice,id}', o ->> 'invoice', o #>> '{payment_details,order_reference}')
                    LIKE 'in\\_%%', false) AS invoiced,
           type = 'customer.subscription.deleted'
               OR coalesce(before -> 'cancel_at_period_end' = 'false' AND o -> 'cancel_at_period_end' = 'true', false)
               OR coalesce(before -> 'cancel_at' = 'null' AND o -> 'cancel_at' <> 'null', false) AS canceling,
           coalesce(o #>> '{cancellation_details,reason}', '')
               NOT IN ('payment_failed', 'payment_disputed') AS voluntary,
           o -> 'canceled_at' AS canceled_at
    FROM told CROSS JOIN LATERAL (
        SELECT coalesce(nullif(o -> 'payment_method_details', 'null'),
                        nullif(o #> '{last_payment_error,payment_method}', 'null'),
                        o #> '{charges,data,0,payment_method_details}') AS method
    ) AS paid
    ORDER BY created, event
"""


def read_window(
    conn: Connection, tenant: Tenant, metric: str, start: datetime, end: datetime, limit: int = LIMIT
) -> list[Observation]:
    """What the events of [start, end) tell about a metric; nothing where events cannot tell it, as with an absence.

    Failures are read with the successes of the same span, from the newest `limit` events of both; refunds, disputes
    and warnings from the newest `limit` of theirs, and beside them as many payments for comparison.
    """
    if metric not in _METRICS:
        return []
    groups, gather = _METRICS[metric]
    begin = start - APART if gather is _duplicates else start
    rows = [row for types in groups for row in _read(conn, tenant, types, begin, end, limit)]
    return gather(rows, start)


def objects(observations: Iterable[Observation]) -> list[dict[str, str]]:
    """Examples of what is bad, by `kind` and `id`, the largest amounts first; of whatever has a page.

    Minor units are compared across currencies: a yen and a cent are closer than a yen and a dollar.
    """
    bad = [each for each in observations if each.bad and _PAGE.fullmatch(each.id)]
    largest = sorted(bad, key=lambda each: -each.amount)
    found = {each.id: {"kind": each.kind, "id": each.id} for each in largest}
    return [*found.values()][:SHOWN]


def read_changes(conn: Connection, tenant: Tenant, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """What changed in [start, end], the newest first: `at` (epoch seconds), `what`, `name`, and `how` it did.

    A price is told once, though Stripe tells it as a plan, too. Of a deploy's mark nothing is taken that may be an
    address.
    """
    types = [*_CHANGES]
    rows = conn.execute(
        """
        SELECT starts_at AS at, 'deploy' AS type, text AS name FROM markers
        WHERE account = %(account)s AND livemode = %(livemode)s AND kind = 'deploy'
          AND starts_at >= %(start)s AND starts_at <= %(end)s
        UNION ALL
        SELECT created, type, object_id FROM events
        WHERE account = %(account)s AND livemode = %(livemode)s AND created >= %(start)s AND created <= %(end)s
          AND type = ANY(%(types)s)
        ORDER BY at DESC, name, type LIMIT %(limit)s
        """,
        {
            "account": tenant.account,
            "livemode": tenant.livemode,
            "start": start,
            "end": end,
            "types": types,
            "limit": LIMIT,
        },
    ).fetchall()
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for at, type, text in rows:
        name = " ".join(word for word in text.split() if _WORD.fullmatch(word))[:80].rstrip()
        what, how = (_CHANGES[type], type.rpartition(".")[2]) if type in _CHANGES else ("deploy", "")
        told = {"at": int(at.timestamp()), "what": what, "name": name, "how": how}
        found.setdefault((what, name, how), told)
    return [*found.values()][:SHOWN]


def _read(
    conn: Connection, tenant: Tenant, types: Sequence[str], start: datetime, end: datetime, limit: int
) -> list[_Row]:
    with conn.cursor(row_factory=class_row(_Row)) as cursor:
        cursor.execute(_QUERY, (tenant.account, tenant.livemode, start, end, list(types), limit))
        return cursor.fetchall()


# Each of these gathers the rows that speak of one object, whichever of Stripe's events told it.


def _payments(rows: Iterable[_Row], _: datetime) -> list[Observation]:
    """One an attempt, as its first event says it ended."""
    return [_observe(found, found[0].type in _FAILED) for found in _by(rows, _attempt).values()]


def _against(*kinds: str) -> Callable[[Iterable[_Row], datetime], list[Observation]]:
    """One a refund, dispute or warning, with what its charge's own events tell; and one a payment that had none."""

    def gather(rows: Iterable[_Row], _: datetime) -> list[Observation]:
        found: list[Observation] = []
        for about in _by(rows, _attempt).values():
            told = {row.id: row for row in about if row.type == kinds[0] and _counts(row)}
            # The charge tells the same refunds once more: only where nothing else does, it is asked for them.
            claims = [*told.values()] or [row for row in about if row.type in kinds[1:]]
            found += [_observe([claim, *about], True) for claim in claims]
            if not claims and about[0].type in _PAID:
                found.append(_observe(about, False))
        return found

    return gather


def _cancellations(rows: Iterable[_Row], start: datetime) -> list[Observation]:
    """One a subscription: asked to be canceled by its customer, or doing something else."""
    found: list[Observation] = []
    for about in _by(rows, lambda row: row.id or "").values():
        asked = [row for row in about if row.canceling and row.voluntary and _asked(row) >= start.timestamp()]
        if asked:
            found.append(_observe([asked[0], *about], True))
        elif not any(row.canceling for row in about):
            found.append(_observe(about, False))
    return found


def _duplicates(rows: Iterable[_Row], start: datetime) -> list[Observation]:
    """One a payment; bad is one that repeats an earlier one of the same payer, amount and currency."""
    found: list[Observation] = []
    before: dict[tuple[str, int, str], list[tuple[datetime, str, bool]]] = {}
    for about in _by(rows, _attempt).values():
        first, payment = about[0], _observe(about, False)
        payer = payment.customer or next((row.fingerprint for row in about if row.fingerprint), "")
        intent = next((row.intent for row in about if row.intent), _attempt(first))
        invoiced = any(row.invoiced for row in about)
        earlier = before.setdefault((payer, payment.amount, payment.currency), [])
        repeats = payer and any(
            first.created - at <= APART and other != intent and not (invoiced and billed)
            for at, other, billed in earlier
        )
        earlier.append((first.created, intent, invoiced))
        if first.created >= start:
            found.append(_observe(about, bool(repeats)))
    return found


def _sessions(rows: Iterable[_Row], _: datetime) -> list[Observation]:
    return [_observe(found, found[0].type == _EXPIRED) for found in _by(rows, lambda row: row.id or "").values()]


_Gather = Callable[[Iterable[_Row], datetime], list[Observation]]
# By metric: the event types, those that share a limit together, and what to make of them.
_METRICS: dict[str, tuple[tuple[tuple[str, ...], ...], _Gather]] = {
    "payment.failed": ((_FAILED + _PAID,), _payments),
    "payment.small_failed": ((_FAILED + _PAID,), _payments),
    "payment.duplicate": ((_PAID,), _duplicates),
    "refund.created": (((_REFUND, _REFUNDED), _PAID), _against(_REFUND, _REFUNDED)),
    "dispute.created": (((_DISPUTE,), _PAID), _against(_DISPUTE)),
    "fraud_warning.created": (((_WARNING,), _PAID), _against(_WARNING)),
    "subscription.canceled": ((_SUBSCRIPTIONS,), _cancellations),
    "mrr.changed": ((_SUBSCRIPTIONS,), _cancellations),
    "checkout.completed": (((_EXPIRED, _COMPLETED),), _sessions),
    "checkout.expired": (((_EXPIRED, _COMPLETED),), _sessions),
}


def _observe(rows: Sequence[_Row], bad: bool) -> Observation:
    """One object of several events: of each thing the first that any of them tells."""
    dims: dict[str, str] = {}
    for row in rows:
        dims = row.dims | dims
    if not bad:
        dims.pop("reason", None)
    kind, id_ = _page(rows)
    return Observation(
        dims=dims,
        customer=next((row.customer for row in rows if row.customer), ""),
        amount=next((row.money for row in rows if row.money), 0),
        currency=next((row.currency for row in rows if row.currency), ""),
        bad=bad,
        kind=kind,
        id=id_,
    )


def _page(rows: Sequence[_Row]) -> tuple[str, str]:
    """What has a page: the claim that comes first of a payment's rows, where it is one; else the payment."""
    first = rows[0]
    if first.type == _DISPUTE:
        return "dispute", first.id or ""
    if first.type in _SUBSCRIPTIONS:
        return "subscription", first.id or ""
    ids = [row.charge for row in rows if row.charge] or [row.intent for row in rows if row.intent]
    return "payment", ids[0] if ids else ""


def _by(rows: Iterable[_Row], key: Callable[[_Row], str]) -> dict[str, list[_Row]]:
    """The rows by key; what has none is left out."""
    found: dict[str, list[_Row]] = {}
    for row in rows:
        if name := key(row):
            found.setdefault(name, []).append(row)
    return found


def _attempt(row: _Row) -> str:
    """The charge; an intent that failed before there was one is an attempt of its own."""
    if row.charge:
        return row.charge
    if row.type.startswith("payment_intent."):
        return f"{row.intent}@{row.created.isoformat()}"
    # Since basil an invoice does not name its charge; the charge's own event tells the attempt.
    return "" if row.type.startswith("invoice.") else row.intent or row.id or ""


def _counts(row: _Row) -> bool:
    """A refund that failed moved no money, and an inquiry is no dispute."""
    status = row.status or ""
    return not (status.startswith("warning_") or (row.type == _REFUND and status in {"failed", "canceled"}))


def _asked(row: _Row) -> float:
    """When the cancellation was asked for, epoch seconds: one that ends now may have been counted long ago."""
    return float(_whole(row.canceled_at)) or row.created.timestamp()


def _cost(item: Any) -> int:
    """Minor units a period."""
    if not isinstance(item, dict):
        return 0
    price = item.get("price") or item.get("plan")
    each = price.get("unit_amount") or price.get("amount") if isinstance(price, dict) else 0
    quantity = item.get("quantity")
    return _whole(each) * (1 if quantity is None else _whole(quantity))


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
