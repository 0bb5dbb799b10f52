"""Builders of invoices, from draft to paid, and of the payments that settle them.

They give whole objects in the account's shape and decide nothing. Amounts are minor units, times epoch seconds.
"""

from billingwatch.simulator.billing import Subscription, as_plan, price
from billingwatch.simulator.charges import address
from billingwatch.simulator.objects import Account, Ids, Json

_AUTOMATIC_TAX: Json = {"disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None}


def _line(account: Account, id: str, invoice: str, sub: Subscription, amount: int) -> Json:
    made: Json = {
        "id": id,
        "object": "line_item",
        "amount": amount,
        "currency": account.currency,
        "description": f"{sub.quantity} × {sub.plan.name} (at {account.price(sub.plan.cents)} / {sub.plan.interval})",
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice,
        "livemode": account.livemode,
        "metadata": {},
        "period": {"end": sub.end, "start": sub.start},
        "pretax_credit_amounts": [],
        "quantity": sub.quantity,
    }
    if account.direct:
        made["amount_excluding_tax"] = amount
        made["plan"] = as_plan(account, sub.plan)
        made["price"] = price(account, sub.plan)
        made["proration"] = False
        made["proration_details"] = {"credited_items": None}
        made["subscription"] = sub.id
        made["subscription_item"] = sub.item
        made["tax_amounts"] = []
        made["tax_rates"] = []
        made["type"] = "subscription"
        made["unit_amount_excluding_tax"] = str(amount // sub.quantity)
        return made
    made["parent"] = {
        "invoice_item_details": None,
        "subscription_item_details": {
            "invoice_item": None,
            "proration": False,
            "proration_details": {"credited_items": None},
            "subscription": sub.id,
            "subscription_item": sub.item,
        },
        "type": "subscription_item_details",
    }
    made["pricing"] = {
        "price_details": {"price": sub.plan.price, "product": sub.plan.product},
        "type": "price_details",
        "unit_amount_decimal": str(amount // sub.quantity),
    }
    made["subtotal"] = amount
    made["taxes"] = []
    return made


def invoice(account: Account, ids: Ids, sub: Subscription, amount: int, created: int, *, reason: str) -> Json:
    """A draft invoice of `amount` for the subscription's current period.

    `reason` is its billing_reason: `subscription_create`, `subscription_cycle` or `subscription_update`.
    """
    id = ids.long("in_1")
    who = sub.customer
    made: Json = {
        "id": id,
        "object": "invoice",
        "account_country": account.country,
        "account_name": "Example Store",
        "account_tax_ids": None,
        "amount_due": amount,
        "amount_paid": 0,
        "amount_remaining": amount,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": _AUTOMATIC_TAX,
        "automatically_finalizes_at": created + 3600 if reason == "subscription_cycle" else None,
        "billing_reason": reason,
        "collection_method": "charge_automatically",
        "created": created,
        "currency": account.currency,
        "custom_fields": None,
        "customer": who.id,
        "customer_address": address(who),
        "customer_email": who.email,
        "customer_name": who.name,
        "customer_phone": None,
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": {
            "object": "list",
            "data": [_line(account, ids.long("il_1"), id, sub, amount)],
            "has_more": False,
            "total_count": 1,
            "url": f"/v1/invoices/{id}/lines",
        },
        "livemode": account.livemode,
        "metadata": {},
        "next_payment_attempt": created + 3600 if reason == "subscription_cycle" else None,
        "number": None,
        "on_behalf_of": None,
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_end": created,
        "period_start": sub.created if reason == "subscription_create" else created - (sub.end - sub.start),
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": amount,
        "subtotal_excluding_tax": amount,
        "test_clock": None,
        "total": amount,
        "total_discount_amounts": [],
        "total_excluding_tax": amount,
        "total_pretax_credit_amounts": [],
        "webhooks_delivered_at": None,
    }
    if account.direct:
        made["charge"] = None
        made["discount"] = None
        made["paid"] = False
        made["paid_out_of_band"] = False
        made["payment_intent"] = None
        made["quote"] = None
        made["subscription"] = sub.id
        made["subscription_details"] = {"metadata": {}}
        made["tax"] = None
        made["total_tax_amounts"] = []
        made["transfer_data"] = None
    else:
        made["amount_overpaid"] = 0
        made["customer_account"] = None
        made["parent"] = {
            "quote_details": None,
            "subscription_details": {"metadata": {}, "subscription": sub.id},
            "type": "subscription_details",
        }
        made["total_taxes"] = []
    return made


def finalized(account: Account, ids: Ids, invoice: Json, at: int, *, number: int, intent: str | None) -> Json:
    """The invoice once it is open. `number` counts the customer's invoices; `intent` will collect it, if anything."""
    mode = "live" if account.livemode else "test"
    link = f"https://invoice.stripe.com/i/acct_{invoice['id'][-16:]}/{mode}_{ids.token(96)}"
    made = {
        **invoice,
        "effective_at": at,
        "hosted_invoice_url": f"{link}?s=ap",
        "invoice_pdf": f"{link}/pdf?s=ap",
        "number": f"{invoice['customer'][-8:].upper()}-{number:04d}",
        "status": "open",
        "status_transitions": {**invoice["status_transitions"], "finalized_at": at},
        "webhooks_delivered_at": at,
    }
    if account.direct:
        made["payment_intent"] = intent
    return made


def settled(account: Account, invoice: Json, at: int, charge: str | None) -> Json:
    """The invoice once it is paid, by `charge` or, where nothing was due, by nothing."""
    made = {
        **invoice,
        "amount_paid": invoice["amount_due"],
        "amount_remaining": 0,
        "attempt_count": invoice["attempt_count"] + (1 if charge else 0),
        "attempted": True,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "paid",
        "status_transitions": {**invoice["status_transitions"], "paid_at": at},
    }
    if account.direct:
        made["charge"] = charge
        made["paid"] = True
    return made


def unpaid(account: Account, invoice: Json, next_attempt: int | None, charge: str) -> Json:
    """The invoice after `charge` failed; `next_attempt` is when Stripe will try again, None for never."""
    made = {
        **invoice,
        "attempt_count": invoice["attempt_count"] + 1,
        "attempted": True,
        "auto_advance": next_attempt is not None,
        "next_payment_attempt": next_attempt,
    }
    if account.direct:
        made["charge"] = charge
    return made


def payment(account: Account, ids: Ids, invoice: Json, at: int, intent: str) -> Json:
    """The link between a paid invoice and the payment intent that paid it; there is none before basil."""
    return {
        "id": ids.long("inpay_1"),
        "object": "invoice_payment",
        "amount_paid": invoice["amount_paid"],
        "amount_requested": invoice["amount_due"],
        "created": invoice["status_transitions"]["finalized_at"],
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": account.livemode,
        "payment": {"payment_intent": intent, "type": "payment_intent"},
        "status": "paid",
        "status_transitions": {"canceled_at": None, "paid_at": at},
    }
