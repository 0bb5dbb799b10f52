"""A large account's day through the live pipeline, with three planted incidents, held against a backtest of the same.

The receiver and the queue are left out: each minute's arrivals are recorded, and the account judged, as the clock and
the workers would, at the stream's own time.
"""

import time
from collections import defaultdict
from math import ceil

from msgspec import Struct
from psycopg import Connection

from bench.report import Report, Row, below, exactly, quantile, show
from bench.rig import rig
from billingwatch.model import Bucket, Incident, Paid, RefundBook, Tenant, utc
from billingwatch.queues import Received
from billingwatch.simulator.incidents import Label, parse
from billingwatch.simulator.stream import Scenario, Stream
from billingwatch.store import accounts, incidents, payers, rollups
from billingwatch.store.accounts import Account
from detectors import backtest
from detectors.almanac import nights
from detectors.backtest import Arrival, Finding, Trial
from detectors.event import Event, read_event
from detectors.facts import Told, UnknownShape, read_facts
from detectors.forecast import HOUR
from detectors.memory import Memory
from detectors.registry import configure
from detectors.tally import charges, claims, payments, tally
from notify.policy import Policy
from worker.evaluate import evaluate
from worker.learn import learn
from worker.record import record

MINUTE, DAY = 60, 86_400
START = 1_789_516_800  # 2026-09-16, past the month's busy days
PAST = 8  # days of history
VOLUME = 62_500  # first attempts a day, averaged over a month: some 50,000 charges on a day in mid-month
# No refund spike: the simulated staff makes days' worth of refunds in one hour, and only what exceeds that is told.
PLANTED = (
    f"failed_payments@+{PAST}d6h,size=0.5,for=1h",
    f"cancel_spike@+{PAST}d12h,size=15,for=90m",
    f"checkout_drop@+{PAST}d18h,size=0.7,for=2h",
)
TENANT = Tenant("default", True)
PLANS = configure({})[0]
PLAN = PLANS.of(TENANT.account)
Raised = tuple[str, int, object, object, str]


class History:
    """Counts arrivals by the same facts, claims and tally as the live pipeline, without storing their events."""

    def __init__(self) -> None:
        self._memory = Memory()
        self._claims: set[str] = set()
        self._grown: dict[tuple[str, str, str, int, int], list[int]] = defaultdict(lambda: [0, 0])
        self._refunds: dict[str, RefundBook] = {}
        self._paid: dict[str, list[Paid]] = defaultdict(list)
        self._created = [float("inf"), 0.0]
        self._received = 0.0

    def add(self, batch: list[tuple[Event, float]], minute: int) -> None:
        """Count what arrived before this minute."""
        told: list[Told] = []
        for event, received in batch:
            self._created = [min(self._created[0], event.created), max(self._created[1], event.created)]
            self._received = max(self._received, received)
            if self._memory.first_seen(event.id, minute):
                try:
                    told += read_facts(event, ceil(received))
                except UnknownShape:
                    continue
        fresh = self._memory.claim(claims(told), minute)
        recent = self._memory.paid(payments(told, fresh))
        growth = tally(told, fresh, self._memory.refunds(charges(told)), recent)
        self._memory.keep(growth.refunds, growth.paid, minute)
        self._claims |= fresh
        self._refunds |= growth.refunds
        for key, paid in growth.paid.items():
            self._paid[key] += paid
        for row in growth.buckets:
            grown = self._grown[row.metric, row.stratum, row.currency, row.grain, row.start]
            grown[0] += row.count
            grown[1] += row.amount

    def write(self, conn: Connection) -> None:
        """Write what was counted since the last time into the store."""
        with conn.transaction():
            rollups.claim(conn, TENANT, self._claims)
            rollups.write_refunds(conn, TENANT, self._refunds)
            payers.write(conn, TENANT, self._paid)
            rollups.grow(conn, TENANT, [Bucket(*key, *grown) for key, grown in self._grown.items()])
            first, newest = (utc(each) for each in self._created)
            accounts.touch(conn, Account(TENANT, first, newest, utc(self._received)))
        self._claims, self._refunds = set(), {}
        self._paid.clear()
        self._grown.clear()


class Costs(Struct):
    """Of the day: seconds of each batch recorded, each night learnt and each minute judged, and what came."""

    recorded: list[float] = []
    learnt: list[float] = []
    judged: list[float] = []
    backtested: float = 0.0
    events: int = 0
    charges: int = 0


def run(quick: bool) -> Report:
    planted = tuple(map(parse, PLANTED))
    volume = VOLUME / 10 if quick else VOLUME
    stream = Stream(Scenario(seed=2, start=START, days=PAST + 1, volume=volume, arrivals=True, incidents=planted))
    costs, findings = Costs(), list[Finding]()
    with rig(postgres={}) as servers, servers.connect() as conn:
        _play(conn, stream, findings, costs)
        live = [each for each in incidents.read_all(conn) if each.tenant == TENANT]
    tried = [each for each in backtest.incidents(findings) if each.opened_at > utc(START + PAST * DAY)]
    early = len(backtest.incidents(findings)) - len(tried)
    differences = set(map(_raised, live)) ^ set(map(_raised, tried))
    busy = sum(costs.recorded) + sum(costs.learnt) + sum(costs.judged)
    judged = [seconds * 1000 for seconds in costs.judged]
    rows = [
        exactly("incidents unlike the backtest's", len(differences), 0),
        Row("incidents live, and of the backtest", f"{len(live)} and {len(tried)}", f"{len(PLANTED)} planted"),
        exactly("told by the backtest in the days before", early, 0),
        *(_found(each, live) for each in stream.labels()),
        Row("charges in the day", show(costs.charges)),
        Row("events in the day", show(costs.events)),
        below("an evaluation, p99", quantile(judged, 0.99), 20, "ms", 1),
        Row("an evaluation, p50", show(quantile(judged, 0.5), "ms", 1)),
        Row("an evaluation, longest", show(max(judged), "ms", 1)),
        Row("recorded a second", show(costs.events / sum(costs.recorded), "ev/s")),
        Row("recorded, judged and learnt a second", show(costs.events / busy, "ev/s")),
        Row("the whole day in", show(busy, "s"), f"of {DAY:,} s"),
        Row("backtest of the day and the days before", show(costs.backtested, "s")),
    ]
    return Report(
        about=f"{PAST} days of history and a day of {costs.charges:,} charges, simulated with late and doubled"
        " deliveries. The day's events are recorded in batches of a minute and judged each minute; the history is"
        " counted by the same facts, claims and tally and written into the rollups without its events, and learnt each"
        " night. Incidents are the same where detector, number, severity and the minutes of opening and resolving are.",
        rows=tuple(rows),
    )


def _play(conn: Connection, stream: Stream, findings: list[Finding], costs: Costs) -> None:
    """Every delivery into the backtest, and by the minute into the store."""
    trial, history = Trial(PLANS), History()
    past: list[tuple[Event, float]] = []
    batch: list[Received] = []
    first = minute = 0
    for delivery in stream.deliveries():
        body = bytes(delivery.event)
        event, received = read_event(body), ceil(delivery.received_at)
        if received > START + (PAST + 1) * DAY:
            break  # late ones come after the last event was created: that would be a silence
        arrives = -(-received // MINUTE) * MINUTE
        minute, first = minute or arrives, first or event.created // HOUR
        while minute < arrives:
            _minute(conn, minute, _night(first, minute), history, past, batch, costs)
            minute += MINUTE
        began = time.perf_counter()
        findings += trial.take(Arrival(event, received))
        costs.backtested += time.perf_counter() - began
        if minute <= START + PAST * DAY:
            past.append((event, delivery.received_at))
        else:
            batch.append(Received(TENANT.account, delivery.received_at, body))
            costs.events += 1
            costs.charges += event.type in ("charge.succeeded", "charge.failed")
    _minute(conn, minute, _night(first, minute), history, past, batch, costs)
    findings += trial.end()


def _minute(
    conn: Connection,
    minute: int,
    night: bool,
    history: History,
    past: list[tuple[Event, float]],
    batch: list[Received],
    costs: Costs,
) -> None:
    today = minute > START + PAST * DAY
    history.add(past, minute)
    past.clear()
    if night and not today:
        history.write(conn)
    began = time.perf_counter()
    if batch:
        record(conn, batch, utc(minute), filters=PLANS.filters)
        batch.clear()
    recorded = time.perf_counter()
    if night:
        learn(conn, TENANT, utc(minute), PLAN)
    learnt = time.perf_counter()
    if today:
        evaluate(conn, TENANT, utc(minute), PLAN, Policy())
        costs.recorded.append(recorded - began)
        costs.learnt.append(learnt - recorded)
        costs.judged.append(time.perf_counter() - learnt)


def _night(first: int, minute: int) -> bool:
    """Whether the account, since the hour `first`, is learnt at this minute."""
    return minute % HOUR == 0 and bool(nights(PLAN.calendar, first, minute // HOUR - 1, minute // HOUR))


def _raised(incident: Incident) -> Raised:
    return incident.detector, incident.number, incident.opened_at, incident.resolved_at, incident.severity


def _found(label: Label, live: list[Incident]) -> Row:
    """The minutes after which a planted incident was told."""
    hits = [
        each.opened_at
        for each in live
        if label.start <= each.opened_at <= label.end
        and any(signal["detector"] == label.detector for signal in each.evidence["signals"])
    ]
    minutes = (min(hits) - label.start).total_seconds() / MINUTE if hits else 0
    return Row(
        f"{label.detector}, planted at {label.start:%H:%M}",
        f"told after {minutes:.0f} min" if hits else "not told",
        f"{label.nats:,.0f} nats",
        bool(hits),
    )
