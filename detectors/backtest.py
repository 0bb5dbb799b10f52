"""What would have been told: the same facts, counts, judgement and steps as live, over a stream of events.

Every event is visible from its arrival on, every minute is judged. Streamed: memory does not grow with the stream.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from msgspec import Struct

from billingwatch.model import Fact, Incident, Reason, Tenant
from detectors import facts
from detectors.event import Event
from detectors.facts import UnknownShape, read_facts
from detectors.filter import Filter
from detectors.forecast import HOUR
from detectors.judgement import Spans
from detectors.memory import Crowd, Memory
from detectors.registry import Plans
from detectors.strip import Strip
from detectors.tally import charges, claims, payments, tally
from detectors.watch import MINUTE, Told, Watch

# Whom an incident affects: the customers of these metrics.
_AFFECTED = {
    "failure_rate": facts.PAYMENT_FAILED,
    "card_testing": facts.PAYMENT_FAILED,
    "refund_spike": facts.REFUND,
    "churn_spike": facts.CANCELED,
    "mrr_drop": facts.CANCELED,
}
_METRICS = frozenset(_AFFECTED.values())


class Arrival(Struct, frozen=True):
    """An event and when it arrived, epoch seconds."""

    event: Event
    received: int


class Finding(Struct, frozen=True):
    """An incident as it is from `at` on (epoch seconds); `reason` is what people are told, None where nothing."""

    at: int
    incident: Incident
    reason: Reason | None


class Seen(Struct):
    """The oldest and the newest `created` of one tenant's events, epoch seconds."""

    first: int
    last: int


class Counts(Struct):
    """What the stream held."""

    events: int = 0
    duplicates: int = 0
    unparsed: int = 0
    tenants: dict[Tenant, Seen] = {}

    @property
    def first(self) -> int:
        """The oldest `created`, epoch seconds; 0 where there was none."""
        return min((seen.first for seen in self.tenants.values()), default=0)

    @property
    def last(self) -> int:
        """The newest one."""
        return max((seen.last for seen in self.tenants.values()), default=0)


Observe = Callable[[Tenant, int, Strip], None]  # sees the strip of each UTC hour that is over


class _Account:
    """One tenant's watch and memory, and the events that arrived since the last judged minute."""

    def __init__(
        self,
        tenant: Tenant,
        plans: Plans,
        created: int,
        minute: int,
        expected: Spans,
        seen: Seen,
        observe: Observe | None,
    ) -> None:
        self.memory = Memory()
        self.crowd = Crowd()
        self.seen = seen
        plan = plans.of(tenant.account, tenant.livemode)
        see = partial(observe, tenant) if observe else None
        self.watch = Watch(tenant, plan, created // HOUR, expected=expected, affected=self._affected, observe=see)
        self.next = minute  # the first minute that was not judged yet
        self.pending: list[tuple[Event, int]] = []

    def judge(self, until: int, filters: tuple[Filter, ...], counts: Counts) -> list[Told]:
        """Count what is pending, then judge every minute up to `until`, that one included."""
        if self.pending:
            self._count(filters, counts)
        told = self.watch.judge(self.next, until)
        self.next = max(self.next, until + MINUTE)
        return told

    def _count(self, filters: tuple[Filter, ...], counts: Counts) -> None:
        told: list[facts.Told] = []
        for event, received in self.pending:
            try:
                here = read_facts(event, received)
            except UnknownShape:
                counts.unparsed += 1
                continue
            told += here
            self.watch.arrive(received, event.created)
            if event.customer:
                for fact in here:
                    metric = fact.metric if isinstance(fact, Fact) else facts.REFUND
                    if metric in _METRICS:
                        self.crowd.add(metric, event.created, event.customer)
        fresh = self.memory.claim(claims(told, filters), self.next)
        recent = self.memory.paid(payments(told, fresh))
        grown = tally(told, fresh, self.memory.refunds(charges(told)), recent, filters)
        self.memory.keep(grown.refunds, grown.paid, self.next)
        self.watch.add(grown.buckets)
        self.pending.clear()

    def _affected(self, detector: str, start: int, end: int) -> int:
        return self.crowd.count(_AFFECTED.get(detector, ""), start, end)


class Trial:
    """A stream under one set of plans, event by event, so that several plans may see one reading of it.

    `name` is the account of events that name none, `expected` are spans that people announced. `counts` is kept
    current; `observe` sees each hour as it was judged.
    """

    def __init__(
        self,
        plans: Plans,
        name: str = "default",
        *,
        counts: Counts | None = None,
        expected: Mapping[Tenant, Spans] | None = None,
        observe: Observe | None = None,
    ) -> None:
        self.counts = Counts() if counts is None else counts
        self._plans, self._name, self._expected, self._observe = plans, name, expected or {}, observe
        self._accounts: dict[Tenant, _Account] = {}
        self._minute = 0

    def take(self, arrival: Arrival) -> Sequence[Finding]:
        """What live would have told before this event was seen. Events ascend by `received`; one that does not is
        taken as received when it comes.
        """
        event, received = arrival.event, max(arrival.received, self._minute - MINUTE + 1)
        found: Sequence[Finding] = ()
        if received > self._minute:
            arrives = -(-received // MINUTE) * MINUTE  # the first minute that sees it
            found = self._judge(arrives - MINUTE)
            self._minute = arrives
        self.counts.events += 1
        tenant = Tenant(event.account or self._name, event.livemode)
        account = self._accounts.get(tenant) or self._meet(tenant, event.created)
        seen = account.seen
        seen.first, seen.last = min(seen.first, event.created), max(seen.last, event.created)
        if account.memory.first_seen(event.id, received):
            account.pending.append((event, received))
        else:
            self.counts.duplicates += 1
        return found

    def end(self) -> Sequence[Finding]:
        """What the last minute tells, and what is open then as it is."""
        last = self._judge(self._minute)
        lasting = [each for account in self._accounts.values() for each in account.watch.lasting(self._minute)]
        return [*last, *(Finding(each.at, each.incident, each.reason) for each in lasting)]

    def _meet(self, tenant: Tenant, created: int) -> _Account:
        seen = self.counts.tenants.setdefault(tenant, Seen(created, created))
        spans = self._expected.get(tenant, ())
        account = _Account(tenant, self._plans, created, self._minute, spans, seen, self._observe)
        self._accounts[tenant] = account
        return account

    def _judge(self, until: int) -> list[Finding]:
        filters = self._plans.filters
        told = [each for account in self._accounts.values() for each in account.judge(until, filters, self.counts)]
        return [Finding(each.at, each.incident, each.reason) for each in sorted(told, key=lambda each: each.at)]


def backtest(
    arrivals: Iterable[Arrival],
    plans: Plans,
    name: str = "default",
    *,
    counts: Counts | None = None,
    expected: Mapping[Tenant, Spans] | None = None,
) -> Iterator[Finding]:
    """What live would have told, in order of time; the arguments are those of a trial."""
    trial = Trial(plans, name, counts=counts, expected=expected)
    for arrival in arrivals:
        yield from trial.take(arrival)
    yield from trial.end()


def incidents(findings: Iterable[Finding]) -> list[Incident]:
    """Each incident as it was in the end, in the order in which they opened."""
    found: dict[tuple[Tenant, int], Incident] = {}
    for finding in findings:
        incident = finding.incident
        found[incident.tenant, incident.number] = incident
    return list(found.values())
