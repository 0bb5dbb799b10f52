"""What a message says, in each form that channels take: a title, and a body short enough for a phone. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from billingwatch.model import SEVERITIES, Incident, Money
from notify.example import EXAMPLES, NIGHT
from notify.telling import Linker, Links, Message, Telling
from notify.template import FORMS, NAMES, SHIPPED, Templates, marked
from notify.wording import clean, happened, money_of, words

REPEATED = "This may have reached you already: its sender was interrupted."
SUMMARY_LENGTH = 3500  # characters of plain text, and of Markdown; a chat takes about 4,000, with the title
LINE_LENGTH = 100  # characters; who has to shorten the text leaves out whole lines
WORST = 5  # of a summary, each in a line of its own


def compose(
    tellings: Sequence[Telling],
    at: datetime,
    zone: tzinfo = UTC,
    *,
    linker: Linker | None = None,
    repeated: bool = False,
    drill: bool = False,
    templates: Templates = SHIPPED,
) -> Message:
    """The message about incidents of one account, the most severe first, as of `at` (aware), with times in `zone`.

    Without a `linker` it offers no answers. `repeated`: it may have arrived before.
    """
    told = [
        words(each, at, zone, linker(each.incident.id) if linker else None, drill=drill)
        for each in sorted(tellings, key=lambda each: -SEVERITIES.index(each.incident.severity))
    ]
    more = f" (+{len(told) - 1} more)" if len(told) > 1 else ""
    seen = {"incidents": told, "several": len(told) > 1, "repeated": REPEATED if repeated else ""}
    return _rendered("alert", told[0].title + more, seen, templates)


def summarise(
    tellings: Sequence[Telling],
    at: datetime,
    zone: tzinfo = UTC,
    *,
    linker: Linker | None = None,
    templates: Templates = SHIPPED,
) -> Message:
    """The one message that stands for many, when a channel has had as many as it may in an hour.

    It names every incident, as far as a chat takes it; the HTML names them all.
    """
    ordered = sorted((each.incident for each in tellings), key=_weight)
    accounts = len({each.tenant for each in ordered})
    by_kind = sorted(Counter(map(happened, ordered)).items(), key=lambda each: (-each[1], each[0]))
    rest = [_compact(each) for each in ordered[WORST:]]
    seen: dict[str, Any] = {
        "count": len(ordered),
        "accounts": accounts,
        "kinds": [f"{what}: {count:,}" for what, count in by_kind],
        "worst": [words(_telling(each, tellings), at, zone) for each in ordered[:WORST]],
        "pages": {each.id: linker(each.id).page for each in ordered[:WORST]} if linker else {},
        "rest": rest,
        "shown": [],
        "more": len(rest),
        "money": money_of(_total(ordered)),
    }
    worst = ordered[0].severity.upper()
    title = f"{len(ordered):,} more incidents on {accounts:,} account{'' if accounts == 1 else 's'}, worst {worst}"
    bare = _rendered("summary", title, seen, templates)
    lines = _fitting(rest, SUMMARY_LENGTH - max(len(bare.text), len(bare.markdown)))
    seen |= {"shown": [", ".join(line) for line in lines], "more": len(rest) - sum(map(len, lines))}
    return _rendered("summary", title, seen, templates)


def sample() -> Message:
    """What a test of a channel sends."""
    return Message(
        "TEST from BillingWatch",
        "This is a test of this channel. Nothing is wrong with your billing, and alerts will arrive here.",
    )


def again(message: Message) -> Message:
    """The message, which says that it may have arrived before."""
    markdown = f"{message.markdown}\n\n{REPEATED}" if message.markdown else ""
    html = f"{message.html}\n<p>{REPEATED}</p>" if message.html else ""
    return Message(message.title, f"{message.text}\n{REPEATED}", markdown, html)


def problems(templates: Templates) -> list[str]:
    """What is wrong with the user's own templates: each is tried with examples."""
    found = templates.strangers()
    some = [Telling(incident=each, reason="first", attached=(each,)) for each in EXAMPLES.values()] * 2
    compose(some, NIGHT, linker=lambda id_: _EXAMPLE_LINKS, repeated=True, templates=templates)
    summarise(some, NIGHT, linker=lambda id_: _EXAMPLE_LINKS, templates=templates)
    found += [f"{name}: {fault}" for name, fault in templates.take_faults().items() if name in NAMES]
    return found


def _rendered(kind: str, title: str, seen: Mapping[str, Any], templates: Templates) -> Message:
    return Message(
        title, **{form: templates.render(f"{kind}.{end}", {**seen, "title": title}) for form, end in FORMS.items()}
    )


def _weight(incident: Incident) -> tuple[int, int, int]:
    """The most severe first, then the one with the most money in one currency."""
    return (
        -SEVERITIES.index(incident.severity),
        -max((money.amount for money in incident.at_risk), default=0),
        incident.id,
    )


def _telling(incident: Incident, tellings: Sequence[Telling]) -> Telling:
    return next(each for each in tellings if each.incident is incident)


def _compact(incident: Incident) -> str:
    over = " (over)" if incident.state == "resolved" else ""
    return f"{incident.id} {clean(incident.detector)} {clean(incident.tenant.account)}{over}"


def _fitting(names: Sequence[str], length: int) -> list[list[str]]:
    """As many of the names as fit, in lines; `length` is that of all, with what Markdown adds."""
    lines: list[list[str]] = []
    used = wide = 0
    for name in names:
        size = len(marked(name)) + 4  # what is between two of them, or two lines
        used += size
        if used > length:
            break
        wide += size
        if not lines or wide > LINE_LENGTH:
            lines.append([])
            wide = size
        lines[-1].append(name)
    return lines


def _total(incidents: Sequence[Incident]) -> list[Money]:
    sums: Counter[str] = Counter()
    for incident in incidents:
        for money in incident.at_risk:
            sums[money.currency] += money.amount
    return [Money(amount, currency) for currency, amount in sums.most_common()]


_EXAMPLE_LINKS = Links("https://example.com/answer/page", {"ack": "https://example.com/answer/ack"})
