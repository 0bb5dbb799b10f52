"""The account that objects belong to, their ids and the envelope of an event. Builds dicts; sends nothing.

Objects have the shape that https://docs.stripe.com/api gives them. Two shapes matter: before 2025-03-31.basil
charges, payment intents, invoices and subscriptions point at each other directly; since then invoice payments
link them and the billing period stands on the subscription's items.
"""

import base64
import random
import string
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from billingwatch.model import THREE_DECIMAL, ZERO_DECIMAL

Json = dict[str, Any]

OLD = "2024-06-20"
BASIL = "2025-03-31.basil"
CURRENT = "2026-10-28.endive"

# Units of a currency without decimals that are worth about a US cent; the others are taken as one, like the yen.
_CENT = {
    "bif": 30,
    "clp": 10,
    "djf": 2,
    "gnf": 85,
    "kmf": 5,
    "krw": 15,
    "mga": 45,
    "pyg": 75,
    "rwf": 15,
    "ugx": 35,
    "vnd": 250,
    "xaf": 6,
    "xof": 6,
}
_SYMBOLS = string.digits + string.ascii_letters + "Zz"  # 64, so that six bits choose one
_PAIRS = [a + b for a in _SYMBOLS for b in _SYMBOLS]  # 12 bits choose two


class Account(Struct, frozen=True):
    """Whose objects are built, and in which shape. `connected` is an `acct_…` id, "" for one's own account."""

    connected: str = ""
    livemode: bool = True
    currency: str = "usd"
    api_version: str = CURRENT
    country: str = "US"

    @property
    def direct(self) -> bool:
        """Whether objects point at each other directly, as they did before 2025-03-31.basil."""
        return self.api_version < BASIL

    @property
    def step(self) -> int:
        """The least amount: Stripe takes amounts of three decimals in tens only."""
        return 10 if self.currency in THREE_DECIMAL else 1

    def whole(self, amount: float) -> int:
        """The amount, in minor units, that can be charged next below this one."""
        return int(amount) // self.step * self.step

    def price(self, cents: int) -> int:
        """A price level of the catalogue in this currency's minor units: 29.00 usd, 2,900 jpy, 8.700 kwd."""
        # Yen are worth about a cent each, dinars about three dollars: the same digits stay a plausible price.
        if self.currency in THREE_DECIMAL:
            return self.whole(cents * 3)
        return cents * _CENT.get(self.currency, 1) if self.currency in ZERO_DECIMAL else cents


class Ids:
    """Ids as Stripe makes them: a prefix, then letters and digits, a part of them the account's own."""

    def __init__(self, rng: random.Random) -> None:
        self._bits = rng.getrandbits
        self._account = self._letters() + self._letters()[:3]

    def _letters(self) -> str:
        bits = self._bits(48)
        return _PAIRS[bits & 4095] + _PAIRS[bits >> 12 & 4095] + _PAIRS[bits >> 24 & 4095] + _PAIRS[bits >> 36]

    def long(self, prefix: str) -> str:
        """`ch_3` becomes 24 letters after the underscore: charges, intents, invoices, subscriptions, events."""
        return prefix + self._letters() + self._account[:7] + self._letters()

    def short(self, prefix: str) -> str:
        """14 letters: customers, products, subscription items, requests."""
        return prefix + self._letters() + self._letters()[:6]

    def token(self, length: int) -> str:
        """Bare letters and digits: secrets of links, fingerprints, the tail of a checkout session's id."""
        return "".join(self._letters() for _ in range(-(-length // 8)))[:length]

    def key(self) -> str:
        """An idempotency key as Stripe's libraries send it: a random UUID."""
        h = f"{self._bits(128):032x}"
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


def event(
    account: Account,
    type: str,
    object: Json,
    created: int,
    *,
    id: str,
    previous: Json | None = None,
    request: str | None = None,
    idempotency_key: str | None = None,
) -> Json:
    """A snapshot event, https://docs.stripe.com/api/events/object.

    `previous` becomes `data.previous_attributes`; a `request` of None means that Stripe acted by itself.
    `account` stands in the event only where a connected account sends it.
    """
    data: Json = {"object": object}
    if previous is not None:
        data["previous_attributes"] = previous
    made: Json = {"id": id, "object": "event"}
    if account.connected:
        made["account"] = account.connected
    made["api_version"] = account.api_version
    made["created"] = created
    made["data"] = data
    made["livemode"] = account.livemode
    made["pending_webhooks"] = 1
    made["request"] = {"id": request, "idempotency_key": idempotency_key}
    made["type"] = type
    return made


def thin(account: Account, type: str, related: Json, created: int, *, id: str, request: str | None = None) -> Json:
    """A thin event, https://docs.stripe.com/api/v2/core/events/object: it names an object and carries none of it.

    `related` is `{"id", "type", "url"}`; `created` (seconds) is written as ISO time, as Stripe does here.
    """
    reason = {"type": "request", "request": {"id": request, "idempotency_key": None}} if request else None
    return {
        "id": id,
        "object": "v2.core.event",
        "type": type,
        "created": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "livemode": account.livemode,
        "context": account.connected or None,
        "reason": reason,
        "related_object": related,
    }


def opaque(ids: Ids, length: int) -> str:
    """The unreadable tail of a hosted link: base64 of random letters."""
    return base64.urlsafe_b64encode(ids.token(length).encode()).decode().rstrip("=")
