"""Builders of payment intents, from creation to success or failure. Amounts are minor units, times epoch seconds."""

from billingwatch.simulator.charges import billing, tie
from billingwatch.simulator.declines import Decline
from billingwatch.simulator.objects import Account, Ids, Json
from billingwatch.simulator.people import Customer

_CHECKS: Json = {"address_line1_check": None, "address_postal_code_check": "pass", "cvc_check": "pass"}

_INTENT: Json = {
    "id": None,
    "object": "payment_intent",
    "amount": 0,
    "amount_capturable": 0,
    "amount_details": {"tip": {}},
    "amount_received": 0,
    "application": None,
    "application_fee_amount": None,
    "automatic_payment_methods": None,
    "canceled_at": None,
    "cancellation_reason": None,
    "capture_method": "automatic_async",
    "client_secret": None,
    "confirmation_method": "automatic",
    "created": 0,
    "currency": None,
    "customer": None,
    "description": None,
    "last_payment_error": None,
    "latest_charge": None,
    "livemode": True,
    "metadata": {},
    "next_action": None,
    "on_behalf_of": None,
    "payment_method": None,
    "payment_method_configuration_details": None,
    "payment_method_options": {
        "card": {
            "installments": None,
            "mandate_options": None,
            "network": None,
            "request_three_d_secure": "automatic",
        },
        "link": {"persistent_token": None},
    },
    "payment_method_types": ["card", "link"],
    "processing": None,
    "receipt_email": None,
    "review": None,
    "setup_future_usage": None,
    "shipping": None,
    "source": None,
    "statement_descriptor": None,
    "statement_descriptor_suffix": None,
    "status": "requires_payment_method",
    "transfer_data": None,
    "transfer_group": None,
}


def intent(
    account: Account, ids: Ids, buyer: Customer, amount: int, created: int, *, invoice: str | None = None
) -> Json:
    """A payment intent before its first attempt. `invoice` is the invoice it pays; None for a checkout."""
    id = ids.long("pi_3")
    made = {**_INTENT, "id": id, "amount": amount, "created": created, "currency": account.currency}
    made["client_secret"] = f"{id}_secret_{ids.token(25)}"
    made["customer"] = buyer.id or None
    made["livemode"] = account.livemode
    made["receipt_email"] = buyer.email
    if not account.direct:
        made["customer_account"] = None
        made["excluded_payment_method_types"] = None
    return tie(account, made, invoice)


def paid(intent: Json, charge: Json) -> Json:
    """The intent after the charge succeeded."""
    return {
        **intent,
        "amount_received": charge["amount"],
        "latest_charge": charge["id"],
        "payment_method": charge["payment_method"],
        "status": "succeeded",
    }


def failed(intent: Json, charge: Json, buyer: Customer, decline: Decline) -> Json:
    """The intent after the charge failed by `decline`."""
    error = {
        "advice_code": decline.advice,
        "charge": charge["id"],
        "code": decline.code,
        "decline_code": decline.decline_code,
        "doc_url": f"https://stripe.com/docs/error-codes/{decline.code.replace('_', '-')}",
        "message": decline.message,
        "network_decline_code": decline.network_code,
        "payment_method": method(intent, buyer),
        "type": "card_error",
    }
    return {**intent, "last_payment_error": error, "latest_charge": charge["id"]}


def unauthenticated(intent: Json, buyer: Customer) -> Json:
    """The intent after the buyer failed the bank's 3D Secure challenge: there is an error and no charge."""
    code = "payment_intent_authentication_failure"
    error = {
        "code": code,
        "doc_url": f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}",
        "message": "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new "
        "PaymentMethod to attempt to fulfill this PaymentIntent again.",
        "payment_method": method(intent, buyer),
        "type": "invalid_request_error",
    }
    return {**intent, "last_payment_error": error}


def challenged(intent: Json, buyer: Customer) -> Json:
    """The intent while the buyer's bank asks for 3D Secure: `payment_intent.requires_action`."""
    action = {
        "type": "use_stripe_sdk",
        "use_stripe_sdk": {"type": "three_d_secure_redirect", "directory_server_name": buyer.card.brand},
    }
    return {**intent, "next_action": action, "payment_method": buyer.card.method, "status": "requires_action"}


def method(intent: Json, buyer: Customer) -> Json:
    """The payment method as an intent's last error carries it, whole."""
    card = buyer.card
    return {
        "id": card.method,
        "object": "payment_method",
        "allow_redisplay": "limited",
        "billing_details": billing(buyer),
        "card": {
            "brand": card.brand,
            "checks": _CHECKS,
            "country": card.country,
            "display_brand": card.brand,
            "exp_month": card.exp_month,
            "exp_year": card.exp_year,
            "fingerprint": card.fingerprint,
            "funding": card.funding,
            "generated_from": None,
            "last4": card.last4,
            "networks": {"available": [card.brand], "preferred": None},
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": intent["created"],
        "customer": intent["customer"],
        "livemode": intent["livemode"],
        "metadata": {},
        "type": "card",
    }
