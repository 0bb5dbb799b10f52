"""Write down what is to be told of an incident, to whom and from when on, in the transaction that changed it."""

from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

from psycopg import Connection

from billingwatch.model import Incident, Reason
from billingwatch.store import outbox
from notify.policy import Policy
from notify.route import Routed, labels, route


def stage(
    conn: Connection,
    incident: Incident,
    reason: Reason,
    at: datetime,
    policy: Policy,
    zone: tzinfo | None = None,
    *,
    told: float | None = None,
    apart: str = "",
) -> int:
    """One row of the outbox a channel of its routes; how many.

    `zone` is the account's, the general one where it is not said; `told` the observed value that was told last, where
    any was; `apart` a channel that is not told: where no other is routed, every other one is.

    That it is over is told to whoever was told of it, also where its severity went another way since.
    """
    found = route(labels(incident), policy.routes, at, zone or ZoneInfo(policy.zone))
    routed = {each.channel: each for each in found if each.channel != apart}
    if apart and not routed:
        others = (channel for each in policy.routes for channel in each.channels if channel != apart)
        routed = {channel: Routed(channel, f"told nowhere else than on {apart}", policy.default) for channel in others}
    if reason == "resolved":
        for channel in outbox.channels_of(conn, incident.id):
            routed.setdefault(channel, Routed(channel, "told of it before", policy.default))
    content = None if told is None else {"told": told}
    # What gets worse while its first message waits for others is told in that one, as it is then.
    begins = outbox.begins(conn, incident.id, at) if reason == "worse" else {}
    for each in routed.values():
        soon = at + each.route.group_wait
        due = soon if reason == "first" else min(soon, begins.get(each.channel, at))
        outbox.stage(conn, incident.id, each.channel, reason, each.reason, at, due, content=content)
    return len(routed)
