"""Stripe's objects, as far as facts need them: unknown fields are skipped, absent ones have defaults.

Shapes of API 2024-06-20, 2025-03-31.basil and 2026-10-28.endive, https://docs.stripe.com/changelog.
"""

from typing import NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType


class Ref(Struct):
    id: str = ""


Link = str | Ref | None  # an id, or the object itself where it was expanded


def id_of(link: Link) -> str:
    """ "" where nothing is linked."""
    if isinstance(link, Ref):
        return link.id
    return link or ""


class Card(Struct, frozen=True):
    brand: str | None = None
    country: str | None = None
    funding: str | None = None
    fingerprint: str | None = None


class Method(Struct, frozen=True):
    """How somebody paid: a charge's `payment_method_details`, or a payment method itself."""

    type: str | None = None
    card: Card | None = None
    card_present: Card | None = None

    @property
    def any_card(self) -> Card:
        """The card, one of which nothing is known where there is none."""
        return self.card or self.card_present or NO_CARD


NO_CARD, UNKNOWN = Card(), Method()


class PaymentDetails(Struct):
    order_reference: str | None = None


class Outcome(Struct):
    reason: str | None = None


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
    payment_method_details: Method | None = None
    outcome: Outcome | None = None
    failure_code: str | None = None

    @property
    def decline(self) -> str:
        """The issuer's code where there is one: it stands in the outcome, the charge's own says card_declined."""
        return (self.outcome.reason if self.outcome else None) or self.failure_code or ""


class Attempt(Struct):
    """A charge within its payment intent."""

    id: str = ""
    payment_method_details: Method | None = None


class Charges(Struct):
    data: list[Attempt] = []


class Error(Struct):
    charge: Link = None
    code: str | None = None
    decline_code: str | None = None
    payment_method: Method | None = None

    @property
    def decline(self) -> str:
        return self.decline_code or self.code or ""


class PaymentIntent(Struct):
    id: str
    currency: str = ""
    amount: int = 0
    amount_received: int = 0
    latest_charge: str | Attempt | None = None
    charges: Charges | None = None  # before 2022-11-15
    last_payment_error: Error | None = None
    payment_method: str | Method | None = None
    invoice: Link = None
    description: str | None = None
    payment_details: PaymentDetails | None = None

    @property
    def _latest(self) -> str | Attempt | None:
        if self.latest_charge is None and self.charges and self.charges.data:
            return self.charges.data[0]
        return self.latest_charge

    @property
    def latest_id(self) -> str:
        """The latest charge's id, "" where there is none."""
        latest = self._latest
        return latest.id if isinstance(latest, Attempt) else latest or ""

    @property
    def method(self) -> Method | None:
        """How it was paid, where the intent says so: mostly it holds but ids."""
        latest = self._latest
        if isinstance(latest, Attempt) and latest.payment_method_details:
            return latest.payment_method_details
        return self.payment_method if isinstance(self.payment_method, Method) else None


def invoice_of(payment: Charge | PaymentIntent) -> str:
    """The invoice that asked for the payment. Since basil its order reference tells, which no document says."""
    if payment.invoice:
        return id_of(payment.invoice)
    reference = payment.payment_details.order_reference if payment.payment_details else None
    return reference if reference and reference.startswith("in_") else ""


class Recurring(Struct, frozen=True):
    interval: str = "month"
    interval_count: int = 1
    usage_type: str = "licensed"


class Price(Struct, frozen=True):
    id: str = ""
    unit_amount: int | None = None
    currency: str = ""
    recurring: Recurring | None = None


class Line(Struct):
    price: Price | None = None


class Lines(Struct):
    data: list[Line] = []

    @property
    def price(self) -> str:
        """The id of the first recurring price."""
        return next((line.price.id for line in self.data if line.price and line.price.recurring), "")


class Invoice(Struct):
    id: str = ""
    currency: str = ""
    amount_due: int = 0
    amount_paid: int = 0
    charge: Link = None  # before basil
    payment_intent: Link = None  # before basil
    billing_reason: str | None = None
    lines: Lines | None = None


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
    payment_method_details: Method | None = None


class Amount(Struct):
    """A payout, a credit note, a checkout session: an id and how much."""

    id: str
    currency: str | None = None
    amount: int | None = None
    amount_total: int | None = None
    total: int | None = None


class Item(Struct, frozen=True):
    price: Price | None = None
    quantity: int | None = None
    current_period_end: int | None = None  # since basil


class Items(Struct, frozen=True):
    data: list[Item] = []

    @property
    def monthly(self) -> int:
        """Minor units a month of what has a fixed price."""
        total = 0.0
        for item in self.data:
            price = item.price
            if price and price.recurring:
                total += (
                    licensed(item)
                    * _PER_MONTH.get(price.recurring.interval, 1)
                    / max(1, price.recurring.interval_count)
                )
        return round(total)

    @property
    def price(self) -> str:
        """The id of the first recurring price."""
        for item in self.data:
            if item.price and item.price.recurring:
                return item.price.id
        return ""


_PER_MONTH = {"day": 365 / 12, "week": 365 / 84, "month": 1, "year": 1 / 12}


def licensed(item: Item) -> int:
    """Minor units a period; 0 where there is no fixed price, as of what is metered."""
    price = item.price
    if not price or not price.recurring or price.recurring.usage_type == "metered":
        return 0
    return (price.unit_amount or 0) * (1 if item.quantity is None else item.quantity)


class Cancellation(Struct):
    reason: str | None = None


class Pause(Struct):
    """That invoices are not collected for a while."""


class Renewal(NamedTuple):
    """When a subscription's next period begins, epoch seconds, and what it costs in minor units."""

    at: int
    amount: int


class Subscription(Struct):
    id: str
    status: str
    currency: str = ""
    items: Items = Items()
    current_period_end: int | None = None  # before basil
    cancel_at_period_end: bool = False
    cancel_at: int | None = None
    canceled_at: int | None = None
    ended_at: int | None = None
    trial_end: int | None = None
    collection_method: str | None = None
    pause_collection: Pause | None = None
    cancellation_details: Cancellation | None = None

    @property
    def renewal(self) -> Renewal | None:
        """The payment that will be attempted when the running period ends; None where none will."""
        if self.cancel_at_period_end or self.pause_collection or self.collection_method == "send_invoice":
            return None
        at = amount = 0
        for item in self.items.data:
            end = item.current_period_end or self.current_period_end or 0
            if end == at:
                amount += licensed(item)
            elif not at or 0 < end < at:  # of periods of several lengths the one that ends first
                at, amount = end, licensed(item)
        if not at or (self.cancel_at is not None and self.cancel_at <= at):
            return None
        return Renewal(at, amount)


class Before(Struct):
    """`previous_attributes` of a subscription: UNSET where an attribute did not change."""

    status: str | UnsetType = UNSET
    items: Items | UnsetType | None = UNSET
    current_period_end: int | UnsetType | None = UNSET
    cancel_at_period_end: bool | UnsetType = UNSET
    cancel_at: int | UnsetType | None = UNSET
    collection_method: str | UnsetType | None = UNSET
    pause_collection: Pause | UnsetType | None = UNSET

    def of(self, now: Subscription) -> Subscription:
        """The subscription as it was."""
        changed = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET}
        if changed.get("items") is None:
            changed.pop("items", None)
        return msgspec.structs.replace(now, **changed) if changed else now
