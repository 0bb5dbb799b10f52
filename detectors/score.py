"""Incidents held against labels: what was found and how fast, what was noise, and what other rules would change.

Pure. It never asks why a label was missed, and a label teaches nobody anything.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import ceil, inf
from statistics import median
from typing import Annotated

from msgspec import Meta, Struct

from billingwatch.model import Incident, Tenant
from detectors import facts
from detectors.backtest import Counts, Finding

GRACE = 3600  # seconds after a label's end in which it may still be found
WEEK = 7 * 86_400
TIERS: dict[str, tuple[float, float]] = {">100": (100, inf), "25–100": (25, 100), "12–25": (12, 25)}  # nats
# By the detector that a label names: whose incidents find it. What fails may look like a tester's cards and the other
# way round; a shop without buyers and a webhook that is silent look alike for a while. Users' rules go by their metric.
FINDS: dict[str, frozenset[str]] = {
    "failure_rate": frozenset({"card_testing", facts.PAYMENT_FAILED}),
    "card_testing": frozenset({"failure_rate", facts.PAYMENT_FAILED, facts.SMALL_FAILED}),
    "refund_spike": frozenset({facts.REFUND}),
    "churn_spike": frozenset({facts.CANCELED}),
    "dispute_spike": frozenset({facts.DISPUTE}),
    "duplicate_charges": frozenset({facts.DUPLICATE}),
    "volume_drop": frozenset({"webhook_silence", facts.PAYMENT_SUCCEEDED}),
    "webhook_silence": frozenset({"volume_drop"}),
    "mrr_drop": frozenset({facts.MRR}),
}

Moment = Annotated[datetime, Meta(tz=True)]


class Label(Struct, frozen=True):
    """Something that happened to an account in [start, end), and the detector that ought to find it.

    `nats` is its evidence, None where nobody weighed it.
    """

    detector: str
    account: str
    start: Moment
    end: Moment
    livemode: bool = True
    nats: float | None = None

    @property
    def tenant(self) -> Tenant:
        return Tenant(self.account, self.livemode)


class Raised(Struct, frozen=True):
    """An incident as it was in the end, and the instants (epoch seconds) at which its detectors joined it."""

    incident: Incident
    joined: dict[str, int]

    @property
    def opened(self) -> float:
        return self.incident.opened_at.timestamp()

    @property
    def resolved(self) -> float:
        """Infinite while it is open."""
        return self.incident.resolved_at.timestamp() if self.incident.resolved_at else inf


class Ledger:
    """The incidents of a stream, finding by finding, in the order in which they opened."""

    def __init__(self) -> None:
        self._raised: dict[tuple[Tenant, int], Raised] = {}

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            incident = finding.incident
            key = incident.tenant, incident.number
            joined = self._raised[key].joined if key in self._raised else {incident.detector: finding.at}
            new = {signal["detector"]: finding.at for signal in incident.evidence.get("signals", ())}
            self._raised[key] = Raised(incident, new | joined)

    @property
    def raised(self) -> list[Raised]:
        return list(self._raised.values())


class Score(Struct, frozen=True):
    """A detector's record. Precision is of incidents, recall of labels; delays are minutes from a label's start."""

    incidents: int
    noise: int  # of them that touch no label
    a_week: float  # noise, by account and week
    labels: int = 0
    found: int = 0
    by_evidence: dict[str, tuple[int, int]] = {}  # found and labels of each of TIERS, where they were weighed
    median: float | None = None
    p90: float | None = None

    @property
    def precision(self) -> float | None:
        """None where there was no incident."""
        return (self.incidents - self.noise) / self.incidents if self.incidents else None

    @property
    def recall(self) -> float | None:
        """None where there was no label."""
        return self.found / self.labels if self.labels else None


def weeks(counts: Counts) -> float:
    """Account-weeks: how long each account's events go on, added up."""
    return sum(seen.last - seen.first for seen in counts.tenants.values()) / WEEK


def touches(raised: Raised, label: Label) -> bool:
    """Whether the incident was open at any time from the label's start to an hour after its end."""
    start, end = label.start.timestamp(), label.end.timestamp() + GRACE
    return raised.incident.tenant == label.tenant and raised.opened <= end and raised.resolved >= start


def delay(label: Label, raised: Iterable[Raised]) -> float | None:
    """Minutes from the label's start to the first sign of a detector that ought to find it; None where none came."""
    start, end = label.start.timestamp(), label.end.timestamp() + GRACE
    found = [
        at
        for each in raised
        if each.incident.tenant == label.tenant
        for name, at in each.joined.items()
        if start <= at <= end and _finds(name, each.incident, label.detector)
    ]
    return (min(found) - start) / 60 if found else None


def score(raised: Sequence[Raised], labels: Sequence[Label], account_weeks: float) -> tuple[dict[str, Score], Score]:
    """The record of each detector, by name, and of all together.

    Incidents go by the detector that opened them, labels by the one that they name. Without labels all is noise.
    """
    noisy = {id(each) for each in raised if not any(touches(each, label) for label in labels)}
    delays = [(label, delay(label, raised)) for label in labels]
    by_detector: Mapping[str, tuple[list[Raised], list[tuple[Label, float | None]]]] = defaultdict(lambda: ([], []))
    for each in raised:
        by_detector[each.incident.detector][0].append(each)
    for label, minutes in delays:
        by_detector[label.detector][1].append((label, minutes))

    def of(some: Sequence[Raised], planted: Sequence[tuple[Label, float | None]]) -> Score:
        noise = sum(id(each) in noisy for each in some)
        found = sorted(minutes for _, minutes in planted if minutes is not None)
        return Score(
            incidents=len(some),
            noise=noise,
            a_week=noise / account_weeks if account_weeks > 0 else float(noise),
            labels=len(planted),
            found=len(found),
            by_evidence=_by_evidence(planted),
            median=median(found) if found else None,
            p90=found[ceil(0.9 * len(found)) - 1] if found else None,
        )

    return {name: of(*by_detector[name]) for name in sorted(by_detector)}, of(raised, delays)


def difference(before: Sequence[Raised], after: Sequence[Raised]) -> tuple[list[Raised], list[Raised]]:
    """What other rules add and what they remove: incidents without a counterpart on the other side.

    Counterparts are of one account, share a detector, and are open at the same time.
    """
    return _without(after, before), _without(before, after)


def _without(some: Iterable[Raised], others: Sequence[Raised]) -> list[Raised]:
    return [each for each in some if not any(_counterparts(each, other) for other in others)]


def _counterparts(one: Raised, other: Raised) -> bool:
    return (
        one.incident.tenant == other.incident.tenant
        and not one.joined.keys().isdisjoint(other.joined)
        and one.opened <= other.resolved
        and other.opened <= one.resolved
    )


def _finds(name: str, incident: Incident, wanted: str) -> bool:
    finds = FINDS.get(wanted, frozenset())
    return name == wanted or name in finds or (name == incident.detector and incident.metric in finds)


def _by_evidence(planted: Iterable[tuple[Label, float | None]]) -> dict[str, tuple[int, int]]:
    weighed = [(label.nats, minutes is not None) for label, minutes in planted if label.nats is not None]
    tiers = {name: [found for nats, found in weighed if low <= nats < high] for name, (low, high) in TIERS.items()}
    return {name: (sum(found), len(found)) for name, found in tiers.items() if found}
