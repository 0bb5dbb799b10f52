"""Stripe's objects, as far as facts need them: unknown fields are skipped, absent ones have defaults.

Shapes of API 2024-06-20, 2025-03-31.basil and 2026-10-28.endive, https://docs.stripe.com/changelog.
"""

import msgspec
from msgspec import Struct


class Ref(Struct):
    id: str = ""


Link = str | Ref | None  # an id, or the object itself where it was expanded


class PaymentDetails(Struct):
    order_reference: str | None = None


class Charge(Struct):
    id: str
    amount: int
    currency: str
    payment_intent: Link = None
    invoice: Link = None  # before basil
    description: str | None = None
    payment_details: PaymentDetails | None = None  # since basil: order_reference is the invoice's id
    amount_captured: int = 0
    amount_refunded: int = 0
    captured: bool = True


class Charges(Struct):
    data: list[Ref] = []


class Error(Struct):
    charge: Link = None


class PaymentIntent(Struct):
    id: str
    currency: str = ""
    amount: int = 0
    amount_received: int = 0
    latest_charge: Link = None
    charges: Charges | None = None  # before 2022-11-15
    last_payment_error: Error | None = None
    invoice: Link = None
    description: str | None = None
    payment_details: PaymentDetails | None = None


class Invoice(Struct):
    id: str = ""
    currency: str = ""
    amount_due: int = 0
    amount_paid: int = 0
    charge: Link = None  # before basil
    payment_intent: Link = None  # before basil
    billing_reason: str | None = None


class Refund(Struct):
    id: str
    amount: int
    currency: str
    charge: Link = None
    payment_intent: Link = None
    status: str | None = None


class Dispute(Struct):
    id: str
    amount: int
    currency: str
    status: str = ""


class Amount(Struct):
    """A payout, a credit note, a checkout session: an id and how much."""

    id: str
    currency: str | None = None
    amount: int | None = None
    amount_total: int | None = None
    total: int | None = None


class Recurring(Struct, frozen=True):
    interval: str = "month"
    interval_count: int = 1
    usage_type: str = "licensed"


class Price(Struct, frozen=True):
    unit_amount: int | None = None
    currency: str = ""
    recurring: Recurring | None = None


class Item(Struct, frozen=True):
    price: Price | None = None
    quantity: int | None = None


class Items(Struct, frozen=True):
    data: list[Item] = []


class Cancellation(Struct):
    reason: str | None = None


class Subscription(Struct):
    id: str
    status: str
    currency: str = ""
    items: Items = Items()
    cancel_at_period_end: bool = False
    cancel_at: int | None = None
    canceled_at: int | None = None
    ended_at: int | None = None
    trial_end: int | None = None
    cancellation_details: Cancellation | None = None


class Before(Struct, forbid_unknown_fields=False):
    """`previous_attributes` of a subscription: UNSET where an attribute did not change."""

    status: str | msgspec.UnsetType = msgspec.UNSET
    items: Items | msgspec.UnsetType | None = msgspec.UNSET
    cancel_at_period_end: bool | msgspec.UnsetType = msgspec.UNSET
    cancel_at: int | msgspec.UnsetType | None = msgspec.UNSET
