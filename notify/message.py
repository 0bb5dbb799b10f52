"""What an alert says: a title and a body short enough for a phone. Pure.

Refuses personal data: the text is made of numbers, times, Stripe ids and the detector's own sentence,
and what looks like an e-mail address or a card number in that sentence is struck out.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from msgspec import Struct

from billingwatch.model import Incident, Money, Reason, Tenant

DASHBOARD = "https://dashboard.stripe.com"
WHY_LENGTH = 300  # characters
MOSTLY_LENGTH = 160  # characters
NAME_LENGTH = 60  # characters
CURRENCIES = 4  # listed one by one; a phone shows no more

# What happened, by detector; where it is not listed, the metric speaks.
_DETECTORS = {
    "failure_rate": "payments failing",
    "card_testing": "card testing",
    "refund_spike": "refund spike",
    "churn_spike": "cancellation spike",
    "dispute_spike": "dispute spike",
    "volume_drop": "fewer payments than usual",
    "duplicate_charges": "duplicate charges",
    "webhook_silence": "no webhooks from Stripe",
    "webhook_lag": "webhooks arriving late",
    "pipeline_lag": "BillingWatch is behind",
    "revenue_drop": "revenue drop",
    "mrr_drop": "MRR drop",
}
# Their number is a time, whatever they count.
_ABSENCES = frozenset({"webhook_silence", "pipeline_lag"})
# Its number is a share; a user's rule may well be called "refund_rate" and count.
_SHARE = "failure_rate"

# Prefix of a metric -> (what there are too many of, the list in Stripe's dashboard). The first that fits wins.
_METRICS = (
    ("payment.failed", "failed payments", "payments?status%5B0%5D=failed"),
    ("fail", "failed payments", "payments?status%5B0%5D=failed"),
    ("small_fail", "small failed payments", "payments?status%5B0%5D=failed"),
    ("refund", "refunds", "payments?status%5B0%5D=refunded"),
    ("dispute", "disputes", "disputes"),
    ("early_fraud_warning", "early fraud warnings", "radar"),
    ("cancel", "cancellations", "subscriptions?status=canceled"),
    ("subscription.cancel", "cancellations", "subscriptions?status=canceled"),
    ("subscription", "subscriptions", "subscriptions"),
    ("trial", "trials", "subscriptions"),
    ("mrr", "MRR", "subscriptions"),
    ("invoice", "invoices", "invoices"),
    ("payout", "payouts", "payouts"),
    ("revenue", "revenue", "payments"),
    ("payment", "payments", "payments"),
    ("charge", "charges", "payments"),
    ("attempt", "payment attempts", "payments"),
    ("success", "successful payments", "payments"),
    ("dup", "duplicate charges", "payments"),
    ("checkout", "checkouts", "payments"),
    ("webhook", "webhooks", "webhooks"),
    ("late", "late webhooks", "webhooks"),
    ("event", "events", "events"),
    ("any", "events", "events"),
)

_ACCOUNT = re.compile(r"acct_[A-Za-z0-9]{1,64}")
_SCOPE = re.compile(r"[A-Za-z0-9_.:+-]{1,64}")
_CURRENCY = re.compile(r"[a-z]{3}")  # a scope of this shape: money is judged, and numbers are its minor units
_EMAIL = re.compile(r"[^\s@<>(),;:\"]+(?:@|%40)[^\s@<>(),;:\"]+", re.IGNORECASE)
_CARD = re.compile(r"(?<!\w)\d(?:[ .-]?\d){12,}")  # 13 digits or more: no count or amount of ours is written so


class Message(Struct, frozen=True):
    """What a channel is given: one line of title, a few lines of body, plain text."""

    title: str
    body: str


def compose(incident: Incident, reason: Reason, at: datetime, zone: tzinfo = UTC, told: float | None = None) -> Message:
    """The message about `incident` for `reason`, as of `at` (aware), with times in `zone`.

    `told` is the observed value that the last alert told, which "worse" compares with; of what is told first it is
    None, unless the incident had ended before.
    """
    lines = [
        "This is a test: nothing is wrong." if reason == "test" else "",
        clean(incident.why, WHY_LENGTH),
        _mostly(incident),
        "It was over, and has come back." if reason == "first" and told is not None else "",
        _worse(incident, told) if reason == "worse" else "",
        _over(incident, at, zone) if reason == "resolved" else _since(incident, at, zone),
        "Nobody has acknowledged it yet." if reason == "repeat" and incident.state == "open" else "",
        f"Concerns {clean(incident.scope)}" if _SCOPE.fullmatch(incident.scope) and not _currency(incident) else "",
        _cost(incident, "In all" if reason == "resolved" else "At risk"),
        f"In Stripe: {link(incident.tenant, incident.metric)}",
    ]
    return Message(_title(incident, reason, at), "\n".join(line for line in lines if line))


def link(tenant: Tenant, metric: str) -> str:
    """The page of Stripe's dashboard that lists what `metric` counts, in the tenant's account and mode."""
    page = next((page for prefix, _, page in _METRICS if metric.startswith(prefix)), "events")
    account = f"/{tenant.account}" if _ACCOUNT.fullmatch(tenant.account) else ""
    return f"{DASHBOARD}{account}{'' if tenant.livemode else '/test'}/{page}"


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


def _title(incident: Incident, reason: Reason, at: datetime) -> str:
    severity = incident.severity.upper()
    lead = {
        "first": severity,
        "repeat": f"STILL OPEN, {severity}",
        "worse": f"WORSE, {severity}",
        "resolved": "RESOLVED",
        "test": f"TEST, {severity}",
    }[reason]
    where = clean(incident.tenant.account) + ("" if incident.tenant.livemode else " (TEST MODE)")
    figure = _figure(incident, reason, at)
    return f"{lead}: {_happened(incident)} on {where}" + (f": {figure}" if figure else "")


def _happened(incident: Incident) -> str:
    if incident.detector in _DETECTORS:
        return _DETECTORS[incident.detector]
    metric = clean(incident.metric)
    things = next((things for prefix, things, _ in _METRICS if metric.startswith(prefix)), _words(metric))
    return f"{_words(clean(incident.detector))} of {things}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace(".", " ")


def _figure(incident: Incident, reason: Reason, at: datetime) -> str:
    if incident.detector in _ABSENCES:
        span = _end(incident, at) - incident.first_breach_at
        return f"for {spell(span)}" if span >= timedelta(minutes=1) else ""
    if reason == "resolved":
        return _peak(incident)
    observed, expected = _number(incident, incident.observed), _number(incident, incident.expected)
    return f"{observed}, usually {expected}" if observed and expected else observed


def _number(incident: Incident, value: float) -> str:
    """`value` as people read it; "" where it is no number."""
    if not math.isfinite(value):
        return ""
    if incident.detector == _SHARE:
        return f"{_short(100 * value)} %"
    currency = _currency(incident)
    return str(Money(round(value), currency)) if currency else _short(value)


def _currency(incident: Incident) -> str:
    """The currency that the incident's numbers are of; "" where events are counted."""
    return incident.scope if _CURRENCY.fullmatch(incident.scope) else ""


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
    peak = "" if incident.detector in _ABSENCES else _peak(incident)
    span = f"Over after {spell(end - start)}: {_clock(start, end, zone)} to {_clock(end, at, zone)}"
    return f"{span}, {peak}" if peak else span


def _end(incident: Incident, at: datetime) -> datetime:
    return incident.resolved_at or at


def _clock(moment: datetime, beside: datetime, zone: tzinfo) -> str:
    """The local time, with its date only where it is another day than `beside`."""
    local = moment.astimezone(zone)
    day = "" if local.date() == beside.astimezone(zone).date() else f"{local:%Y-%m-%d} "
    return f"{day}{local:%H:%M %Z}"


def _cost(incident: Incident, lead: str) -> str:
    count = incident.customers
    people = f"{count:,} customer{'' if count == 1 else 's'}" if count > 0 else ""
    parts = [part for part in (_sum(incident.at_risk), people) if part]
    return f"{lead}: {', '.join(parts)}" if parts else ""


def _sum(amounts: Sequence[Money]) -> str:
    """Every currency for itself: two are never added."""
    told = [money for money in amounts if money.amount]
    rest = len(told) - CURRENCIES
    more = f" and {rest} more currenc{'y' if rest == 1 else 'ies'}" if rest > 0 else ""
    return " + ".join(str(money) for money in told[:CURRENCIES]) + more
