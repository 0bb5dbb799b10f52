"""Few and exact events for tests: whole Stripe objects from the simulator's builders, one at a time."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from billingwatch.model import Incident, Tenant
from billingwatch.queues import Received
from billingwatch.settings import DEFAULT_SOURCE
from billingwatch.simulator import charges, declines, intents, people
from billingwatch.simulator.objects import Account, Ids, Json
from billingwatch.simulator.objects import event as envelope
from billingwatch.store.events import NewEvent

LIVE = Tenant(DEFAULT_SOURCE, True)
TEST = Tenant(DEFAULT_SOURCE, False)
NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
OWN = Account()  # live, US dollars, today's API version

_rng = random.Random(1)
_ids = Ids(_rng)


def event(type: str, object: Json, created: int, *, account: Account = OWN, id: str = "") -> Json:
    """An event about the object, with an id of its own."""
    return envelope(account, type, object, created, id=id or _ids.long("evt_1"))


def charge(created: int, *, account: Account = OWN, failed: bool = False, amount: int = 2900) -> Json:
    """A card charge at the checkout, by a buyer of its own."""
    buyer = people.customer(_rng, _ids, created)
    intent = intents.intent(account, _ids, buyer, amount, created)
    return charges.charge(account, _ids, intent, buyer, created, decline=declines.GENERIC if failed else None)


def paid(created: int, *, account: Account = OWN, amount: int = 2900) -> Json:
    """`charge.succeeded`."""
    return event("charge.succeeded", charge(created, account=account, amount=amount), created, account=account)


def failed(created: int, *, account: Account = OWN, amount: int = 2900) -> Json:
    """`charge.failed`."""
    sale = charge(created, account=account, amount=amount, failed=True)
    return event("charge.failed", sale, created, account=account)


def refunded(created: int, *, account: Account = OWN, amount: int = 2900) -> Json:
    """`refund.created` of a charge of its own."""
    sale = charge(created - 3600, account=account, amount=amount)
    return event("refund.created", charges.refund(_ids, sale, amount, created), created, account=account)


def received(told: Json, *, source: str = DEFAULT_SOURCE, at: float | None = None) -> Received:
    """The event as the receiver enqueues it; it arrived when it was created, unless said otherwise."""
    return Received(source, float(told["created"]) if at is None else at, msgspec.json.encode(told))


def arrived(told: Iterable[Json], **options: Any) -> list[Received]:
    return [*map(partial(received, **options), told)]


def new_event(**changes: Any) -> NewEvent:
    """An event as the store takes it."""
    fields: dict[str, Any] = {
        "tenant": LIVE,
        "id": _ids.long("evt_1"),
        "type": "charge.succeeded",
        "created": int(NOON.timestamp()),
        "api_version": "2026-10-28.endive",
        "object_id": "ch_1",
        "customer": "cus_1",
        "received_at": NOON.timestamp() + 1,
        "body": b'{"id": "evt_1"}',
    }
    return NewEvent(**(fields | changes))


def incident(**changes: Any) -> Incident:
    """An open incident of refunds."""
    fields: dict[str, Any] = {
        "tenant": LIVE,
        "detector": "refund_spike",
        "metric": "refund.created",
        "severity": "high",
        "opened_at": NOON,
        "first_breach_at": NOON,
        "last_breach_at": NOON,
        "observed": 12.0,
        "expected": 0.5,
        "limit": 4.0,
        "peak": 12.0,
        "window": 3600,
        "why": "12 refunds in the last hour; usually 0.5 an hour",
    }
    return Incident(**(fields | changes))
