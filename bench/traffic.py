"""What is sent: distinct events of a simulated account, as Stripe writes and signs them."""

import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from billingwatch.signing import sign
from billingwatch.simulator import objects
from billingwatch.simulator.stream import Scenario, simulate

SECRET = "whsec_bench"  # noqa: S105 - the receivers here are ours
DAYS = 14
_EVENTS_A_CHARGE = 4  # at least: the simulator tells about five events for each charge


def make(path: Path, count: int, seed: int = 1) -> None:
    """Write `count` events of the two weeks up to now, one a line."""
    with path.open("wb") as file:
        file.writelines(msgspec.json.encode(event) + b"\n" for event in _simulated(count, seed))


def _simulated(count: int, seed: int) -> Iterator[dict[str, object]]:
    volume = count / DAYS / _EVENTS_A_CHARGE + 100
    start = int(time.time()) - DAYS * 86_400
    return itertools.islice(simulate(Scenario(seed=seed, start=start, days=DAYS, volume=volume)), count)


def bodies(path: Path, first: int = 0, count: int | None = None) -> list[bytes]:
    """The events from the `first` on, indented as Stripe sends them: about 3 kB each."""
    with path.open("rb") as file:
        lines: Iterable[bytes] = itertools.islice(file, first, None if count is None else first + count)
        return [msgspec.json.format(line.rstrip(), indent=2) for line in lines]


def refund(account: str, number: int) -> bytes:
    """The connected account's refund of this number, created now; "" is the endpoint's own account."""
    now, suffix = int(time.time()), f"{account}{number:04d}"
    refunded = {
        "id": f"re_{suffix}",
        "object": "refund",
        "amount": 4200,
        "charge": f"ch_{suffix}",
        "created": now,
        "currency": "usd",
        "payment_intent": f"pi_{suffix}",
        "reason": "requested_by_customer",
        "status": "succeeded",
    }
    event = objects.event(objects.Account(account), "refund.created", refunded, now, id=f"evt_{suffix}")
    return msgspec.json.format(msgspec.json.encode(event), indent=2)


def post(body: bytes, port: int, path: str = "/webhook", at: float | None = None) -> bytes:
    """The whole HTTP/1.1 request, signed as of `at` (epoch seconds, now where none is given)."""
    signature = sign(body, SECRET, int(time.time() if at is None else at))
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        "user-agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"
        f"content-type: application/json; charset=utf-8\r\ncontent-length: {len(body)}\r\n"
        f"stripe-signature: {signature}\r\n\r\n"
    ).encode() + body
