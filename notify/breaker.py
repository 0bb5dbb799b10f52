"""What a channel's last deliveries say of it: leave it alone for a while, or tell others that it is broken. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

Result = Literal["sent", "failed", "refused", "unknown"]

WINDOW = timedelta(minutes=5)
LEAST = 10  # deliveries
SHARE = 0.7  # of them that failed
PAUSE = timedelta(minutes=1)  # until one is tried again
IN_A_ROW = 3  # failures without a success
LASTING = timedelta(minutes=1)  # that they last


class Outcome(Struct, frozen=True):
    """How one delivery ended."""

    at: datetime
    result: Result
    error: str = ""


def opened(outcomes: Sequence[Outcome], at: datetime) -> datetime | None:
    """Until when nothing is to be tried, None where the channel works well enough; outcomes ascending by time.

    The breaker opens when 70 % of at least 10 deliveries in 5 minutes failed; after a minute one is tried, and when it
    arrives all is well again.
    """
    recent = [each for each in outcomes if at - each.at <= WINDOW]
    if len(recent) < LEAST or recent[-1].result == "sent":
        return None
    failures = sum(each.result in ("failed", "refused") for each in recent)
    until = recent[-1].at + PAUSE
    return until if failures >= SHARE * len(recent) and until > at else None


def broken(outcomes: Sequence[Outcome], at: datetime) -> str | None:
    """Why people are to be told on other channels; None where there is no need, or not yet. Outcomes ascending."""
    known = [each for each in outcomes if each.result != "unknown"]
    row = known[_successes(known) :]
    if not row:
        return None
    last = row[-1]
    if last.result == "refused":
        return f"{last.error}; trying again is of no use"
    if opened(outcomes, at) or (len(row) >= IN_A_ROW and last.at - row[0].at >= LASTING):
        return f"{last.error}; {len(row)} tries failed in a row"
    return None


def _successes(known: Sequence[Outcome]) -> int:
    """The place after the last success."""
    return next((place for place in range(len(known), 0, -1) if known[place - 1].result == "sent"), 0)
