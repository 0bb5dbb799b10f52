"""What each event type tells: pure, from one event to facts. Knows no state: what was told before is claimed elsewhere.

Object shapes of API 2024-06-20, 2025-03-31.basil and 2026-10-28.endive, https://docs.stripe.com/changelog.
"""

from collections.abc import Callable
from functools import partial

import msgspec
from msgspec.json import Decoder

from billingwatch.model import DUE_CLAIM, Fact, Refunded
from detectors.event import Event
from detectors.objects import (
    UNKNOWN,
    Amount,
    Before,
    Charge,
    Dispute,
    Invoice,
    Method,
    PaymentIntent,
    Ref,
    Refund,
    Renewal,
    Subscription,
    id_of,
    invoice_of,
)

Told = Fact | Refunded

PAYMENT_SUCCEEDED = "payment.succeeded"
PAYMENT_FAILED = "payment.failed"
SMALL_FAILED = "payment.small_failed"  # the failures among small amounts: what card testers leave
DUPLICATE = "payment.duplicate"  # the later one of two payments of the same amount by the same payer within minutes
ACTION_REQUIRED = "payment.action_required"
REFUND = "refund.created"
DISPUTE = "dispute.created"
INQUIRY = "dispute.inquiry"
FRAUD_WARNING = "fraud_warning.created"
SUBSCRIBED = "subscription.created"
CANCELED = "subscription.canceled"
TRIAL_CONVERTED = "trial.converted"
TRIAL_LAPSED = "trial.lapsed"
MRR = "mrr.changed"
DUE = "renewal.due"  # told ahead, in the bucket in which the period ends; Stripe attempts the payment about an hour on
CHECKOUT_COMPLETED = "checkout.completed"
CHECKOUT_EXPIRED = "checkout.expired"
PAYOUT_FAILED = "payout.failed"
CREDIT_NOTE = "credit_note.created"
ANY = "object.any"  # one per independent business object: the pulse that silence is measured against
ARRIVED, LATE = "delivery.arrived", "delivery.late"  # the same objects, in the bucket in which they arrived

CHECKOUT, RENEWAL, RETRY = "checkout", "renewal", "retry"  # strata of payments
PEOPLE, CLOCKWORK = "people", "clockwork"  # strata of the pulse: what people did, and what a date made due
VOLUNTARY, INVOLUNTARY = "voluntary", "involuntary"  # strata of cancellations
GAINED, LOST = "gained", "lost"  # strata of changes of revenue

CARD = "card:"  # a payer without a customer is known by the card's fingerprint
DAY = 86_400  # seconds
LARGEST_AMOUNT = 10**15  # minor units; beyond it an amount is a mistake, and sums could leave 64 bits
LONGEST_KEY = 500  # characters; Stripe's ids have up to 255, and an index row holds 2,704 bytes
FARTHEST = 4 * 366 * 86_400  # seconds ahead that a period may end; Stripe bills every three years at the least


class UnknownShape(Exception):
    """The event's object is not of the shape that its type promises; the message is where and why."""


def read_facts(event: Event, received: int = 0) -> list[Told]:
    """Everything the event tells, thin events and unknown types included: at least the pulse. Raises UnknownShape.

    `received` is when it arrived, epoch seconds; 0 where nobody knows, and then it arrived when it was created.
    """
    read = _READERS.get(event.type)
    try:
        told = read(event) if read else []
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise UnknownShape(f"{event.type}: {error}") from None
    root = event.object_id or event.id
    for each in told:
        if not -LARGEST_AMOUNT <= each.amount <= LARGEST_AMOUNT:
            raise UnknownShape(f"{event.type}: an amount beyond {LARGEST_AMOUNT:.0e} minor units")
        if isinstance(each, Fact) and each.attempt_of:
            root = each.attempt_of  # of a payment the pulse is the attempt's
    stratum = PEOPLE if _by_people(event.type, told) else CLOCKWORK
    # Once an object and day: what is told of it weeks later is a sign of life, too, and nobody has to remember longer.
    claim = f"{stratum}:{root}:{event.created // DAY}"
    told.append(Fact(ANY, event.created, claim=claim, stratum=stratum, received=received or event.created))
    for each in told:
        keys = "".join(_keys(each))  # looked at one by one only where something may be wrong
        if "\0" in keys or (len(keys) > LONGEST_KEY and any(len(key) > LONGEST_KEY for key in _keys(each))):
            raise UnknownShape(f"{event.type}: an id or currency is too long or holds NUL")
    return told


# Payments. A charge is one attempt; charge.*, payment_intent.* and (before basil) invoice.* tell the same attempt
# and claim it by the charge's id, so whichever arrives first counts and any subset of them is enough.


def _charge_outcome(metric: str, event: Event) -> list[Told]:
    charge = _charge(event.object)
    if metric == PAYMENT_SUCCEEDED and not charge.captured:
        return []  # an authorisation is no payment yet; charge.captured follows
    invoice = invoice_of(charge)
    return [
        _attempt(
            event,
            metric,
            charge=charge.id,
            of=id_of(charge.payment_intent) or invoice or charge.id,
            invoice=invoice,
            stratum=_stratum(invoice, charge.description),
            currency=charge.currency,
            amount=charge.amount_captured or charge.amount,
            method=charge.payment_method_details,
            decline=charge.decline if metric == PAYMENT_FAILED else "",
        )
    ]


def _payment_intent_outcome(metric: str, event: Event) -> list[Told]:
    intent = _payment_intent(event.object)
    error = intent.last_payment_error if metric == PAYMENT_FAILED else None
    charge = id_of(error.charge if error else None) or intent.latest_id
    if error and not id_of(error.charge):
        # Failed before there was a charge, as when the customer did not pass 3D Secure; an older
        # attempt's charge may still stand in latest_charge. No charge.failed tells this one.
        charge = f"{intent.id}@{event.created}"
    invoice = invoice_of(intent)
    return [
        _attempt(
            event,
            metric,
            charge=charge or intent.id,
            of=intent.id,
            invoice=invoice,
            stratum=_stratum(invoice, intent.description),
            currency=intent.currency,
            amount=intent.amount if metric == PAYMENT_FAILED else intent.amount_received or intent.amount,
            method=error.payment_method if error else intent.method,
            decline=error.decline if error else "",
        )
    ]


def _invoice_outcome(metric: str, event: Event) -> list[Told]:
    invoice = _invoice(event.object)
    charge = id_of(invoice.charge)
    if not charge:
        return []  # since basil an invoice does not name its charge; the charge's own event tells the attempt
    return [
        _attempt(
            event,
            metric,
            charge=charge,
            of=id_of(invoice.payment_intent) or invoice.id,
            invoice=invoice.id,
            stratum=CHECKOUT if invoice.billing_reason == "subscription_create" else RENEWAL,
            currency=invoice.currency,
            amount=invoice.amount_paid if metric == PAYMENT_SUCCEEDED else invoice.amount_due,
            price=invoice.lines.price if invoice.lines else "",
        )
    ]


def _attempt(
    event: Event,
    metric: str,
    *,
    charge: str,
    of: str,
    invoice: str,
    stratum: str,
    currency: str,
    amount: int,
    method: Method | None = None,
    price: str = "",
    decline: str = "",
) -> Fact:
    method = method or UNKNOWN
    card = method.any_card
    return Fact(
        metric,
        event.created,
        claim=f"{charge}:{metric}",
        stratum=stratum,
        currency=currency,
        amount=amount,
        attempt_of=of,
        payer=event.customer or (f"{CARD}{card.fingerprint}" if card.fingerprint else ""),
        invoiced=bool(invoice),
        brand=card.brand or "",
        country=card.country or "",
        funding=card.funding or "",
        method=method.type or "",
        price=price,
        decline=decline,
    )


def _action_required(event: Event) -> list[Told]:
    intent = _payment_intent(event.object)
    claim = f"{intent.id}:{ACTION_REQUIRED}"
    return [Fact(ACTION_REQUIRED, event.created, claim=claim, currency=intent.currency, amount=intent.amount)]


# Refunds, disputes, warnings


def _charge_refunded(event: Event) -> list[Told]:
    charge = _charge(event.object)
    card = (charge.payment_method_details or UNKNOWN).any_card
    dims = {"brand": card.brand or "", "country": card.country or ""}
    return [Refunded(charge.id, event.created, charge.currency, amount=charge.amount_refunded, **dims)]


def _refund(event: Event) -> list[Told]:
    refund = _refund_object(event.object)
    if refund.status in {"failed", "canceled"}:
        return []
    charge = id_of(refund.charge) or id_of(refund.payment_intent) or refund.id
    return [Refunded(charge, event.created, refund.currency, refund=refund.id, amount=refund.amount)]


def _dispute(event: Event) -> list[Told]:
    dispute = _dispute_object(event.object)
    # warning_* are inquiries: a bank asks, no money moves, networks do not count them
    metric = INQUIRY if dispute.status.startswith("warning_") else DISPUTE
    method = dispute.payment_method_details or UNKNOWN
    return [
        Fact(
            metric,
            event.created,
            claim=f"{dispute.id}:{metric}",
            currency=dispute.currency,
            amount=dispute.amount,
            brand=method.any_card.brand or "",
            method=method.type or "",
        )
    ]


def _object(metric: str, event: Event) -> list[Told]:
    """The object's birth or its one final state counts; its amount where it has one."""
    found = _amount(event.object)
    amount = next((a for a in (found.amount, found.amount_total, found.total) if a is not None), 0)
    return [Fact(metric, event.created, claim=f"{found.id}:{metric}", currency=found.currency or "", amount=amount)]


def _fraud_warning(event: Event) -> list[Told]:
    warning = _ref(event.object)
    return [Fact(FRAUD_WARNING, event.created, claim=f"{warning.id}:{FRAUD_WARNING}")]


# Subscriptions

_PAYING = {"active", "past_due"}  # statuses whose items count as recurring revenue
_RENEWING = {"active", "past_due", "trialing"}


def _subscription_created(event: Event) -> list[Told]:
    subscription = _subscription(event.object)
    price = subscription.items.price
    return [
        Fact(SUBSCRIBED, event.created, claim=f"{subscription.id}:{SUBSCRIBED}", price=price),
        *_mrr_change(event, subscription, price, 0, _mrr(subscription)),
        *_due(event, subscription, _renewal(subscription), price),
    ]


def _subscription_updated(event: Event) -> list[Told]:
    subscription = _subscription(event.object)
    before = _before(event.previous)
    was, price = before.of(subscription), subscription.items.price
    told: list[Told] = []
    asked_to_cancel = (before.cancel_at_period_end is False and subscription.cancel_at_period_end) or (
        before.cancel_at is None and subscription.cancel_at is not None
    )
    if asked_to_cancel:
        told.append(_cancellation(event, subscription, price))
    if was.status == "trialing" and subscription.status != "trialing":
        metric = TRIAL_CONVERTED if subscription.status == "active" else TRIAL_LAPSED
        told.append(Fact(metric, event.created, claim=f"{subscription.id}:{metric}", price=price))
    if was.items is not subscription.items or was.status != subscription.status:
        told += _mrr_change(event, subscription, price, _mrr(was), _mrr(subscription))
    if _renewal(was) != _renewal(subscription):
        told += _due(event, subscription, _renewal(was), was.items.price, -1)
        told += _due(event, subscription, _renewal(subscription), price)
    return told


def _subscription_deleted(event: Event) -> list[Told]:
    subscription = _subscription(event.object)
    price = subscription.items.price
    told: list[Told] = [_cancellation(event, subscription, price)]
    ended = subscription.ended_at or event.created
    if subscription.trial_end is not None and ended <= subscription.trial_end:
        told.append(Fact(TRIAL_LAPSED, event.created, claim=f"{subscription.id}:{TRIAL_LAPSED}", price=price))
    else:
        told += _mrr_change(event, subscription, price, subscription.items.monthly, 0)
    return told + _due(event, subscription, subscription.renewal, price, -1)


def _cancellation(event: Event, subscription: Subscription, price: str) -> Fact:
    """Asked for now and ended later is one cancellation, counted when it was asked for."""
    reason = subscription.cancellation_details.reason if subscription.cancellation_details else None
    asked = subscription.canceled_at or event.created
    return Fact(
        CANCELED,
        event.created,
        claim=f"{DUE_CLAIM}{subscription.id}:{CANCELED}:{asked}",
        stratum=INVOLUNTARY if reason in {"payment_failed", "payment_disputed"} else VOLUNTARY,
        currency=subscription.currency,
        amount=subscription.items.monthly,
        price=price,
    )


def _mrr(subscription: Subscription) -> int:
    return subscription.items.monthly if subscription.status in _PAYING else 0


def _mrr_change(event: Event, subscription: Subscription, price: str, before: int, after: int) -> list[Told]:
    if before == after:
        return []
    stratum, change = GAINED if after > before else LOST, after - before
    return [Fact(MRR, event.created, stratum=stratum, currency=subscription.currency, amount=change, price=price)]


# A renewal is told by the event that makes it due and taken back by the one that ends that; of another amount it is
# another one. What is taken back before it was told is never counted, so that order does not matter.


def _renewal(subscription: Subscription) -> Renewal | None:
    return subscription.renewal if subscription.status in _RENEWING else None


def _due(event: Event, subscription: Subscription, renewal: Renewal | None, price: str, count: int = 1) -> list[Told]:
    """Nothing where the period is over: then the renewal happened."""
    if not renewal or not event.created < renewal.at <= event.created + FARTHEST:
        return []
    claim = f"{DUE_CLAIM}{subscription.id}:{renewal.at}:{renewal.amount}"
    return [
        Fact(
            DUE,
            renewal.at,
            claim=claim if count > 0 else f"{claim}:undone",
            currency=subscription.currency,
            amount=renewal.amount * count,
            count=count,
            undoes=claim if count < 0 else "",
            price=price,
        )
    ]


# What people do at any moment: buy, subscribe, ask for their money. Renewals and what belongs to them come in heaps on
# some dates, which would be missed on other ones.
_PEOPLE = (
    "charge.",
    "checkout.",
    "customer.created",
    "customer.subscription.created",
    "payment_intent.payment_failed",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "refund.",
)


def _by_people(type_: str, told: list[Told]) -> bool:
    return type_.startswith(_PEOPLE) and not any(isinstance(each, Fact) and each.stratum == RENEWAL for each in told)


_READERS: dict[str, Callable[[Event], list[Told]]] = {
    "charge.succeeded": partial(_charge_outcome, PAYMENT_SUCCEEDED),
    "charge.captured": partial(_charge_outcome, PAYMENT_SUCCEEDED),
    "charge.failed": partial(_charge_outcome, PAYMENT_FAILED),
    "charge.refunded": _charge_refunded,
    "charge.dispute.created": _dispute,
    "checkout.session.completed": partial(_object, CHECKOUT_COMPLETED),
    "checkout.session.expired": partial(_object, CHECKOUT_EXPIRED),
    "credit_note.created": partial(_object, CREDIT_NOTE),
    "customer.subscription.created": _subscription_created,
    "customer.subscription.deleted": _subscription_deleted,
    "customer.subscription.updated": _subscription_updated,
    "invoice.paid": partial(_invoice_outcome, PAYMENT_SUCCEEDED),
    "invoice.payment_failed": partial(_invoice_outcome, PAYMENT_FAILED),
    "invoice.payment_succeeded": partial(_invoice_outcome, PAYMENT_SUCCEEDED),
    "payment_intent.payment_failed": partial(_payment_intent_outcome, PAYMENT_FAILED),
    "payment_intent.requires_action": _action_required,
    "payment_intent.succeeded": partial(_payment_intent_outcome, PAYMENT_SUCCEEDED),
    "payout.failed": partial(_object, PAYOUT_FAILED),
    "radar.early_fraud_warning.created": _fraud_warning,
    "refund.created": _refund,
}


_amount = Decoder(Amount).decode
_before = Decoder(Before).decode
_charge = Decoder(Charge).decode
_dispute_object = Decoder(Dispute).decode
_invoice = Decoder(Invoice).decode
_payment_intent = Decoder(PaymentIntent).decode
_ref = Decoder(Ref).decode
_refund_object = Decoder(Refund).decode
_subscription = Decoder(Subscription).decode


def _keys(told: Told) -> tuple[str, ...]:
    """What becomes part of a key in the store."""
    if isinstance(told, Refunded):
        return told.charge, told.refund, told.currency
    return told.claim, told.attempt_of, told.currency, told.payer


def _stratum(invoice: str, description: str | None) -> str:
    """A payment of an invoice is a renewal, save the first one of a subscription, which the customer makes."""
    return RENEWAL if invoice and description != "Subscription creation" else CHECKOUT
