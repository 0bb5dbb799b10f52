"""Why a payment fails: the codes, words and weights of card declines. https://docs.stripe.com/declines/codes"""

from msgspec import Struct

from billingwatch.simulator.people import Weighted


class Decline(Struct, frozen=True):
    """One way for a charge to fail, as the failed charge and the payment intent's last error tell it."""

    code: str  # failure_code of the charge
    decline_code: str
    message: str
    advice: str | None  # Stripe's advice_code: whether to try again
    network_code: str | None  # the network's own two digits
    network_advice: str | None = None
    type: str = "issuer_declined"
    reason: str = ""  # outcome.reason, where it is not the decline code
    risk_level: str = "normal"


_DECLINED = "Your card was declined."

GENERIC = Decline("card_declined", "generic_decline", _DECLINED, "try_again_later", "05")
INSUFFICIENT = Decline(
    "card_declined", "insufficient_funds", "Your card has insufficient funds.", "try_again_later", "51", "02"
)
EXPIRED = Decline("expired_card", "expired_card", "Your card has expired.", "confirm_card_data", "54", "01")
CVC = Decline("incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect.", "confirm_card_data", "N7")
NUMBER = Decline(
    "incorrect_number", "invalid_account", "Your card number is incorrect.", "confirm_card_data", "14", "01"
)
STOLEN = Decline("card_declined", "stolen_card", _DECLINED, "do_not_try_again", "43", "03")
RISKY = Decline(
    "card_declined",
    "fraudulent",
    _DECLINED,
    None,
    None,
    type="blocked",
    reason="highest_risk_level",
    risk_level="highest",
)
PROCESSING = Decline(
    "processing_error",
    "processing_error",
    "An error occurred while processing your card. Try again in a little bit.",
    "try_again_later",
    "96",
)

# Shares as card-not-present merchants see them; a checkout sees more mistyped and suspicious cards than a renewal.
CHECKOUT: Weighted[Decline] = Weighted(
    {
        GENERIC: 0.30,
        INSUFFICIENT: 0.27,
        Decline("card_declined", "do_not_honor", _DECLINED, "try_again_later", "05"): 0.12,
        CVC: 0.09,
        NUMBER: 0.05,
        EXPIRED: 0.03,
        Decline("card_declined", "transaction_not_allowed", _DECLINED, "try_again_later", "57"): 0.04,
        RISKY: 0.06,
        STOLEN: 0.01,
        PROCESSING: 0.03,
    }
)
RENEWAL: Weighted[Decline] = Weighted(
    {
        INSUFFICIENT: 0.44,
        GENERIC: 0.2,
        Decline("card_declined", "do_not_honor", _DECLINED, "try_again_later", "05"): 0.14,
        EXPIRED: 0.12,
        Decline("card_declined", "lost_card", _DECLINED, "do_not_try_again", "41", "03"): 0.05,
        PROCESSING: 0.05,
    }
)
TESTING: Weighted[Decline] = Weighted(
    {GENERIC: 0.34, CVC: 0.24, NUMBER: 0.16, RISKY: 0.12, INSUFFICIENT: 0.08, STOLEN: 0.06}
)
OUTAGE: Weighted[Decline] = Weighted({GENERIC: 0.55, PROCESSING: 0.45})
