"""Which channels hear of an incident, and why. Pure: decides, sends nothing.

Routes are asked from the first to the last; the first that matches is taken, and those after it as long as each says
that it goes on. The last one, the default, matches everything.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

from msgspec import Struct

from billingwatch.model import SEVERITIES, Incident
from notify.interval import Times

CONSOLE = "console"
LABELS = ("account", "livemode", "detector", "scope", "severity")
DEFAULT = "default route"
UNROUTED = "no channel configured"

Labels = Mapping[str, str]


class Span(Struct, frozen=True):
    """Parts of the week in a zone of its own, or in the account's where `zone` is ""."""

    times: Times
    zone: str = ""

    def holds(self, at: datetime, zone: tzinfo) -> bool:
        return self.times.holds(at, self._own(zone))

    def over(self, at: datetime, zone: tzinfo) -> datetime | None:
        return self.times.over(at, self._own(zone))

    def _own(self, zone: tzinfo) -> tzinfo:
        return ZoneInfo(self.zone) if self.zone else zone


class Route(Struct, frozen=True, kw_only=True):
    """Incidents whose labels match go to `channels`. A label's patterns: any one must match, none with "!" may."""

    name: str = DEFAULT
    matchers: dict[str, tuple[str, ...]] = {}
    channels: tuple[str, ...] = ()
    go_on: bool = False
    during: Span | None = None  # it matches only then
    quiet: Span | None = None  # what is not critical waits until it is over
    escalate: tuple[str, ...] = ()  # who is told in turn while something critical is not acknowledged
    escalate_after: timedelta = timedelta(minutes=15)
    group_wait: timedelta = timedelta(seconds=30)
    group_interval: timedelta = timedelta(minutes=5)
    repeat_interval: timedelta = timedelta(hours=4)


class Routed(Struct, frozen=True):
    """One channel chosen for an alert, with the reason in words, which the outbox keeps."""

    channel: str
    reason: str
    route: Route = Route()


class Stop(Struct, frozen=True):
    """A route that was asked on the way: whether it matched, and why or why not."""

    route: Route
    matched: bool
    why: str


def labels(incident: Incident) -> dict[str, str]:
    """What routes and silences may ask of an incident."""
    return {
        "account": incident.tenant.account,
        "livemode": "live" if incident.tenant.livemode else "test",
        "detector": incident.detector,
        "scope": incident.scope,
        "severity": incident.severity,
        "incident": str(incident.id),
    }


def accepts(patterns: Sequence[str], value: str) -> bool:
    """Whether the value is one of these: `x`, `acct_*`, `>=high` of severities; `!x` is what it must not be."""
    refused = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    if any(_fits(pattern, value) for pattern in refused):
        return False
    return not wanted or any(_fits(pattern, value) for pattern in wanted)


def refusal(matchers: Mapping[str, Sequence[str]], asked: Labels) -> str:
    """The first label that does not match, in words; "" where all do."""
    for label, patterns in matchers.items():
        if not accepts(patterns, asked.get(label, "")):
            return f"{label} is {asked.get(label, '') or 'empty'}, not {' or '.join(patterns)}"
    return ""


def route(asked: Labels, routes: Sequence[Route], at: datetime, zone: tzinfo) -> tuple[Routed, ...]:
    """The channels that hear of what has these labels, each once, in their order.

    Never empty: with no channel configured the console hears it, so no alert is lost in silence.
    """
    chosen: dict[str, Routed] = {}
    for stop in walk(asked, routes, at, zone):
        if stop.matched:
            for channel in stop.route.channels:
                chosen.setdefault(channel, Routed(channel, stop.why, stop.route))
    return tuple(chosen.values()) or (Routed(CONSOLE, UNROUTED),)


def matched(asked: Labels, routes: Sequence[Route], at: datetime, zone: tzinfo) -> tuple[Route, ...]:
    """The routes that what has these labels takes."""
    return tuple(stop.route for stop in walk(asked, routes, at, zone) if stop.matched)


def walk(asked: Labels, routes: Sequence[Route], at: datetime, zone: tzinfo) -> list[Stop]:
    """Every route that is asked, in order, up to the one at which the way ends."""
    stops = []
    for each in routes:
        why = refusal(each.matchers, asked)
        if not why and each.during is not None and not each.during.holds(at, zone):
            why = f"it is not {each.during.times.text}"
        stops.append(Stop(each, not why, why or _matched(each)))
        if not why and not each.go_on:
            break
    return stops


def _matched(found: Route) -> str:
    said = ", ".join(f"{label} {' or '.join(patterns)}" for label, patterns in found.matchers.items())
    return f"{found.name} ({said})" if said else found.name


def _fits(pattern: str, value: str) -> bool:
    if pattern.startswith(">="):
        least = pattern[2:]
        return value in SEVERITIES and least in SEVERITIES and SEVERITIES.index(value) >= SEVERITIES.index(least)
    return fnmatchcase(value, pattern)
