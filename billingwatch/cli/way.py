"""The way that an alert with given labels would take through the routes. Sends nothing, asks no server."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo

import click

from billingwatch.cli.start import load_rules
from billingwatch.model import SEVERITIES
from billingwatch.settings import DEFAULT_SOURCE
from notify.policy import Policy
from notify.route import LABELS, Route, route, walk

DEFAULTS = {"account": DEFAULT_SOURCE, "livemode": "live", "detector": "", "scope": "", "severity": "medium"}


def print_way(text: str, at: datetime, as_json: bool) -> None:
    """Print every route that is asked, what it answers, and who is told when. Raises UsageError for wrong labels."""
    asked = read_labels(text)
    rules, plans, policy = load_rules()
    zone = ZoneInfo(plans.of(asked["account"], asked["livemode"] == "live").calendar.zone)
    found = described(asked, policy, at, zone)
    for each in found["channels"]:
        channel = rules.channels.get(each["channel"])
        each["messages_an_hour"] = (channel.budget if channel else None) or policy.budget
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    labels = ", ".join(f"{label} {value}" for label, value in asked.items() if value)
    click.echo(f"An alert of {labels}, at {at.astimezone(zone):%a %Y-%m-%d %H:%M %Z}:")
    for stop in found["asked"]:
        click.echo(f"  {stop['route']}: {'yes' if stop['matched'] else 'no'}, {stop['why']}{stop['then']}")
    click.echo("\nIs told to:")
    for each in found["channels"]:
        click.echo("\n".join(_lines(each)))


def read_labels(text: str) -> dict[str, str]:
    """`"severity=critical,account=acct_1"`; what is left out is as in DEFAULTS. Raises UsageError."""
    found = dict(DEFAULTS)
    for part in filter(None, (part.strip() for part in text.split(","))):
        label, sign, value = part.partition("=")
        if label not in LABELS or not sign:
            close = get_close_matches(label, LABELS, 1)
            hint = f"is {close[0]} meant?" if close and sign else f"labels: {', '.join(LABELS)}"
            raise click.UsageError(f"{part!r} is no LABEL=VALUE ({hint})")
        found[label] = value
    found["livemode"] = {"true": "live", "false": "test"}.get(found["livemode"], found["livemode"])
    if found["severity"] not in SEVERITIES or found["livemode"] not in ("live", "test"):
        raise click.UsageError(f"severity is one of {', '.join(SEVERITIES)}, livemode live or test")
    return found


def described(asked: Mapping[str, str], policy: Policy, at: datetime, zone: tzinfo) -> dict[str, Any]:
    """The way as JSON shows it."""
    stops = walk(asked, policy.routes, at, zone)
    return {
        "labels": dict(asked),
        "at": at.isoformat(),
        "asked": [
            {
                "route": stop.route.name,
                "matched": stop.matched,
                "why": stop.why,
                "then": "; goes on" if stop.matched and stop.route.go_on else "",
            }
            for stop in stops
        ],
        "channels": [
            {"channel": each.channel, "why": each.reason, **_timing(each.route, asked["severity"], at, zone)}
            for each in route(asked, policy.routes, at, zone)
        ],
    }


def _timing(found: Route, severity: str, at: datetime, zone: tzinfo) -> dict[str, Any]:
    held = found.quiet is not None and severity != "critical" and found.quiet.holds(at, zone)
    over = found.quiet.over(at, zone) if held and found.quiet else None
    return {
        "held_by_quiet_hours_until": over.astimezone(zone).isoformat() if over else None,
        "group_wait": _spell(found.group_wait),
        "group_interval": _spell(found.group_interval),
        "repeat_interval": _spell(found.repeat_interval),
        "escalate": list(found.escalate) if severity == "critical" else [],
        "escalate_after": _spell(found.escalate_after),
    }


def _lines(each: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {each['channel']}, by {each['why']}"
    if each["held_by_quiet_hours_until"]:
        yield f"    quiet hours: held until {each['held_by_quiet_hours_until']}"
    yield (
        f"    {each['group_wait']} after it opened, with what opens meanwhile; updates every {each['group_interval']}; "
        f"again after {each['repeat_interval']} without an answer; {each['messages_an_hour']} messages an hour"
    )
    for level, channel in enumerate(each["escalate"], 1):
        yield f"    not acknowledged for {level} x {each['escalate_after']}: {channel}"


def _spell(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
