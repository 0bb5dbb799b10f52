"""Builders of charges and refunds, and of what they share with other objects: addresses, the tie to an invoice.

Each takes the account and facts and gives a whole object. They decide nothing; of chance they draw only ids.
Amounts are minor units, times are epoch seconds.
"""

from billingwatch.simulator.declines import Decline
from billingwatch.simulator.objects import Account, Ids, Json
from billingwatch.simulator.people import Card, Customer

_NO_ADDRESS: Json = {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}
_CHECKS: Json = {"address_line1_check": None, "address_postal_code_check": "pass", "cvc_check": "pass"}
_REPEAT_CHECKS: Json = {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": None}

_CHARGE: Json = {
    "id": None,
    "object": "charge",
    "amount": 0,
    "amount_captured": 0,
    "amount_refunded": 0,
    "application": None,
    "application_fee": None,
    "application_fee_amount": None,
    "balance_transaction": None,
    "billing_details": None,
    "calculated_statement_descriptor": "EXAMPLE STORE",
    "captured": False,
    "created": 0,
    "currency": None,
    "customer": None,
    "description": None,
    "destination": None,
    "dispute": None,
    "disputed": False,
    "failure_balance_transaction": None,
    "failure_code": None,
    "failure_message": None,
    "fraud_details": {},
    "livemode": True,
    "metadata": {},
    "on_behalf_of": None,
    "order": None,
    "outcome": None,
    "paid": False,
    "payment_intent": None,
    "payment_method": None,
    "payment_method_details": None,
    "radar_options": {},
    "receipt_email": None,
    "receipt_number": None,
    "receipt_url": None,
    "refunded": False,
    "review": None,
    "shipping": None,
    "source": None,
    "source_transfer": None,
    "statement_descriptor": None,
    "statement_descriptor_suffix": None,
    "status": "failed",
    "transfer_data": None,
    "transfer_group": None,
}

_CARD: Json = {
    "amount_authorized": 0,
    "authorization_code": None,
    "brand": None,
    "checks": _CHECKS,
    "country": None,
    "exp_month": 0,
    "exp_year": 0,
    "extended_authorization": {"status": "disabled"},
    "fingerprint": None,
    "funding": None,
    "incremental_authorization": {"status": "unavailable"},
    "installments": None,
    "last4": None,
    "mandate": None,
    "multicapture": {"status": "unavailable"},
    "network": None,
    "network_token": {"used": False},
    "network_transaction_id": None,
    "overcapture": {"maximum_amount_capturable": 0, "status": "unavailable"},
    "regulated_status": "unregulated",
    "three_d_secure": None,
    "wallet": None,
}

_SECURE: Json = {
    "authentication_flow": "challenge",
    "electronic_commerce_indicator": "05",
    "exemption_indicator": None,
    "result": "authenticated",
    "result_reason": None,
    "transaction_id": "3f0c2a51-9f0e-4a57-8f4e-5f2a7f2f9a10",
    "version": "2.2.0",
}

_AUTHORIZED: Json = {
    "advice_code": None,
    "network_advice_code": None,
    "network_decline_code": None,
    "network_status": "approved_by_network",
    "reason": None,
    "risk_level": "normal",
    "risk_score": 12,
    "seller_message": "Payment complete.",
    "type": "authorized",
}


def address(customer: Customer) -> Json:
    """Where the customer lives, as `address` of Stripe's objects."""
    place = customer.place
    return {
        "city": place.city,
        "country": place.country,
        "line1": place.line1,
        "line2": None,
        "postal_code": place.postal_code,
        "state": place.state,
    }


def billing(customer: Customer) -> Json:
    """`billing_details` of a charge or payment method."""
    return {
        "address": address(customer),
        "email": customer.email,
        "name": customer.name,
        "phone": None,
        "tax_id": None,
    }


def shipping(customer: Customer) -> Json:
    """`shipping` of an intent and its charges: goods go where the customer lives."""
    return {
        "address": address(customer),
        "carrier": None,
        "name": customer.name,
        "phone": None,
        "tracking_number": None,
    }


def tie(account: Account, made: Json, invoice: str | None) -> Json:
    """How a charge or an intent names its invoice: a field of old; since basil only a hint in payment_details."""
    if account.direct:
        made["invoice"] = invoice
    elif invoice:
        made["payment_details"] = {"customer_reference": None, "order_reference": invoice}
    return made


def charge(
    account: Account,
    ids: Ids,
    intent: Json,
    buyer: Customer,
    created: int,
    *,
    invoice: str | None = None,
    decline: Decline | None = None,
    secure: bool = False,
    description: str | None = None,
) -> Json:
    """One attempt to take the intent's amount from the buyer's card: succeeded, or failed by `decline`.

    `secure` says that the bank's 3D Secure challenge was passed. The balance transaction is still unknown, as it
    is in `charge.succeeded` of asynchronous captures, Stripe's default.
    """
    id = ids.long("ch_3")
    amount = intent["amount"]
    made = {**_CHARGE, "id": id, "amount": amount, "created": created, "currency": account.currency}
    made["billing_details"] = billing(buyer)
    made["customer"] = intent["customer"]
    made["description"] = description
    made["livemode"] = account.livemode
    made["metadata"] = intent["metadata"]
    made["payment_intent"] = intent["id"]
    made["payment_method"] = buyer.card.method
    made["payment_method_details"] = {
        "card": _details(ids, buyer.card, amount, invoice=invoice, secure=secure, decline=decline),
        "type": "card",
    }
    made["receipt_email"] = intent["receipt_email"]
    made["shipping"] = intent["shipping"]
    if decline is None:
        made["amount_captured"] = amount
        made["captured"] = made["paid"] = True
        made["outcome"] = _AUTHORIZED
        made["receipt_url"] = f"https://pay.stripe.com/receipts/payment/{ids.token(104)}"
        made["status"] = "succeeded"
    else:
        made["failure_code"] = decline.code
        made["failure_message"] = decline.message
        made["outcome"] = _refused(decline)
    return tie(account, made, invoice)


def _details(ids: Ids, card: Card, amount: int, *, invoice: str | None, secure: bool, decline: Decline | None) -> Json:
    made = {**_CARD, "amount_authorized": None if decline else amount, "brand": card.brand, "country": card.country}
    if decline is None:
        made["authorization_code"] = ids.token(6)
        made["overcapture"] = {"maximum_amount_capturable": amount, "status": "unavailable"}
    made["checks"] = _REPEAT_CHECKS if invoice else _CHECKS
    if decline is not None and decline.code == "incorrect_cvc":
        made["checks"] = {**_CHECKS, "cvc_check": "fail"}
    made["exp_month"] = card.exp_month
    made["exp_year"] = card.exp_year
    made["fingerprint"] = card.fingerprint
    made["funding"] = card.funding
    made["last4"] = card.last4
    made["network"] = card.brand
    made["network_transaction_id"] = ids.token(15)
    made["three_d_secure"] = _SECURE if secure else None
    return made


def _refused(decline: Decline) -> Json:
    blocked = decline.type == "blocked"
    return {
        "advice_code": decline.advice,
        "network_advice_code": decline.network_advice,
        "network_decline_code": decline.network_code,
        "network_status": "not_sent_to_network" if blocked else "declined_by_network",
        "reason": decline.reason or decline.decline_code,
        "risk_level": decline.risk_level,
        "risk_score": 91 if blocked else 34,
        "seller_message": "Stripe blocked this payment as too risky."
        if blocked
        else "The bank did not return any further details with this decline.",
        "type": decline.type,
    }


def refund(ids: Ids, charge: Json, amount: int, created: int, reason: str | None = "requested_by_customer") -> Json:
    """One refund of `amount`; the charge's own cumulated total is `refunded`'s matter."""
    return {
        "id": ids.long("re_3"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": ids.long("txn_3"),
        "charge": charge["id"],
        "created": created,
        "currency": charge["currency"],
        "destination_details": {
            "card": {
                "reference": None,
                "reference_status": "pending",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }


def refunded(ids: Ids, charge: Json, amount: int) -> tuple[Json, Json]:
    """The charge after one more refund of `amount`, and what it was before: `(charge, previous_attributes)`."""
    total = charge["amount_refunded"] + amount
    previous: Json = {"amount_refunded": charge["amount_refunded"]}
    made = {
        **charge,
        "amount_refunded": total,
        "balance_transaction": charge["balance_transaction"] or ids.long("txn_3"),
    }
    if total == charge["amount"]:
        previous["refunded"] = False
        made["refunded"] = True
    if charge["receipt_url"]:
        previous["receipt_url"] = charge["receipt_url"]
        made["receipt_url"] = f"https://pay.stripe.com/receipts/payment/{ids.token(104)}"
    return made, previous
