"""What would have been told: the same facts, counts, judgement and steps as live, over a stream of events.

Every event is visible from its arrival on, every minute is judged. Streamed: memory does not grow with the stream.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from billingwatch.model import RefundBook, Tenant
from detectors import catalogue
from detectors.calendar import Calendar
from detectors.event import Event
from detectors.facts import ANY, Told, UnknownShape, read_facts
from detectors.judgement import Detector
from detectors.life import Change
from detectors.tally import charges, claims, tally
from detectors.watch import Watch

MINUTE, HOUR = 60, 3600
UTC = Calendar()
GENERATION = 7 * 86_400  # seconds; what was claimed is remembered for one to two of them


class Arrival(Struct, frozen=True):
    """An event and when it arrived, epoch seconds."""

    event: Event
    received: int


class Finding(Struct, frozen=True):
    """A change of one tenant's incidents."""

    tenant: Tenant
    change: Change


class Memory:
    """What was claimed and refunded of late. A generation after nobody asked, it is forgotten."""

    def __init__(self) -> None:
        self._born = 0
        self._claimed: tuple[set[str], set[str]] = (set(), set())
        self._refunds: tuple[dict[str, RefundBook], dict[str, RefundBook]] = ({}, {})

    def claim(self, keys: set[str], at: int) -> set[str]:
        """The keys never claimed before, claimed now."""
        if at - self._born >= GENERATION:
            self._born = at
            self._claimed = (set(), self._claimed[0])
            self._refunds = ({}, self._refunds[0])
        fresh = keys - self._claimed[0] - self._claimed[1]
        self._claimed[0].update(fresh)
        return fresh

    def refunds(self, ids: set[str]) -> dict[str, RefundBook]:
        young, old = self._refunds
        return {id_: young.get(id_) or old[id_] for id_ in ids if id_ in young or id_ in old}

    def keep(self, book: Mapping[str, RefundBook]) -> None:
        self._refunds[0].update(book)


class _Account:
    """One tenant's watch and memory, and the facts that arrived since the last judged minute."""

    def __init__(self, watch: Watch, first: int) -> None:
        self.watch = watch
        self.memory = Memory()
        self.next = first  # the first minute that was not judged yet
        self.pending: list[tuple[list[Told], int, int]] = []

    def judge(self, until: int) -> list[Change]:
        """Count what is pending, then judge every minute up to `until`, that one included."""
        if self.pending:
            told = [each for facts, _, _ in self.pending for each in facts]
            fresh = self.memory.claim(claims(told), self.next)
            for facts, created, received in self.pending:
                if any(getattr(each, "metric", "") == ANY and getattr(each, "claim", "") in fresh for each in facts):
                    self.watch.arrive(received, created)
            buckets, book = tally(told, fresh, self.memory.refunds(charges(told)))
            self.memory.keep(book)
            self.watch.add(buckets)
            self.pending.clear()
        changes = self.watch.judge(self.next, until)
        self.next = max(self.next, until + MINUTE)
        return changes


def backtest(
    arrivals: Iterable[Arrival],
    name: str = "default",
    *,
    calendar: Calendar = UTC,
    detectors: Mapping[str, Detector] = catalogue.DETECTORS,
    unparsed: Callable[[Event], None] = lambda event: None,
) -> Iterator[Finding]:
    """The changes that live would have made, in order of time. `arrivals` ascend by `received`.

    `name` is the account of events that name none. Events whose object is unreadable go to `unparsed`.
    """
    accounts: dict[Tenant, _Account] = {}
    minute = 0
    for arrival in arrivals:
        event, received = arrival.event, max(arrival.received, minute - MINUTE + 1)
        if received > minute:
            arrives = -(-received // MINUTE) * MINUTE  # the first minute that sees it
            yield from _judge(accounts, arrives - MINUTE)
            minute = arrives
        tenant = Tenant(event.account or name, event.livemode)
        if tenant not in accounts:
            watch = Watch(calendar, event.created // HOUR, detectors)
            accounts[tenant] = _Account(watch, minute)
        try:
            accounts[tenant].pending.append((read_facts(event), event.created, received))
        except UnknownShape:
            unparsed(event)
    yield from _judge(accounts, minute)


def _judge(accounts: Mapping[Tenant, _Account], until: int) -> Iterator[Finding]:
    for tenant, account in accounts.items():
        for change in account.judge(until):
            yield Finding(tenant, change)
