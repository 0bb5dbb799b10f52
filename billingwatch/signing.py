"""Sign bodies as Stripe signs its webhooks. Verifies nothing: that is the receiver's matter."""

import hashlib
import hmac


def sign(body: bytes, secret: str, timestamp: int) -> str:
    """The value of the `Stripe-Signature` header: `t=<epoch seconds>,v1=<hex of HMAC-SHA256 over "t.body">`.

    https://docs.stripe.com/webhooks#verify-manually
    """
    digest = hmac.digest(secret.encode(), b"%d." % timestamp + body, hashlib.sha256)
    return f"t={timestamp},v1={digest.hex()}"
