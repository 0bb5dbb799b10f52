"""Who is to be reminded of what is open and not acknowledged: the same channels again, or the next ones. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct

from billingwatch.model import Incident, Reason
from notify.route import Route, Routed

NEW = timedelta(minutes=1)  # until then whoever opened it may be telling of it
BROKEN = "channel_broken"  # of which the channel itself, its scope, is told nothing


class Row(Protocol):
    """What the outbox holds of an incident for a channel."""

    @property
    def channel(self) -> str: ...

    @property
    def reason(self) -> Reason: ...

    @property
    def staged_at(self) -> datetime: ...

    @property
    def sent_at(self) -> datetime | None: ...

    @property
    def waiting(self) -> bool:
        """Whether it may be sent yet."""

    @property
    def held(self) -> bool:
        """Whether it was decided to wait with it, or not to tell it."""


class Reminder(Struct, frozen=True):
    channel: str
    reason: Reason
    route: str  # why this channel


def remind(
    incident: Incident, rows: Sequence[Row], routed: Sequence[Routed], routes: Sequence[Route], at: datetime
) -> list[Reminder]:
    """What is to be staged now. Nothing of what is acknowledged, and nothing where something waits already.

    `rows` are all of the incident's, in order; those of before it was over for the last time count for nothing.
    A channel is told again `repeat_interval` after it last was, or could not be. While something critical is not
    acknowledged, every `escalate_after` the next channel of each route's `escalate` is told, counted from the first
    alert, also where its channel was broken.
    """
    if incident.state != "open":
        return []
    rows = _since_it_began(rows)
    found = [
        Reminder(each.channel, "repeat", each.reason)
        for each in routed
        if (last := _last(rows, each.channel)) and at - last >= each.route.repeat_interval
    ]
    if at - incident.opened_at >= NEW and rows:
        # Configured since, or asked only from now on: who is routed now hears of it, too.
        there = {row.channel for row in rows} | ({incident.scope} if incident.detector == BROKEN else set())
        found += [Reminder(each.channel, "first", each.reason) for each in routed if each.channel not in there]
    since = min((row.sent_at or row.staged_at for row in rows if row.sent_at or not row.held), default=None)
    if incident.severity != "critical" or since is None:
        return found
    known = {row.channel for row in rows}
    for route in routes:
        for level, channel in enumerate(route.escalate, 1):
            if at - since >= route.escalate_after * level and channel not in known:
                known.add(channel)
                found.append(Reminder(channel, "escalate", f"escalation {level} of {route.name}: not acknowledged"))
    return found


def _since_it_began(rows: Sequence[Row]) -> Sequence[Row]:
    """Without those of an earlier life."""
    over = [place for place, row in enumerate(rows, 1) if row.reason == "resolved"]
    return rows[over[-1] :] if over else rows


def _last(rows: Sequence[Row], channel: str) -> datetime | None:
    """When the channel was last told, or was to be and could not; None where something waits for it, or nothing was."""
    own = [row for row in rows if row.channel == channel]
    if any(row.waiting for row in own):
        return None
    return max((row.sent_at or row.staged_at for row in own if row.sent_at or not row.held), default=None)
