"""What a backtest found, for people and for programs. It decides nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from billingwatch.model import described, utc
from detectors.backtest import Counts
from detectors.score import TIERS, Label, Raised, Score, touches

KEYS = (
    "detector metric account livemode scope severity opened_at first_breach_at resolved_at observed expected limit"
    " money_at_risk customers why"
).split()


def summary(counts: Counts, unparsed: int, account_weeks: float, seconds: float) -> str:
    """What was read, in one line."""
    if not counts.events:
        return f"No events; {unparsed} unparsed."
    return (
        f"{counts.events:,} events of {_many(len(counts.tenants), 'account')}, {utc(counts.first):%Y-%m-%d %H:%M} to "
        f"{utc(counts.last):%Y-%m-%d %H:%M} ({account_weeks:.2f} account-weeks); {counts.duplicates:,} duplicates, "
        f"{unparsed:,} unparsed; {seconds:.1f} s"
    )


def as_json(
    counts: Counts, unparsed: int, raised: Sequence[Raised], seconds: float, scores: Mapping[str, Score] | None
) -> dict[str, Any]:
    """The one object that `--json` prints; scores by detector only where there were labels."""
    found: dict[str, Any] = {
        "events": counts.events,
        "duplicates": counts.duplicates,
        "unparsed": unparsed,
        "from": _moment(counts.first),
        "to": _moment(counts.last),
        "seconds": round(seconds, 1),
        "incidents": incidents(raised),
    }
    return found if scores is None else {**found, "scores": {name: _score(each) for name, each in scores.items()}}


def incidents(raised: Sequence[Raised]) -> list[dict[str, Any]]:
    """As programs see them."""
    shown = [described(each.incident) for each in raised]
    return [{key: each[key] for key in KEYS} for each in shown]


def scored(scores: Mapping[str, Score], *, labelled: bool, title: str = "detector") -> Table:
    """A row a detector, or a set of rules; columns of labels only where there were any."""
    table = Table(box=None, pad_edge=False)
    tiers = [tier for tier in TIERS if any(tier in each.by_evidence for each in scores.values())]
    table.add_column(title, no_wrap=True)
    for name in ("incidents", "noise", "a week"):
        table.add_column(name, justify="right")
    if labelled:
        for name in ("precision", "labels", "recall", *tiers, "delay", "p90"):
            table.add_column(name, justify="right")
    for name, each in scores.items():
        cells = [str(each.incidents), str(each.noise), f"{each.a_week:.2f}"]
        if labelled:
            by_evidence = [each.by_evidence.get(tier) for tier in tiers]
            cells += [_share(each.precision), str(each.labels), _share(each.recall)]
            cells += [f"{some[0]} of {some[1]}" if some else "-" for some in by_evidence]
            cells += [_minutes(each.median), _minutes(each.p90)]
        table.add_row(name, *cells)
    return table


def listed(raised: Sequence[Raised], labels: Sequence[Label] | None) -> Table:
    """A row an incident; with labels, whether it touches one."""
    table = Table(box=None, pad_edge=False)
    for title in ("opened", "for", "severity", "account", "detector", *(["is"] if labels is not None else []), "what"):
        table.add_column(title, overflow="fold", no_wrap=title not in {"what", "account"})
    for each in raised:
        incident = each.incident
        judged = []
        if labels is not None:
            judged = ["true" if any(touches(each, label) for label in labels) else "noise"]
        table.add_row(
            f"{incident.opened_at:%Y-%m-%d %H:%M}",
            _lasting(each),
            incident.severity,
            incident.tenant.account + ("" if incident.tenant.livemode else " (test)"),
            incident.detector + (f" +{len(each.joined) - 1}" if len(each.joined) > 1 else ""),
            *judged,
            incident.why,
        )
    return table


def _score(score: Score) -> dict[str, Any]:
    return {
        "incidents": score.incidents,
        "noise": score.noise,
        "noise_per_account_week": round(score.a_week, 4),
        "precision": _rounded(score.precision),
        "labels": score.labels,
        "found": score.found,
        "recall": _rounded(score.recall),
        "recall_by_nats": {tier.replace("–", "-"): _rounded(k / n) for tier, (k, n) in score.by_evidence.items()},
        "delay_minutes": {"median": score.median, "p90": score.p90},
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"


def _minutes(minutes: float | None) -> str:
    return "-" if minutes is None else f"{minutes:.0f} min"


def _lasting(raised: Raised) -> str:
    if raised.incident.resolved_at is None:
        return "open"
    minutes = round((raised.resolved - raised.opened) / 60)
    return f"{minutes // 60}h{minutes % 60:02}m" if minutes >= 60 else f"{minutes}m"


def _moment(seconds: int) -> str | None:
    return utc(seconds).isoformat().replace("+00:00", "Z") if seconds else None


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
