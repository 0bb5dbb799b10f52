"""Builders of the objects of recurring billing: customers, prices, subscriptions.

They give whole objects in the account's shape and decide nothing. Amounts are minor units, times epoch seconds.
"""

from msgspec import Struct

from billingwatch.simulator.charges import address
from billingwatch.simulator.objects import Account, Json
from billingwatch.simulator.people import Customer, Plan


class Subscription(Struct, gc=False):
    """What is known of a subscription between two events about it; `slot` is its place among the active ones.

    One that was there before the stream has no ids and nobody's name until it is first told of: a large account has
    a million of them.
    """

    id: str
    item: str  # si_…
    customer: Customer
    plan: Plan
    quantity: int
    created: int
    anchor: int  # the day of the month it renews on, 1 to 31
    start: int  # of the current period
    end: int
    status: str = "active"
    trial_end: int | None = None
    cancel_at_period_end: bool = False
    canceled_at: int | None = None
    ended_at: int | None = None
    reason: str | None = None  # cancellation_details.reason
    feedback: str | None = None
    latest_invoice: str | None = None
    invoices: int = 0
    slot: int = -1


def customer(account: Account, who: Customer) -> Json:
    """A customer without a balance, a discount or a tax id."""
    return {
        "id": who.id,
        "object": "customer",
        "address": address(who),
        "balance": 0,
        "created": who.created,
        "currency": account.currency,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": who.email,
        "invoice_prefix": who.id[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": who.card.method,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": account.livemode,
        "metadata": {},
        "name": who.name,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": ["en"],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def price(account: Account, plan: Plan) -> Json:
    """The recurring price of a plan."""
    amount = account.price(plan.cents)
    return {
        "id": plan.price,
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": plan.created,
        "currency": account.currency,
        "custom_unit_amount": None,
        "livemode": account.livemode,
        "lookup_key": plan.name.lower().replace(" ", "_"),
        "metadata": {},
        "nickname": plan.name,
        "product": plan.product,
        "recurring": {
            "interval": plan.interval,
            "interval_count": 1,
            "meter": None,
            "trial_period_days": None,
            "usage_type": "licensed",
        },
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring",
        "unit_amount": amount,
        "unit_amount_decimal": str(amount),
    }


def as_plan(account: Account, plan: Plan) -> Json:
    """The same price as the older `plan`, which subscriptions still carry."""
    amount = account.price(plan.cents)
    return {
        "id": plan.price,
        "object": "plan",
        "active": True,
        "amount": amount,
        "amount_decimal": str(amount),
        "billing_scheme": "per_unit",
        "created": plan.created,
        "currency": account.currency,
        "interval": plan.interval,
        "interval_count": 1,
        "livemode": account.livemode,
        "metadata": {},
        "meter": None,
        "nickname": plan.name,
        "product": plan.product,
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def items(account: Account, sub: Subscription) -> Json:
    """The list of the subscription's one item; since basil the item carries the billing period."""
    item: Json = {
        "id": sub.item,
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": sub.created,
        "discounts": [],
        "metadata": {},
        "plan": as_plan(account, sub.plan),
        "price": price(account, sub.plan),
        "quantity": sub.quantity,
        "subscription": sub.id,
        "tax_rates": [],
    }
    if not account.direct:
        item["current_period_end"] = sub.end
        item["current_period_start"] = sub.start
    return {
        "object": "list",
        "data": [item],
        "has_more": False,
        "total_count": 1,
        "url": f"/v1/subscription_items?subscription={sub.id}",
    }


def subscription(account: Account, sub: Subscription) -> Json:
    """The subscription as it stands now."""
    cancels = sub.end if sub.cancel_at_period_end else None
    made: Json = {
        "id": sub.id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": sub.trial_end or sub.created,
        "billing_cycle_anchor_config": None,
        "cancel_at": cancels,
        "cancel_at_period_end": sub.cancel_at_period_end,
        "canceled_at": sub.canceled_at,
        "cancellation_details": {"comment": None, "feedback": sub.feedback, "reason": sub.reason},
        "collection_method": "charge_automatically",
        "created": sub.created,
        "currency": account.currency,
        "customer": sub.customer.id,
        "days_until_due": None,
        "default_payment_method": sub.customer.card.method,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": sub.ended_at,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": items(account, sub),
        "latest_invoice": sub.latest_invoice,
        "livemode": account.livemode,
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": sub.created,
        "status": sub.status,
        "test_clock": None,
        "transfer_data": None,
        "trial_end": sub.trial_end,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": sub.created if sub.trial_end else None,
    }
    if account.direct:
        made["current_period_end"] = sub.end
        made["current_period_start"] = sub.start
        made["discount"] = None
        made["plan"] = as_plan(account, sub.plan)
        made["quantity"] = sub.quantity
    else:
        made["billing_mode"] = {"type": "classic"}
        made["customer_account"] = None
    return made


def period(account: Account, sub: Subscription) -> Json:
    """The current period as `previous_attributes` tells it: the whole items since basil, two fields before."""
    if account.direct:
        return {"current_period_end": sub.end, "current_period_start": sub.start}
    return {"items": items(account, sub)}
