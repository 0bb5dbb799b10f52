"""Stripe's webhook signature over raw bytes. Answers in a reason; nothing that a sender can do raises.

The scheme is https://docs.stripe.com/webhooks#verify-manually. Stripe's own `verify_header` takes text, one
secret, no cap on the header, and lets a timestamp of next year pass; a test holds the two equal where both speak.
"""

import hmac
from collections.abc import Sequence
from hashlib import sha256

from msgspec import Struct

TOLERANCE = 300  # seconds, both ways
LONGEST = 4096  # bytes of header
MOST = 16  # signatures; Stripe sends one for each secret that is alive
_HEX = 64  # characters of a SHA-256


class Rejected(Struct, frozen=True):
    """Why a delivery is not believed. `reason` is a metric's label and the error code that the sender gets."""

    reason: str


MISSING = Rejected("missing_signature")
MALFORMED = Rejected("malformed_signature")
BAD = Rejected("bad_signature")
STALE = Rejected("stale_signature")


def verify(body: bytes, header: bytes, secrets: Sequence[bytes], now: float) -> Rejected | None:
    """None when any of the secrets signed this body within the tolerance of `now` (epoch seconds)."""
    if not header:
        return MISSING
    if len(header) > LONGEST:
        return MALFORMED
    timestamps, signatures = [], []
    for part in header.split(b","):
        name, _, value = part.partition(b"=")
        if name == b"t":
            timestamps.append(value)
        elif name == b"v1" and len(value) == _HEX:
            signatures.append(value)
    timestamp = timestamps[0] if len(timestamps) == 1 else b""
    if not timestamp.isdigit() or timestamp.startswith(b"0") or len(timestamp) > 12 or len(signatures) > MOST:
        return MALFORMED
    if not signatures:
        return BAD
    signed = timestamp + b"." + body
    # Every secret is tried with every signature, so the time tells nothing of which one was close.
    matches = 0
    for secret in secrets:
        expected = hmac.digest(secret, signed, sha256).hex().encode()
        for signature in signatures:
            matches += hmac.compare_digest(expected, signature)
    if not matches:
        return BAD
    return STALE if abs(now - int(timestamp)) > TOLERANCE else None
