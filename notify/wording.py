"""The words of one incident: what happened, since when, what it costs and why, each as a line of its own. Pure.

Refuses personal data: the text is made of numbers, times, Stripe ids and the detector's own sentence,
and what looks like an e-mail address or a card number in that sentence is struck out.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any

from msgspec import Struct

from billingwatch.model import OWN, Incident, Money, Reason, Tenant, utc
from notify.telling import Links, Telling
from notify.vocabulary import DETECTORS, METRICS, OURS, TODO

DASHBOARD = "https://dashboard.stripe.com"
WHY_LENGTH = 300  # characters
MOSTLY_LENGTH = 160  # characters
NAME_LENGTH = 60  # characters
COLOURS = {"low": "#9aa5b1", "medium": "#e0a100", "high": "#e0651b", "critical": "#c62828"}  # of severities
CURRENCIES = 4  # listed one by one; a phone shows no more
ATTACHED = 3
HOUR = 3600  # seconds
SHORTEST = 300  # seconds; what a minute brought says little about the hour

# Its number is a time, whatever it counts.
_ABSENCE = "webhook_silence"
# Its number is a share; a user's rule may well be called "refund_rate" and count.
_SHARE = "failure_rate"

_ACCOUNT = re.compile(r"acct_[A-Za-z0-9]{1,64}")
_ID = re.compile(r"[a-z]{2,8}_[A-Za-z0-9_]{1,100}")
_SCOPE = re.compile(r"[A-Za-z0-9_.:+-]{1,64}")
_CURRENCY = re.compile(r"[a-z]{3}")  # a scope of this shape: money is judged, and numbers are its minor units
_EMAIL = re.compile(r"[^\s@<>(),;:\"]+(?:@|%40)[^\s@<>(),;:\"]+", re.IGNORECASE)
_CARD = re.compile(r"(?<!\w)\d(?:[ .-]?\d){12,}")  # 13 digits or more: no count or amount of ours is written so


class Act(Struct, frozen=True):
    """Something that a reader can do, or look at: what it is called, and its address."""

    label: str
    url: str


class Wording(Struct, frozen=True, kw_only=True):
    """One incident as a message tells it; what there is nothing to say of is empty."""

    id: int
    severity: str
    colour: str  # of its severity, as HTML has it
    title: str
    note: str  # that it is a test or a drill
    why: str  # observed against expected, in plain words
    mostly: str  # what the excess has in common
    before: str  # what changed just before it
    worse: str
    back: str  # that it was over and has come back
    since: str  # or how long it lasted
    nobody: str  # that it is not acknowledged
    concerns: str
    cost: str  # money at risk so far and per hour, customers
    explains: str  # what is not told on its own, since this explains it
    first: str  # what to do first
    stripe: str  # the address of the list in Stripe's dashboard
    objects: tuple[Act, ...]  # examples in Stripe's dashboard
    acts: tuple[Act, ...]  # answers; each address works once
    page: str  # the address of the page that offers them all

    @property
    def lines(self) -> tuple[str, ...]:
        """What there is to say in plain words, in order, addresses apart."""
        told = (
            self.note,
            self.why,
            self.mostly,
            self.before,
            self.back,
            self.worse,
            self.since,
            self.nobody,
            self.concerns,
            self.cost,
            self.explains,
            self.first,
        )
        return tuple(line for line in told if line)


ACTS = {
    "ack": "Acknowledge",
    "snooze_1h": "Snooze 1 h",
    "snooze_1d": "Snooze 1 day",
    "expected": "Expected",
    "false_alarm": "False alarm",
}


def words(telling: Telling, at: datetime, zone: tzinfo, links: Links | None = None, *, drill: bool = False) -> Wording:
    """The words of what is told as of `at` (aware), with times in `zone`; without `links` it offers no answers."""
    incident, reason = telling.incident, telling.reason
    own = incident.tenant == OWN
    answers = links.acts if links and reason != "resolved" else {}
    return Wording(
        id=incident.id,
        severity=incident.severity,
        colour=COLOURS[incident.severity],
        title=_title(incident, reason, at, drill=drill),
        note=_note(reason, drill=drill),
        why=clean(incident.why, WHY_LENGTH),
        mostly=_mostly(incident),
        before=_before(incident),
        worse=_worse(incident, telling.told) if reason == "worse" else "",
        back="It was over, and has come back." if reason == "first" and telling.told is not None else "",
        since=_over(incident, at, zone) if reason == "resolved" else _since(incident, at, zone),
        nobody=_nobody(incident, reason, at),
        concerns=_concerns(incident),
        cost=_cost(incident, at, "In all" if reason == "resolved" else "At risk"),
        explains=_explains(telling.attached),
        first=_first(incident, reason),
        stripe="" if own else link(incident.tenant, incident.metric),
        objects=() if own else _objects(incident),
        acts=tuple(Act(label, answers[act]) for act, label in ACTS.items() if act in answers),
        page=links.page if links else "",
    )


def link(tenant: Tenant, metric: str) -> str:
    """The page of Stripe's dashboard that lists what `metric` counts, in the tenant's account and mode."""
    page = next((page for prefix, _, page in METRICS if metric.startswith(prefix)), "events")
    return f"{_dashboard(tenant)}/{page}"


def _dashboard(tenant: Tenant) -> str:
    account = f"/{tenant.account}" if _ACCOUNT.fullmatch(tenant.account) else ""
    return f"{DASHBOARD}{account}{'' if tenant.livemode else '/test'}"


def spell(span: timedelta) -> str:
    """A duration as people say it: "45 s", "5 min", "2 h 5 min", "3 d 4 h". Below zero counts as zero."""
    seconds = max(0, int(span.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60 % 60, seconds // 3600 % 24, seconds // 86400
    if days:
        parts = [f"{days} d", f"{hours} h" if hours else ""]
    else:
        parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]
    return " ".join(part for part in parts if part)


def clean(text: str, length: int = NAME_LENGTH) -> str:
    """`text` on one line of at most `length` characters, without control characters, e-mail addresses, card numbers."""
    line = " ".join("".join(" " if unicodedata.category(c).startswith(("C", "Z")) else c for c in text).split())
    line = _CARD.sub("[number]", _EMAIL.sub("[address]", line))
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def _title(incident: Incident, reason: Reason, at: datetime, *, drill: bool) -> str:
    severity = incident.severity.upper()
    lead = {
        "repeat": f"STILL OPEN, {severity}",
        "worse": f"WORSE, {severity}",
        "escalate": f"ESCALATED, {severity}",
        "resolved": "RESOLVED",
        "test": f"TEST, {severity}",
    }.get(reason, severity)
    lead = f"DRILL, {lead}" if drill else lead
    if incident.tenant == OWN and incident.detector in OURS:
        return f"{lead}: {OURS[incident.detector].format(clean(incident.scope))}"
    where = clean(incident.tenant.account) + ("" if incident.tenant.livemode else " (TEST MODE)")
    figure = _figure(incident, reason, at)
    return f"{lead}: {happened(incident)} on {where}" + (f": {figure}" if figure else "")


def _note(reason: Reason, *, drill: bool) -> str:
    if drill:
        return "This is a drill: nothing is wrong."
    return "This is a test: nothing is wrong." if reason == "test" else ""


def _nobody(incident: Incident, reason: Reason, at: datetime) -> str:
    if incident.state != "open":
        return ""
    if reason == "escalate":
        return f"Nobody has acknowledged it for {spell(at - incident.opened_at)}, so you are told, too."
    return "Nobody has acknowledged it yet." if reason == "repeat" else ""


def _concerns(incident: Incident) -> str:
    told = _SCOPE.fullmatch(incident.scope) and not _currency(incident) and incident.tenant != OWN
    return f"Concerns {clean(incident.scope)}" if told else ""


def _explains(attached: Sequence[Incident]) -> str:
    """What is held back because of this one."""
    told = [f"{happened(each)} on {clean(each.tenant.account)}" for each in attached[:ATTACHED]]
    more = f" and {len(attached) - ATTACHED} more" if len(attached) > ATTACHED else ""
    return f"Explains: {', '.join(told)}{more}" if told else ""


def _first(incident: Incident, reason: Reason) -> str:
    """What somebody who was woken may begin with."""
    todo = TODO.get(incident.detector, "") if reason in ("first", "repeat", "escalate") else ""
    return f"First: {todo}" if todo else ""


def _before(incident: Incident) -> str:
    """What changed just before: `Just before: deploy "v2.31" 12 min earlier`."""
    onset = incident.first_breach_at
    told = []
    for each in incident.evidence.get("changes", ()):
        name = clean(str(each["name"]))
        what = f'deploy "{name}"' if each["what"] == "deploy" else f"{each['what']} {name} {each['how']}".rstrip()
        told.append(f"{what} {spell(onset - utc(each['at']))} earlier")
    return f"Just before: {'; '.join(told)}" if told else ""


def _objects(incident: Incident) -> tuple[Act, ...]:
    """Examples, each on its own page of Stripe's dashboard."""
    found = [each for each in incident.evidence.get("objects", ()) if _ID.fullmatch(each["id"])]
    return tuple(Act(each["kind"], f"{_dashboard(incident.tenant)}/{each['kind']}s/{each['id']}") for each in found)


def happened(incident: Incident) -> str:
    """What happened, without where and how much: "refund spike"."""
    if incident.tenant == OWN and incident.detector in OURS:
        return OURS[incident.detector].format(clean(incident.scope))
    if incident.detector in DETECTORS:
        return DETECTORS[incident.detector]
    metric = clean(incident.metric)
    things = next((things for prefix, things, _ in METRICS if metric.startswith(prefix)), _words(metric))
    return f"{_words(clean(incident.detector))} of {things}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace(".", " ")


def _figure(incident: Incident, reason: Reason, at: datetime) -> str:
    if incident.detector == _ABSENCE:
        span = _end(incident, at) - incident.first_breach_at
        return f"for {spell(span)}" if span >= timedelta(minutes=1) else ""
    if reason == "resolved":
        return _peak(incident)
    observed, expected = _number(incident, incident.observed), _number(incident, incident.expected)
    return f"{observed}, usually {expected}" if observed and expected else observed


def _number(incident: Incident, value: float) -> str:
    """`value` as people read it; "" where it is no number, and of our own incidents, whose sentence says of what."""
    if not math.isfinite(value) or incident.tenant == OWN:
        return ""
    if incident.detector == _SHARE:
        return f"{_short(100 * value)} %"
    currency = _currency(incident)
    return str(Money(round(value), currency)) if currency else _short(value)


def _currency(incident: Incident) -> str:
    """The currency that the incident's numbers are of; "" where events are counted, and of a channel called `ops`."""
    return incident.scope if _CURRENCY.fullmatch(incident.scope) and incident.tenant != OWN else ""


def _peak(incident: Incident) -> str:
    """The worst there was: of a drop the lowest."""
    peak = _number(incident, incident.peak)
    word = "lowest" if incident.peak < incident.expected else "peak"
    return f"{word} {peak}" if peak else ""


def _mostly(incident: Incident) -> str:
    """What the excess has in common: `"Mostly: decline code do_not_honor (28 of 31)"`."""
    found = [_shared(each) for each in incident.evidence.get("contributors", ())]
    return clean(f"Mostly: {', '.join(found)}", MOSTLY_LENGTH) if found else ""


def _shared(contributor: Mapping[str, Any]) -> str:
    usual = contributor["usual"]
    beside = "" if usual is None else f"; else {_short(100 * usual)} %"
    count = f"{contributor['count']:,} of {contributor['total']:,}"
    return f"{contributor['dimension']} {clean(contributor['value'])} ({count}{beside})"


def _short(value: float) -> str:
    if abs(value) >= 10 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}".removesuffix(".0")


def _worse(incident: Incident, told: float | None) -> str:
    now = _number(incident, incident.observed)
    if told is not None and math.isfinite(told) and now:
        return f"Worse: from {_number(incident, told)} to {now}"
    return f"Worse: now {now}" if now else ""


def _since(incident: Incident, at: datetime, zone: tzinfo) -> str:
    start = incident.first_breach_at
    return f"Since {_clock(start, at, zone)} ({spell(at - start)})"


def _over(incident: Incident, at: datetime, zone: tzinfo) -> str:
    start, end = incident.first_breach_at, _end(incident, at)
    peak = "" if incident.detector == _ABSENCE else _peak(incident)
    span = f"Over after {spell(end - start)}: {_clock(start, end, zone)} to {_clock(end, at, zone)}"
    return f"{span}, {peak}" if peak else span


def _end(incident: Incident, at: datetime) -> datetime:
    return incident.resolved_at or at


def _clock(moment: datetime, beside: datetime, zone: tzinfo) -> str:
    """The local time, with its date only where it is another day than `beside`."""
    local = moment.astimezone(zone)
    day = "" if local.date() == beside.astimezone(zone).date() else f"{local:%Y-%m-%d} "
    return f"{day}{local:%H:%M %Z}"


def _cost(incident: Incident, at: datetime, lead: str) -> str:
    count = incident.customers
    people = f"{count:,} customer{'' if count == 1 else 's'}" if count > 0 else ""
    money = money_of(incident.at_risk)
    hourly = "" if incident.state == "resolved" else money_of(_hourly(incident, at))
    parts = [f"{money} ({hourly} an hour)" if money and hourly else money, people]
    said = ", ".join(part for part in parts if part)
    return f"{lead}: {said}" if said else ""


def _hourly(incident: Incident, at: datetime) -> list[Money]:
    """What the money is in an hour, in whole minor units; nothing where it is an hour's already.

    It is that of the window that opened the incident, of which what came before the onset is no part.
    """
    lasted = max(SHORTEST, int((at - incident.first_breach_at).total_seconds()))
    span = max(1, min(incident.window, lasted))
    return [] if span == HOUR else [Money(each.amount * HOUR // span, each.currency) for each in incident.at_risk]


def money_of(amounts: Sequence[Money]) -> str:
    """Every currency for itself: two are never added."""
    told = [money for money in amounts if money.amount]
    rest = len(told) - CURRENCIES
    more = f" and {rest} more currenc{'y' if rest == 1 else 'ies'}" if rest > 0 else ""
    return " + ".join(str(money) for money in told[:CURRENCIES]) + more
