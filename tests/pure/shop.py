"""The simulated shop that several tests look at: six days, 300 charges a day."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec

from billingwatch.simulator.incidents import parse
from billingwatch.simulator.stream import Scenario, simulate

START = int(datetime(2026, 8, 30, tzinfo=UTC).timestamp())  # a Sunday; the 1st of the month is the third day
HOUR = 3600
DAY = 86_400


def scenario(*incidents: str, **changes: Any) -> Scenario:
    """Six days of a shop with 300 charges a day."""
    facts: dict[str, Any] = {"seed": 5, "start": START, "days": 6, "volume": 300}
    return Scenario(**{**facts, **changes}, incidents=tuple(parse(text) for text in incidents))


@cache
def plain() -> list[dict[str, Any]]:
    """The events of the six days without an incident; not to be changed."""
    return list(simulate(scenario()))


def encoded(wanted: Scenario) -> bytes:
    return b"\n".join(map(msgspec.json.encode, simulate(wanted)))


def counts(events: Iterable[dict[str, Any]], first: int, last: int) -> Counter[str]:
    """Events by type in `[first, last)`, in seconds after the start."""
    return Counter(event["type"] for event in events if START + first <= event["created"] < START + last)


def seen(events: Iterable[dict[str, Any]], type: str) -> list[dict[str, Any]]:
    return [event["data"]["object"] for event in events if event["type"] == type]


def doubles(charges: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Charges to one card over one amount within ten minutes, the first with the second."""
    last: dict[tuple[str, int, str], dict[str, Any]] = {}
    found = []
    for charge in charges:
        card = charge["payment_method_details"]["card"]["fingerprint"]
        before = last.get((card, charge["amount"], charge["currency"]))
        if before and charge["created"] - before["created"] <= 600:
            found.append((before, charge))
        last[card, charge["amount"], charge["currency"]] = charge
    return found
