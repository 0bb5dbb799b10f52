"""What each event type tells: pure, from one event to facts. Knows no state: what was told before is claimed elsewhere.

Object shapes of API 2024-06-20, 2025-03-31.basil and 2026-10-28.endive, https://docs.stripe.com/changelog.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Raw

from billingwatch.model import Fact, Refunded
from detectors.event import Event
from detectors.objects import (
    Amount,
    Before,
    Charge,
    Dispute,
    Invoice,
    Items,
    Link,
    PaymentDetails,
    PaymentIntent,
    Ref,
    Refund,
    Subscription,
)

Told = Fact | Refunded
T = TypeVar("T")

PAYMENT_SUCCEEDED = "payment.succeeded"
PAYMENT_FAILED = "payment.failed"
SMALL_FAILED = "payment.small_failed"  # the failures among small amounts: what card testers leave
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
CHECKOUT_COMPLETED = "checkout.completed"
CHECKOUT_EXPIRED = "checkout.expired"
PAYOUT_FAILED = "payout.failed"
CREDIT_NOTE = "credit_note.created"
ANY = "object.any"  # one per independent business object: the pulse that silence is measured against

CHECKOUT, RENEWAL, RETRY = "checkout", "renewal", "retry"  # strata of payments
VOLUNTARY, INVOLUNTARY = "voluntary", "involuntary"  # strata of cancellations

LARGEST_AMOUNT = 10**15  # minor units; beyond it an amount is a mistake, and sums could leave 64 bits
LONGEST_KEY = 500  # characters; Stripe's ids have up to 255, and an index row holds 2,704 bytes


class UnknownShape(Exception):
    """The event's object is not of the shape that its type promises; the message is where and why."""


def read_facts(event: Event) -> list[Told]:
    """Everything the event tells, thin events and unknown types included: at least the pulse. Raises UnknownShape."""
    read = _READERS.get(event.type)
    try:
        told = read(event) if read else []
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise UnknownShape(f"{event.type}: {error}") from None
    if any(abs(each.amount) > LARGEST_AMOUNT for each in told):
        raise UnknownShape(f"{event.type}: an amount beyond {LARGEST_AMOUNT:.0e} minor units")
    told = [*told, Fact(ANY, event.created, claim=f"any:{_root(event, told) or event.id}")]
    if any(len(key) > LONGEST_KEY or "\0" in key for each in told for key in _keys(each)):
        raise UnknownShape(f"{event.type}: an id or currency is too long or holds NUL")
    return told


# Payments. A charge is one attempt; charge.*, payment_intent.* and (before basil) invoice.* tell the same attempt
# and claim it by the charge's id, so whichever arrives first counts and any subset of them is enough.


def _charge_outcome(metric: str) -> Callable[[Event], list[Told]]:
    def read(event: Event) -> list[Told]:
        charge = _decode(Charge, event.object)
        if metric == PAYMENT_SUCCEEDED and not charge.captured:
            return []  # an authorisation is no payment yet; charge.captured follows
        invoice = _id(charge.invoice) or _order(charge.payment_details)
        return [
            Fact(
                metric,
                event.created,
                claim=f"{charge.id}:{metric}",
                stratum=_stratum(invoice, charge.description),
                currency=charge.currency,
                amount=charge.amount_captured or charge.amount,
                attempt_of=_id(charge.payment_intent) or invoice or charge.id,
            )
        ]

    return read


def _payment_intent_outcome(metric: str) -> Callable[[Event], list[Told]]:
    def read(event: Event) -> list[Told]:
        intent = _decode(PaymentIntent, event.object)
        error = intent.last_payment_error
        failed = metric == PAYMENT_FAILED
        charge = _id(error.charge) if failed and error else ""
        listed = intent.charges.data if intent.charges else []
        charge = charge or _id(intent.latest_charge) or (listed[0].id if listed else "")
        if failed and error and not _id(error.charge):
            # Failed before there was a charge, as when the customer did not pass 3D Secure; an older
            # attempt's charge may still stand in latest_charge. No charge.failed tells this one.
            charge = f"{intent.id}@{event.created}"
        invoice = _id(intent.invoice) or _order(intent.payment_details)
        return [
            Fact(
                metric,
                event.created,
                claim=f"{charge or intent.id}:{metric}",
                stratum=_stratum(invoice, intent.description),
                currency=intent.currency,
                amount=intent.amount if failed else intent.amount_received or intent.amount,
                attempt_of=intent.id,
            )
        ]

    return read


def _invoice_outcome(metric: str) -> Callable[[Event], list[Told]]:
    def read(event: Event) -> list[Told]:
        invoice = _decode(Invoice, event.object)
        charge = _id(invoice.charge)
        amount = invoice.amount_paid if metric == PAYMENT_SUCCEEDED else invoice.amount_due
        if not charge:
            return []  # since basil an invoice does not name its charge; the charge's own event tells the attempt
        return [
            Fact(
                metric,
                event.created,
                claim=f"{charge}:{metric}",
                stratum=CHECKOUT if invoice.billing_reason == "subscription_create" else RENEWAL,
                currency=invoice.currency,
                amount=amount,
                attempt_of=_id(invoice.payment_intent) or invoice.id,
            )
        ]

    return read


def _action_required(event: Event) -> list[Told]:
    intent = _decode(PaymentIntent, event.object)
    return [
        Fact(
            ACTION_REQUIRED,
            event.created,
            claim=f"{intent.id}:{ACTION_REQUIRED}",
            currency=intent.currency,
            amount=intent.amount,
        )
    ]


# Refunds, disputes, warnings


def _charge_refunded(event: Event) -> list[Told]:
    charge = _decode(Charge, event.object)
    return [Refunded(charge.id, event.created, charge.currency, amount=charge.amount_refunded)]


def _refund(event: Event) -> list[Told]:
    refund = _decode(Refund, event.object)
    if refund.status in {"failed", "canceled"}:
        return []
    charge = _id(refund.charge) or _id(refund.payment_intent) or refund.id
    return [Refunded(charge, event.created, refund.currency, refund=refund.id, amount=refund.amount)]


def _dispute(event: Event) -> list[Told]:
    dispute = _decode(Dispute, event.object)
    # warning_* are inquiries: a bank asks, no money moves, networks do not count them
    metric = INQUIRY if dispute.status.startswith("warning_") else DISPUTE
    return [
        Fact(
            metric,
            event.created,
            claim=f"{dispute.id}:{metric}",
            currency=dispute.currency,
            amount=dispute.amount,
        )
    ]


def _object(metric: str) -> Callable[[Event], list[Told]]:
    """The object's birth or its one final state counts; its amount where it has one."""

    def read(event: Event) -> list[Told]:
        found = _decode(Amount, event.object)
        amount = next((a for a in (found.amount, found.amount_total, found.total) if a is not None), 0)
        return [Fact(metric, event.created, claim=f"{found.id}:{metric}", currency=found.currency or "", amount=amount)]

    return read


def _fraud_warning(event: Event) -> list[Told]:
    warning = _decode(Ref, event.object)
    return [Fact(FRAUD_WARNING, event.created, claim=f"{warning.id}:{FRAUD_WARNING}")]


# Subscriptions

_PAYING = {"active", "past_due"}  # statuses whose items count as recurring revenue


def _subscription_created(event: Event) -> list[Told]:
    subscription = _decode(Subscription, event.object)
    told: list[Told] = [Fact(SUBSCRIBED, event.created, claim=f"{subscription.id}:{SUBSCRIBED}")]
    if subscription.status in _PAYING:
        told += _mrr_change(event, subscription, before=0, after=_mrr(subscription.items))
    return told


def _subscription_updated(event: Event) -> list[Told]:
    subscription = _decode(Subscription, event.object)
    before = _decode(Before, event.previous)
    told: list[Told] = []
    status_before = subscription.status if before.status is msgspec.UNSET else before.status
    asked_to_cancel = (before.cancel_at_period_end is False and subscription.cancel_at_period_end) or (
        before.cancel_at is None and subscription.cancel_at is not None
    )
    if asked_to_cancel:
        told.append(_cancellation(event, subscription))
    if status_before == "trialing" and subscription.status != "trialing":
        metric = TRIAL_CONVERTED if subscription.status == "active" else TRIAL_LAPSED
        told.append(Fact(metric, event.created, claim=f"{subscription.id}:{metric}"))
    items_before = before.items if isinstance(before.items, Items) else subscription.items
    was = _mrr(items_before) if status_before in _PAYING else 0
    now = _mrr(subscription.items) if subscription.status in _PAYING else 0
    return told + _mrr_change(event, subscription, was, now)


def _subscription_deleted(event: Event) -> list[Told]:
    subscription = _decode(Subscription, event.object)
    told: list[Told] = [_cancellation(event, subscription)]
    ended = subscription.ended_at or event.created
    if subscription.trial_end is not None and ended <= subscription.trial_end:
        told.append(Fact(TRIAL_LAPSED, event.created, claim=f"{subscription.id}:{TRIAL_LAPSED}"))
        return told
    return told + _mrr_change(event, subscription, before=_mrr(subscription.items), after=0)


def _cancellation(event: Event, subscription: Subscription) -> Fact:
    """Asked for now and ended later is one cancellation, counted when it was asked for."""
    reason = subscription.cancellation_details.reason if subscription.cancellation_details else None
    asked = subscription.canceled_at or event.created
    return Fact(
        CANCELED,
        event.created,
        claim=f"{subscription.id}:{CANCELED}:{asked}",
        stratum=INVOLUNTARY if reason in {"payment_failed", "payment_disputed"} else VOLUNTARY,
        currency=subscription.currency,
        amount=_mrr(subscription.items),
    )


def _mrr_change(event: Event, subscription: Subscription, before: int, after: int) -> list[Told]:
    if before == after:
        return []
    return [Fact(MRR, event.created, claim="", currency=subscription.currency, amount=after - before)]


_PER_MONTH = {"day": 365 / 12, "week": 365 / 84, "month": 1, "year": 1 / 12}


def _mrr(items: Items) -> int:
    """Minor units a month of the licensed items; metered ones have no fixed price."""
    return round(
        sum(
            (item.price.unit_amount or 0)
            * (1 if item.quantity is None else item.quantity)
            * _PER_MONTH.get(item.price.recurring.interval, 1)
            / max(1, item.price.recurring.interval_count)
            for item in items.data
            if item.price and item.price.recurring and item.price.recurring.usage_type != "metered"
        )
    )


_READERS: dict[str, Callable[[Event], list[Told]]] = {
    "charge.succeeded": _charge_outcome(PAYMENT_SUCCEEDED),
    "charge.captured": _charge_outcome(PAYMENT_SUCCEEDED),
    "charge.failed": _charge_outcome(PAYMENT_FAILED),
    "charge.refunded": _charge_refunded,
    "charge.dispute.created": _dispute,
    "checkout.session.completed": _object(CHECKOUT_COMPLETED),
    "checkout.session.expired": _object(CHECKOUT_EXPIRED),
    "credit_note.created": _object(CREDIT_NOTE),
    "customer.subscription.created": _subscription_created,
    "customer.subscription.deleted": _subscription_deleted,
    "customer.subscription.updated": _subscription_updated,
    "invoice.paid": _invoice_outcome(PAYMENT_SUCCEEDED),
    "invoice.payment_failed": _invoice_outcome(PAYMENT_FAILED),
    "invoice.payment_succeeded": _invoice_outcome(PAYMENT_SUCCEEDED),
    "payment_intent.payment_failed": _payment_intent_outcome(PAYMENT_FAILED),
    "payment_intent.requires_action": _action_required,
    "payment_intent.succeeded": _payment_intent_outcome(PAYMENT_SUCCEEDED),
    "payout.failed": _object(PAYOUT_FAILED),
    "radar.early_fraud_warning.created": _fraud_warning,
    "refund.created": _refund,
}


def _decode(shape: type[T], raw: Raw) -> T:
    return msgspec.json.decode(raw, type=shape)


def _root(event: Event, told: list[Told]) -> str:
    """The business object an event belongs to: of a payment the attempt's, else the event's own."""
    attempt = next((each.attempt_of for each in told if isinstance(each, Fact) and each.attempt_of), "")
    return attempt or event.object_id


def _keys(told: Told) -> tuple[str, ...]:
    """What becomes part of a key in the store."""
    if isinstance(told, Refunded):
        return told.charge, told.refund, told.currency
    return told.claim, told.attempt_of, told.currency


def _id(link: Link) -> str:
    if isinstance(link, Ref):
        return link.id
    return link or ""


def _order(details: PaymentDetails | None) -> str:
    """The invoice of a payment since basil: undocumented, seen in public payloads."""
    reference = details.order_reference if details else None
    return reference if reference and reference.startswith("in_") else ""


def _stratum(invoice: str, description: str | None) -> str:
    """A payment of an invoice is a renewal, save the first one of a subscription, which the customer makes."""
    return RENEWAL if invoice and description != "Subscription creation" else CHECKOUT
