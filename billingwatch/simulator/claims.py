"""Builders of what comes after and around payments: disputes, fraud warnings, checkout sessions, payouts."""

from billingwatch.simulator.charges import address
from billingwatch.simulator.objects import Account, Ids, Json, opaque
from billingwatch.simulator.people import Customer

_EVIDENCE: Json = {
    "access_activity_log": None,
    "billing_address": None,
    "cancellation_policy": None,
    "cancellation_policy_disclosure": None,
    "cancellation_rebuttal": None,
    "customer_communication": None,
    "customer_email_address": None,
    "customer_name": None,
    "customer_purchase_ip": None,
    "customer_signature": None,
    "duplicate_charge_documentation": None,
    "duplicate_charge_explanation": None,
    "duplicate_charge_id": None,
    "enhanced_evidence": {},
    "product_description": None,
    "receipt": None,
    "refund_policy": None,
    "refund_policy_disclosure": None,
    "refund_refusal_explanation": None,
    "service_date": None,
    "service_documentation": None,
    "shipping_address": None,
    "shipping_carrier": None,
    "shipping_date": None,
    "shipping_documentation": None,
    "shipping_tracking_number": None,
    "uncategorized_file": None,
    "uncategorized_text": None,
}

# reason -> the networks' own reason codes, https://docs.stripe.com/disputes/reason-codes-defense-requirements
NETWORK_REASONS = {
    "fraudulent": {"visa": "10.4", "mastercard": "4837", "amex": "F29"},
    "product_not_received": {"visa": "13.1", "mastercard": "4853", "amex": "C08"},
    "subscription_canceled": {"visa": "13.2", "mastercard": "4853", "amex": "C28"},
    "product_unacceptable": {"visa": "13.3", "mastercard": "4853", "amex": "C31"},
    "duplicate": {"visa": "12.6", "mastercard": "4834", "amex": "P08"},
    "general": {"visa": "10.4", "mastercard": "4837", "amex": "C14"},
}

_SESSION: Json = {
    "id": None,
    "object": "checkout.session",
    "adaptive_pricing": {"enabled": False},
    "after_expiration": None,
    "allow_promotion_codes": None,
    "amount_subtotal": 0,
    "amount_total": 0,
    "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
    "billing_address_collection": "auto",
    "cancel_url": "https://shop.example.com/cart",
    "client_reference_id": None,
    "client_secret": None,
    "collected_information": None,
    "consent": None,
    "consent_collection": None,
    "created": 0,
    "currency": None,
    "currency_conversion": None,
    "custom_fields": [],
    "custom_text": {
        "after_submit": None,
        "shipping_address": None,
        "submit": None,
        "terms_of_service_acceptance": None,
    },
    "customer": None,
    "customer_creation": "if_required",
    "customer_details": None,
    "customer_email": None,
    "discounts": [],
    "expires_at": 0,
    "invoice": None,
    "invoice_creation": {
        "enabled": False,
        "invoice_data": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": None,
            "metadata": {},
            "rendering_options": None,
        },
    },
    "livemode": True,
    "locale": None,
    "metadata": {},
    "mode": "payment",
    "payment_intent": None,
    "payment_link": None,
    "payment_method_collection": "if_required",
    "payment_method_configuration_details": None,
    "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
    "payment_method_types": ["card"],
    "payment_status": "unpaid",
    "phone_number_collection": {"enabled": False},
    "recovered_from": None,
    "saved_payment_method_options": None,
    "setup_intent": None,
    "shipping_address_collection": None,
    "shipping_cost": None,
    "shipping_options": [],
    "status": "open",
    "submit_type": None,
    "subscription": None,
    "success_url": "https://shop.example.com/thanks?session={CHECKOUT_SESSION_ID}",
    "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    "ui_mode": "hosted",
    "url": None,
    "wallet_options": None,
}

DAY = 86_400


def dispute(account: Account, ids: Ids, charge: Json, created: int, *, reason: str, inquiry: bool = False) -> Json:
    """A dispute over the whole charge. An `inquiry` moves no money: its status begins with `warning_`."""
    brand = charge["payment_method_details"]["card"]["brand"]
    codes = NETWORK_REASONS[reason]
    amount = charge["amount"] - charge["amount_refunded"]
    return {
        "id": ids.long("du_1"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [] if inquiry else [_withdrawn(account, ids, amount, created)],
        "charge": charge["id"],
        "created": created,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": _EVIDENCE,
        "evidence_details": {
            "due_by": (created // DAY + 10) * DAY - 1,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": inquiry,
        "livemode": account.livemode,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": brand,
                "case_type": "inquiry" if inquiry else "chargeback",
                "network_reason_code": codes.get(brand, codes["visa"]),
            },
            "type": "card",
        },
        "reason": reason,
        "status": "warning_needs_response" if inquiry else "needs_response",
    }


def _withdrawn(account: Account, ids: Ids, amount: int, created: int) -> Json:
    fee = account.price(1500)
    id = ids.long("txn_1")
    return {
        "id": id,
        "object": "balance_transaction",
        "amount": -amount,
        "available_on": created,
        "created": created,
        "currency": account.currency,
        "description": "Chargeback withdrawal",
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [
            {
                "amount": fee,
                "application": None,
                "currency": account.currency,
                "description": "Dispute fee",
                "type": "stripe_fee",
            }
        ],
        "net": -amount - fee,
        "reporting_category": "dispute",
        "source": None,
        "status": "available",
        "type": "adjustment",
    }


def warning(account: Account, ids: Ids, charge: Json, created: int, fraud_type: str) -> Json:
    """An early fraud warning: the issuer reports the charge as fraud, before or without a dispute."""
    return {
        "id": ids.long("issfr_1"),
        "object": "radar.early_fraud_warning",
        "actionable": not charge["refunded"] and not charge["disputed"],
        "charge": charge["id"],
        "created": created,
        "fraud_type": fraud_type,
        "livemode": account.livemode,
        "payment_intent": charge["payment_intent"],
    }


def session(
    account: Account, ids: Ids, buyer: Customer, amount: int, created: int, *, subscribing: bool = False
) -> Json:
    """An open session of Stripe's hosted checkout, good for a day."""
    id = ("cs_live_a1" if account.livemode else "cs_test_a1") + ids.token(58)
    made = {**_SESSION, "id": id, "amount_subtotal": amount, "amount_total": amount, "created": created}
    made["currency"] = account.currency
    made["customer"] = buyer.id or None
    made["expires_at"] = created + DAY
    made["livemode"] = account.livemode
    made["url"] = f"https://checkout.stripe.com/c/pay/{id}#{opaque(ids, 96)}"
    if not account.direct:
        made["customer_account"] = None
    if subscribing:
        made["mode"] = "subscription"
        made["payment_method_collection"] = "always"
    return made


def completed(session: Json, buyer: Customer, intent: str | None, subscription: str | None = None) -> Json:
    """The session after the buyer paid: by a payment intent, or by the first invoice of a subscription."""
    return {
        **session,
        "customer_details": {
            "address": address(buyer),
            "email": buyer.email,
            "name": buyer.name,
            "phone": None,
            "tax_exempt": "none",
            "tax_ids": [],
        },
        "payment_intent": intent,
        "payment_status": "paid",
        "status": "complete",
        "subscription": subscription,
        "url": None,
    }


def expired(session: Json) -> Json:
    """The session after a day without payment."""
    return {**session, "status": "expired", "url": None}


def payout(account: Account, ids: Ids, amount: int, created: int) -> Json:
    """An automatic payout to the bank, on its way for two days."""
    return {
        "id": ids.long("po_1"),
        "object": "payout",
        "amount": amount,
        "application_fee": None,
        "application_fee_amount": None,
        "arrival_date": (created // DAY + 2) * DAY,
        "automatic": True,
        "balance_transaction": ids.long("txn_1"),
        "created": created,
        "currency": account.currency,
        "description": "STRIPE PAYOUT",
        "destination": ids.long("ba_1"),
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "livemode": account.livemode,
        "metadata": {},
        "method": "standard",
        "original_payout": None,
        "reconciliation_status": "in_progress",
        "reversed_by": None,
        "source_type": "card",
        "statement_descriptor": None,
        "status": "in_transit",
        "type": "bank_account",
    }


def bounced(ids: Ids, payout: Json) -> Json:
    """The payout after the bank refused it."""
    return {
        **payout,
        "failure_balance_transaction": ids.long("txn_1"),
        "failure_code": "account_closed",
        "failure_message": "The bank account has been closed.",
        "status": "failed",
    }
