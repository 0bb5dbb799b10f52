"""Who is to be reminded of what is open and not acknowledged: the same channels again, or the next ones. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from billingwatch.model import Incident, Reason
from notify.route import Routed


class Row(Protocol):
    """What the outbox holds of an incident for a channel."""

    @property
    def channel(self) -> str: ...

    @property
    def sent_at(self) -> datetime | None: ...

    @property
    def waiting(self) -> bool:
        """Whether it may be sent yet."""


class Reminder(Struct, frozen=True):
    channel: str
    reason: Reason
    route: str  # why this channel


def remind(incident: Incident, rows: Sequence[Row], routed: Sequence[Routed], at: datetime) -> list[Reminder]:
    """What is to be staged now. Nothing of what is acknowledged, and nothing where something waits already.

    A channel that was told is told again `repeat_interval` after it last was. While something critical is not
    acknowledged, every `escalate_after` the next channel of `escalate` is told, counted from the first alert.
    """
    if incident.state != "open":
        return []
    found = [
        Reminder(each.channel, "repeat", each.reason)
        for each in routed
        if (last := _last(rows, each.channel)) and at - last >= each.route.repeat_interval
    ]
    since = min((row.sent_at for row in rows if row.sent_at), default=None)
    if incident.severity != "critical" or since is None:
        return found
    known = {row.channel for row in rows} | {each.channel for each in found}
    for each in _routes(routed):
        for level, channel in enumerate(each.route.escalate, 1):
            if at - since >= each.route.escalate_after * level and channel not in known:
                known.add(channel)
                why = f"escalation {level} of {each.route.name}: not acknowledged"
                found.append(Reminder(channel, "escalate", why))
    return found


def _last(rows: Sequence[Row], channel: str) -> datetime | None:
    """When the channel was last told; None where it never was, or where something waits for it."""
    own = [row for row in rows if row.channel == channel]
    if any(row.waiting for row in own):
        return None
    return max((row.sent_at for row in own if row.sent_at), default=None)


def _routes(routed: Sequence[Routed]) -> list[Routed]:
    """One of each route."""
    return list({each.route.name: each for each in routed}.values())
