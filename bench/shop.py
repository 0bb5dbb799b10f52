"""A year of a real web shop's invoices and cancellations, as its watch would have seen them: what it tells when nothing
is touched, each alert with what the data holds around it, and what it finds of drops and sessions that are planted.

The data is "Online Retail II" (Daqing Chen, UCI Machine Learning Repository, CC BY 4.0), one row an invoice:
`t,amount_minor,customer,country,cancelled`. It is no part of the project: BILLINGWATCH_SHOP_DATA names the file.
"""

import csv
import gzip
import os
import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from statistics import median
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from bench.report import Report, Row, at_least, below, show
from billingwatch.model import Bucket, Tenant
from detectors import facts
from detectors.registry import configure
from detectors.watch import Told, Watch

DATA = "BILLINGWATCH_SHOP_DATA"
LONDON = ZoneInfo("Europe/London")
BIN, MINUTE, HOUR = 300, 60, 3600  # seconds
WEEK = 7 * 24 * HOUR
WARM = 6  # weeks before the first planted incident
EACH = 16  # incidents of each kind
SEED = 11
GRACE = HOUR  # after an incident in which it may still be found
LOST = {"drop -100 %, 1 day": 1.0, "drop -100 %, 2 days": 1.0, "drop -60 %, 2 days": 0.6}  # of purchases
TIMES = {"cancellations x5, 3 h": 5, "cancellations x10, 3 h": 10}  # the usual number
OPEN, SHUT, SESSION = 8, 20, 3  # local hours: the shop's day, and how long a session of cancellations lasts
SATURDAY = 5  # always closed
DROPS, SPIKES = frozenset({"volume_drop", "revenue_drop", "webhook_silence"}), frozenset({"refund_spike"})
FINDS = dict.fromkeys(LOST, DROPS) | dict.fromkeys(TIMES, SPIKES)
TIERS = ("notice", "page")  # the goals are the first one's
NOISE, RECALL = 0.4, 0.7  # alerts a week untouched, and of what is planted


class Arrival(Struct, frozen=True, order=True):
    """An invoice or its cancellation. `at` is epoch seconds, the amount pence, the customer 0 where unknown."""

    at: int
    amount: int
    customer: int
    country: str
    cancelled: bool


class Label(Struct, frozen=True):
    """What is planted in (start, end], epoch seconds, and what arrives from its start to its end and a while after."""

    kind: str
    start: int
    end: int
    arrivals: list[Arrival]


class Open(Struct, frozen=True):
    """A detector's part of an incident, at the moment it opened."""

    at: int
    detector: str


def run(quick: bool) -> Report:
    where = os.environ.get(DATA, "")
    if not Path(where).is_file():
        return Report(about=f"Not measured: {DATA} names no file.", rows=())
    year = arrivals(Path(where))
    if quick:
        year = [each for each in year if each.at < year[0].at + 16 * WEEK]
    labels = plant(year, 2 if quick else EACH)
    weeks = (year[-1].at - year[0].at) / WEEK
    rows: list[Row] = []
    for tier in TIERS:
        told, delays = follow(year, labels, tier)
        alerts = [each for each in told if each.reason == "first"]
        figure, noise = f"{tier}: alerts a week, untouched", len(alerts) / weeks
        rows.append(below(figure, noise, NOISE, digits=2) if tier == TIERS[0] else Row(figure, show(noise, digits=2)))
        rows += [Row(f"{tier}: {local(each.at):%Y-%m-%d %H:%M}", *explain(each, year)) for each in alerts]
        rows += recall(delays, tier)
    return Report(
        about=f"A real shop's {len(year):,} invoices and cancellations of {weeks:.0f} weeks, judged at every minute"
        f" from the first one on. Each of the {len(labels)} incidents is planted in a copy of the account as it stood"
        " then, so none of them hides another.",
        rows=tuple(rows),
    )


def recall(delays: Mapping[str, Sequence[int | None]], tier: str) -> Iterator[Row]:
    """What was found of planted incidents, in all and by kind, and how fast."""
    every = [delay for each in delays.values() for delay in each]
    share = sum(delay is not None for delay in every) / max(1, len(every))
    figure = f"{tier}: recall of {len(every)} planted incidents"
    yield at_least(figure, share, RECALL, digits=2) if tier == TIERS[0] else Row(figure, show(share, digits=2))
    for kind, each in delays.items():
        found = [delay for delay in each if delay is not None]
        delay = f"median {show(median(found))} min after it began" if found else ""
        yield Row(f"{tier}: {kind}", f"{len(found)} of {len(each)}", delay)


def follow(
    year: Sequence[Arrival], labels: Sequence[Label], tier: str
) -> tuple[list[Told], dict[str, list[int | None]]]:
    """All that is told of the untouched account, and by kind the minutes until each label was found, None where never.

    Labels ascend by their start.
    """
    plans, wrong = configure({"time_zone": LONDON.key, "holidays": "GB-ENG", "sensitivity": tier})
    assert not wrong, wrong
    minute = year[0].at // HOUR * HOUR
    watched = Watch(Tenant("shop", True), plans.of("shop"), minute // HOUR)
    told: list[Told] = []
    delays: dict[str, list[int | None]] = {kind: [] for kind in FINDS}
    for label in labels:
        told += feed(watched, _between(year, minute, label.start), minute, label.start)
        minute = label.start
        there = told + feed(deepcopy(watched), label.arrivals, label.start, label.end + GRACE)
        hits = [each.at for each in opened(there) if each.at > label.start and each.detector in FINDS[label.kind]]
        delays[label.kind].append((min(hits) - label.start) // MINUTE if hits else None)
    return told + feed(watched, _between(year, minute, year[-1].at), minute, year[-1].at), delays


def feed(watched: Watch, some: Iterable[Arrival], start: int, end: int) -> list[Told]:
    """What changes at the minutes in (start, end], each judged with what had arrived by then; invoices are of whole
    minutes.
    """
    told: list[Told] = []
    for at, group in groupby(some, key=lambda each: each.at):
        told += watched.judge(start + MINUTE, at - MINUTE)
        watched.add(buckets(group))
        watched.arrive(at, at)
        start = at - MINUTE
    return told + watched.judge(start + MINUTE, end)


def arrivals(path: Path) -> list[Arrival]:
    """The file's rows, oldest first, without adjustments of stock, which cost nothing."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return sorted(
            Arrival(
                at=int(datetime.fromisoformat(row["t"]).replace(tzinfo=LONDON).timestamp()),
                amount=abs(int(row["amount_minor"])),
                customer=int(row["customer"]),
                country=row["country"],
                cancelled=row["cancelled"] == "1",
            )
            for row in csv.DictReader(lines)
            if int(row["amount_minor"]) != 0
        )


def plant(year: Sequence[Arrival], count: int) -> list[Label]:
    """So many incidents of each kind, at any time after the first weeks, by their start."""
    rng = random.Random(SEED)
    days = sorted({local(each.at).date() for each in year})
    days = [day for day in days[:-2] if _epoch(day, 0) > year[0].at + WARM * WEEK]
    return sorted((_label(year, kind, days, rng) for kind in FINDS for _ in range(count)), key=lambda each: each.start)


def _label(year: Sequence[Arrival], kind: str, days: Sequence[date], rng: random.Random) -> Label:
    """One of this kind: from opening to closing time for a drop, some busy hours for a session."""
    place = rng.randrange(len(days) - 1)
    if kind in LOST:
        last = days[place + 1] if "2 days" in kind else days[place]
        start, end = _epoch(days[place], OPEN), _epoch(last, SHUT)
        some = _between(year, start, end + GRACE)
        kept = [each for each in some if each.at > end or each.cancelled or rng.random() >= LOST[kind]]
        return Label(kind, start, end, kept)
    hour = rng.randrange(9, 15)
    start, end = _epoch(days[place], hour), _epoch(days[place], hour + SESSION)
    more = _session(year, start, TIMES[kind], rng)
    return Label(kind, start, end, sorted([*_between(year, start, end + GRACE), *more]))


def _session(year: Sequence[Arrival], start: int, factor: int, rng: random.Random) -> list[Arrival]:
    """What makes the hours' usual number of cancellations `factor` times as many, of amounts as they occur."""
    begin = local(start).hour
    around = _between(year, start - 4 * WEEK, start + 4 * WEEK)
    days = {local(each.at).date() for each in around}
    gone = [each for each in around if each.cancelled]
    usual = sum(begin <= local(each.at).hour < begin + SESSION for each in gone) / len(days)
    return [
        replace(rng.choice(gone), at=start + rng.randrange(1, SESSION * HOUR // MINUTE + 1) * MINUTE)
        for _ in range(round(usual * (factor - 1)))
    ]


def buckets(some: Iterable[Arrival]) -> Iterator[Bucket]:
    """What these grow in the rollups, as the events of such payments and refunds would."""
    for each in some:
        start = each.at // BIN * BIN
        paid = (facts.REFUND, "") if each.cancelled else (facts.PAYMENT_SUCCEEDED, facts.CHECKOUT)
        yield Bucket(*paid, "gbp", BIN // MINUTE, start, 1, each.amount)
        for metric, stratum in ((facts.ANY, facts.PEOPLE), (facts.ARRIVED, "")):
            yield Bucket(metric, stratum, "", BIN // MINUTE, start, 1, 0)


def opened(told: Iterable[Told]) -> Iterator[Open]:
    """Each detector's part of each incident, when it opened."""
    known: dict[int, set[str]] = defaultdict(set)
    for each in told:
        now = {signal["detector"] for signal in each.incident.evidence["signals"]}
        if each.incident.state == "resolved":
            now = set()
        for detector in sorted(now - known[each.incident.number]):
            yield Open(each.at, detector)
        known[each.incident.number] = now


def explain(told: Told, year: Sequence[Arrival]) -> tuple[str, str]:
    """Which detector told it with what figures, and in one line what the data holds around it."""
    incident, day = told.incident, local(told.at).date()
    by_day: dict[bool, Counter[date]] = {True: Counter(), False: Counter()}
    for each in year:
        by_day[each.cancelled][local(each.at).date()] += 1
    parts = []
    for what, counts in (("purchases", by_day[False]), ("cancellations", by_day[True])):
        alike = [
            counts[other] for other in (day + timedelta(weeks=n) for n in range(-8, 9) if n) if by_day[False][other]
        ]
        parts.append(f"{counts[day]} {what} that {day:%A}, usually {show(median(alike)) if alike else '?'}")
    parts += _oddities(told, day, year, by_day[False])
    figures = f"{incident.detector}: {show(incident.observed)} for {show(incident.expected, digits=1)}"
    return figures, "; ".join(parts)


def _oddities(told: Told, day: date, year: Sequence[Arrival], sales: Counter[date]) -> Iterator[str]:
    begin = int(told.incident.first_breach_at.timestamp())
    inside = [each for each in _between(year, begin - 1, told.at) if each.cancelled]
    if told.incident.detector in SPIKES and inside:
        customer, most = Counter(each.customer for each in inside).most_common(1)[0]
        if most > 2 and customer:
            yield f"{most} of {len(inside)} for one customer"
        minute, same = Counter(each.at for each in inside).most_common(1)[0]
        if same > 2:
            yield f"{same} of them booked in one minute, {local(minute):%H:%M}"
    around = [day + timedelta(days=n) for n in range(-3, 8) if n]
    closed = [other for other in around if not sales[other] and min(sales) < other < max(sales)]
    if holidays := [other for other in closed if other.weekday() != SATURDAY]:
        yield "shop closed on " + ", ".join(f"{other:%d %b}" for other in holidays)


def local(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone(LONDON)


def _epoch(day: date, hour: int) -> int:
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=LONDON).timestamp())


def _between(year: Sequence[Arrival], start: int, end: int) -> Sequence[Arrival]:
    """Those in (start, end]."""
    at = attrgetter("at")
    return year[bisect_right(year, start, key=at) : bisect_right(year, end, key=at)]
