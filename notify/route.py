"""Which channels an alert goes to, and why. Pure: decides, sends nothing."""

from collections.abc import Sequence

from msgspec import Struct

from billingwatch.model import Incident, Reason

CONSOLE = "console"


class Routed(Struct, frozen=True):
    """One channel chosen for an alert, with the reason in words, which the outbox keeps."""

    channel: str
    reason: str


def route(incident: Incident, reason: Reason, channels: Sequence[str]) -> tuple[Routed, ...]:
    """The channels that hear of `incident` for `reason`: all of the default route, each once, in their order.

    Never empty: with no channel configured the console hears it, so no alert is lost in silence.
    """
    if not channels:
        return (Routed(CONSOLE, "no channel configured"),)
    return tuple(Routed(channel, "default route") for channel in dict.fromkeys(channels))
