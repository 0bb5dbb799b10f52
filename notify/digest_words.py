"""How a digest reads: short enough for a phone, every currency by itself, times of the account's zone. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from billingwatch.model import OWN, Money
from notify.digest import DAYS, Digest, Figure, Listed, Told, well
from notify.telling import Message
from notify.template import FORMS, Templates
from notify.wording import COLOURS, clean, spell

CURRENCIES = 4  # listed one by one
LEAST = 20  # counts of which a change is told in percent


def write(digest: Digest, templates: Templates) -> Message:
    """The digest's message, with times in its own zone."""
    seen = view(digest)
    return Message(title(digest), **{form: templates.render(f"digest.{end}", seen) for form, end in FORMS.items()})


def title(digest: Digest) -> str:
    """`"Daily digest of acct_1, Mon 9 Mar: 1 incident open, 2 over"`."""
    of = f" of {clean(digest.account)}" if digest.account else ""
    test = "" if digest.livemode else " (TEST MODE)"
    parts = [
        f"{_plural(digest.open_count, 'incident')} open" if digest.open_count else "",
        f"{digest.over_count} over" if digest.over_count else "",
        "" if well(digest) else "BillingWatch is NOT WELL",
    ]
    said = ", ".join(part for part in parts if part) or "no incidents"
    return f"{digest.kind.capitalize()} digest{of}{test}, {_days(digest, short=True)}: {said}"


def view(digest: Digest) -> dict[str, Any]:
    """What the templates show, each thing as a text."""
    zone = ZoneInfo(digest.zone)
    figures = [found for each in digest.figures if (found := _figure(each))]
    before = "a week before" if digest.kind == "daily" else "the week before"
    return {
        "kind": digest.kind,
        "account": digest.account,
        "when": _days(digest),
        "against": before if figures else "",
        "kind_words": {"this": "that day" if digest.kind == "daily" else "that week", "before": before},
        "zone": digest.zone,
        "open": [_incident(each, digest.made_at, zone) for each in digest.open],
        "open_count": f"{digest.open_count:,}",
        "open_more": digest.open_count - len(digest.open),
        "over": [_incident(each, digest.made_at, zone) for each in digest.over],
        "over_count": f"{digest.over_count:,}",
        "over_more": digest.over_count - len(digest.over),
        "figures": figures,
        "noise": [
            f"{each.detector.replace('_', ' ')}: {each.false_alarms} of {_plural(each.incidents, 'incident')}"
            for each in digest.noise
        ],
        "well": well(digest),
        "watch": [*_watch(digest, zone), *(_channel(each) for each in digest.channels)],
    }


def _days(digest: Digest, *, short: bool = False) -> str:
    """`"Mon 9 March 2026"`, `"Mon 2 to Sun 8 March 2026"`; short: `"Mon 9 Mar"`."""
    zone = ZoneInfo(digest.zone)
    first = digest.span.start.astimezone(zone).date()
    last = first + timedelta(days=DAYS[digest.kind] - 1)
    form = "%b" if short else "%B %Y"
    end = f"{last:%a} {last.day} {last:{form}}"
    if first == last:
        return end
    month = "" if (first.month, first.year) == (last.month, last.year) else f" {first:{form}}"
    return f"{first:%a} {first.day}{month} to {end}"


def _incident(each: Listed, at: datetime, zone: ZoneInfo) -> dict[str, str]:
    end = each.resolved_at or at
    own = each.account == OWN.account
    scope = f" ({clean(each.scope)})" if each.scope else ""
    where = " of BillingWatch itself" if own else f" on {clean(each.account)}"
    people = _plural(each.customers, "customer") if each.customers else ""
    return {
        "id": str(each.id),
        "severity": each.severity.upper(),
        "colour": COLOURS[each.severity],
        "what": f"{clean(each.detector.replace('_', ' '))}{scope}{where}",
        "since": _clock(each.opened_at, zone),
        "until": _clock(each.resolved_at, zone, beside=each.opened_at) if each.resolved_at else "",
        "lasted": spell(end - each.opened_at),
        "cost": ", ".join(part for part in (_money(each.at_risk), people) if part),
        "why": clean(each.why, 300) + (" (acknowledged)" if each.state == "acked" else ""),
    }


def _figure(figure: Figure) -> dict[str, str] | None:
    """One line of what was counted; None where nothing was, now or before."""
    if not (figure.count or figure.before or figure.out_of or figure.out_of_before):
        return None
    if figure.out_of is not None:
        value = _rate(figure.count, figure.out_of)
        return {"name": figure.name, "value": value, "before": _rate(figure.before, figure.out_of_before), "change": ""}
    recurring = figure.name.startswith("MRR")
    return {
        "name": figure.name,
        "value": _counted(figure.count, figure.amounts, recurring),
        "before": _counted(figure.before, figure.amounts_before, recurring),
        "change": _change(figure),
    }


def _counted(count: int, amounts: Sequence[Money], recurring: bool) -> str:
    money = _money([Money(abs(each.amount), each.currency) for each in amounts] if recurring else amounts)
    if recurring:
        return money or "0"
    return f"{count:,} for {money}" if money else f"{count:,}"


def _change(figure: Figure) -> str:
    """By how much it grew: in money where it is of one currency, else in number; "" where that says little."""
    now, before = figure.count, figure.before
    if min(now, before) < LEAST:
        return ""
    currencies = {each.currency for each in (*figure.amounts, *figure.amounts_before)}
    if len(currencies) == 1 and figure.amounts and figure.amounts_before:
        now, before = abs(figure.amounts[0].amount), abs(figure.amounts_before[0].amount)
    return f"{100 * (now / before - 1):+.0f} %"


def _rate(count: int, out_of: int | None) -> str:
    return f"{100 * count / out_of:.1f} %, {count:,} of {out_of:,}" if out_of else "none"


def _watch(digest: Digest, zone: ZoneInfo) -> list[str]:
    watch = digest.watch
    last = f"the last event came {_clock(watch.last_event, zone)}" if watch.last_event else "no event ever came"
    lines = [f"{_plural(watch.stored, 'event')} stored, 0 lost; {last}"]
    if watch.held:
        lines.append(
            f"{_plural(watch.held, 'event')} in quarantine, {watch.held_new:,} of them new: "
            "`billingwatch quarantine list` says why"
        )
    if watch.away:
        lines.append("Redis did not answer: queue and workers are unknown")
    elif watch.depth is not None:
        wait = f"{_plural(watch.depth, 'batch', 'batches')} wait in the queue, the oldest for {_wait(watch.waiting)}"
        lines.append(wait if watch.depth else "the queue is empty")
        lines += [f"no `worker {name}` runs" for name in watch.missing or ()]
    return lines


def _channel(told: Told) -> str:
    parts = [
        f"{_plural(told.sent, 'message')} arrived",
        f"{_plural(told.failed, 'try', 'tries')} failed" if told.failed else "",
        f"{_plural(told.given_up, 'alert')} given up" if told.given_up else "",
        f"BROKEN: {clean(told.broken, 120)}" if told.broken else "",
    ]
    return f"channel {clean(told.channel)}: {', '.join(part for part in parts if part)}"


def _money(amounts: Sequence[Money]) -> str:
    """Every currency for itself: two are never added."""
    found = [each for each in amounts if each.amount]
    rest = len(found) - CURRENCIES
    more = f" and {_plural(rest, 'more currency', 'more currencies')}" if rest > 0 else ""
    return " + ".join(str(each) for each in found[:CURRENCIES]) + more


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def _wait(seconds: float | None) -> str:
    return spell(timedelta(seconds=seconds or 0))


def _clock(moment: datetime, zone: ZoneInfo, beside: datetime | None = None) -> str:
    """`"Mon 9 Mar 13:05"`; only the time where it is the same day as `beside`."""
    local = moment.astimezone(zone)
    if beside is not None and beside.astimezone(zone).date() == local.date():
        return f"{local:%H:%M}"
    return f"{local:%a} {local.day} {local:%b %H:%M}"
