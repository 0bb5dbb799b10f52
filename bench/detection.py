"""Recall by evidence, precision, false alerts per account-week and delay, on streams that nothing was tuned on.

`python -m bench detection` measures on the held-out seeds; to look closer, on others:
`python -m bench.detection --seed 1000 --accounts 100 [--sensitivity 7.2] [--peers]`
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import msgspec
import numpy as np

from bench.outcome import STRONG, Alert, Figures, Outcome, figures, pairs, recall, score
from bench.report import Report, Row, at_least, below, show
from bench.rivals import RIVALS, alerts
from bench.streams import BIN, DAY, KINDS, TEST, TIERS, WARM, Label, Stream, stream, visible
from detectors import catalogue, judgement
from detectors.almanac import LEARN, NEW, Almanac
from detectors.calendar import Calendar
from detectors.forecast import BACK, draw
from detectors.judgement import Detector, Spans
from detectors.life import Change, Life
from detectors.sheet import Sheet

HELD_OUT = 30_000  # seeds from here on were never looked at while anything was tuned
NOTICE, PAGE = 6.5, 7.2  # positions of the dial
WEAK = 12.0  # nats
OPENED = ("first", "joined", "reopened")
GOALS = {  # recall by kind
    "card testing": 0.99,
    "silence": 0.99,
    "lag": 0.98,
    "duplicates": 0.98,
    "cancels": 0.95,
    "disputes": 0.94,
    "refunds": 0.88,
    "failures x10": 0.96,
    "failures x4": 0.96,
    "drop -100%": 0.98,
    "drop -60%": 0.78,
}


def built_in(sensitivity: float) -> dict[str, Detector]:
    """The shipped detectors with the dial at this position."""
    return {
        name: msgspec.structs.replace(each, sensitivity=sensitivity) if hasattr(each, "sensitivity") else each  # type: ignore[type-var]
        for name, each in catalogue.DETECTORS.items()
    }


def judge(made: Stream, detectors: dict[str, Detector], cold: bool = False) -> list[Change]:
    """Run the account through its days, closing the almanac at each midnight."""
    days = WARM + TEST
    first_hour = made.start // 3600
    almanac = Almanac(Calendar(made.zone, made.holidays), first_hour)
    life, changes = Life(), []
    left_out: dict[tuple[int, int], None] = {}  # in order, each once
    for day in range(days):
        begin, end = day * DAY, day * DAY + DAY
        hour = first_hour + day * 24
        if day and (cold or day >= WARM - 14 or day % 3 == 0):
            almanac.night(hour)
        _count(almanac, made, visible(made, begin), first_hour, begin, end)
        almanac.expose(hour, hour + 24)
        if day < WARM and not cold:
            continue
        cuts = sorted({each.release for each in made.labels if begin < each.release < end} | {begin, end})
        for first, last in pairwise(cuts):
            seen = visible(made, last - 1)
            _count(almanac, made, seen, first_hour, max(0, begin - 3 * DAY), end)
            life, found = _block(almanac, made, seen, life, detectors, first, last, first_hour, tuple(left_out))
            changes += found
        for change in [*changes, *[Change(0, name, "first", part) for name, part in life.open.items()]]:
            if change.reason in ("resolved", "eased") or change.at == 0:
                begun = change.part.onset // 3600
                if begun < first_hour + NEW:
                    continue
                over = (change.at or (made.start + end * BIN)) // 3600 + 1
                over = min(over, begun + LEARN)
                almanac.expose(begun, over, 0.0)
                if change.at:
                    left_out[begun * 3600, over * 3600] = None
    return changes


def _block(
    almanac: Almanac,
    made: Stream,
    seen: dict[str, np.ndarray],
    life: Life,
    detectors: dict[str, Detector],
    first: int,
    last: int,
    first_hour: int,
    left_out: Spans,
) -> tuple[Life, list[Change]]:
    """The ticks at the ends of the bins [first, last), on one strip."""
    start = max(0, first // 12 - BACK)
    day_end = -(-last // 12)
    sheet = Sheet(catalogue.LINES, first_hour + start, day_end - start)
    for name, each in seen.items():
        if name in catalogue.LINES:
            sheet.bins[name] = each[start * 12 : day_end * 12]
    strip = draw(
        almanac.forecast(), sheet, almanac.calendar, first_hour + day_end - 1, since=first_hour, left_out=left_out
    )
    ticks = made.start + np.arange(first + 1, last + 1, dtype=np.int64) * BIN
    some = np.where(seen["any"][:last] > 0, np.arange(1, last + 1), 0)
    watermark = made.start + np.maximum.accumulate(some)[first:last] * BIN
    return judgement.run(strip, ticks, watermark, life, detectors, catalogue.SILENCE if almanac.baselines else None)


def _count(almanac: Almanac, made: Stream, seen: dict[str, np.ndarray], first_hour: int, begin: int, end: int) -> None:
    for name in seen.keys() & catalogue.LINES.keys():
        counts = seen[name]
        rows = counts[begin:end].reshape(-1, 12)
        almanac.count(name, first_hour + begin // 12, rows.sum(1), (rows**2).sum(1))


def told(changes: Iterable[Change], start: int) -> list[Alert]:
    """The incidents that these changes tell, in bins."""
    parts: dict[int, list[Change]] = defaultdict(list)
    for change in changes:
        parts[change.part.incident].append(change)
    found = []
    for each in parts.values():
        names = {change.detector: change.at for change in reversed(each) if change.reason in OPENED}
        opened, closed = min(names.values()), max(change.at for change in each)
        found.append(Alert(tuple(names), (opened - start) // BIN, (closed - start) // BIN))
    return found


def ours(made: Stream, detectors: dict[str, Detector], cold: bool = False) -> Outcome:
    """The built-in detectors on one account; `cold` from its first hour on."""
    changes = judge(made, detectors, cold)
    opens = [(each.detector, (each.at - made.start) // BIN) for each in changes if each.reason in OPENED]
    return score(made, told(changes, made.start), opens)


def peer(made: Stream, name: str) -> Outcome:
    """Another detector on the same account; its alerts on several lines within an hour are one."""
    found = sorted(alerts(RIVALS[name], made), key=lambda each: each[1])
    merged: list[Alert] = []
    for line, start, end in found:
        if merged and start <= merged[-1].closed + 12:
            last = merged[-1]
            merged[-1] = Alert((*last.detectors, line), last.opened, max(last.closed, end))
        else:
            merged.append(Alert((line,), start, end))
    return score(made, merged, [(line, start) for line, start, _ in found])


def row(outcomes: list[Outcome]) -> dict[str, str]:
    """One line of the table."""

    def share(low: float, high: float = 1e18) -> str:
        some = [pair for pair in pairs(outcomes) if low <= pair[0].evidence < high]
        return f"{recall(some):.3f} ({len(some)})" if some else "-"

    sums = figures(outcomes)
    return {
        ">=25": share(STRONG),
        ">100": share(100),
        "25-100": share(STRONG, 100),
        "12-25": share(WEAK, STRONG),
        "precision": f"{sums.precision:.3f}",
        "false/wk": f"{sums.false:.4f}",
        "median": f"{sums.median:.0f}",
        "p90": f"{sums.p90:.0f}",
        "x oracle": f"{sums.slower:.1f} / {sums.slowest:.1f}",
    }


def run(quick: bool) -> Report:
    accounts = 20 if quick else 300
    names = ["BillingWatch", *RIVALS]
    page: dict[str, list[Outcome]] = {name: [] for name in names}
    notice, cold = [], []
    for number in range(accounts):
        made = stream(HELD_OUT + number, TIERS[number % len(TIERS)])
        page["BillingWatch"].append(ours(made, built_in(PAGE)))
        notice.append(ours(made, built_in(NOTICE)))
        for name in RIVALS:
            page[name].append(peer(made, name))
    for number in range(accounts // 5):
        made = stream(HELD_OUT + accounts + number, TIERS[number % len(TIERS)], False)
        cold.append(ours(made, built_in(PAGE), cold=True))
    mine = page["BillingWatch"]
    return Report(
        about=f"{accounts} made-up accounts of 5 to 50,000 charges a day, {WARM} days of history and {TEST} judged,"
        f" every 5 minutes; {figures(mine).labels} of their incidents have {STRONG:.0f} nats of evidence or more, and"
        " recall and delays are of these where nothing else is said. Peers judge the same counts. In brackets: labels.",
        rows=(
            *_overall(figures(mine), {name: figures(page[name]) for name in RIVALS}),
            *_by_evidence(notice),
            *_by_volume(mine),
            *_by_kind(mine),
            below("cold start, no incidents: false alerts an account-week", _cold(cold), 0.05, "", 3),
        ),
    )


def _overall(mine: Figures, peers: dict[str, Figures]) -> list[Row]:
    rows = [
        at_least("recall", mine.recall, 0.93, "", 3),
        *(Row(f"recall, {name}", show(each.recall, "", 3)) for name, each in peers.items()),
        at_least("precision", mine.precision, 0.97, "", 3),
        *(Row(f"precision, {name}", show(each.precision, "", 3)) for name, each in peers.items()),
        below("false alerts an account-week", mine.false, 0.04, "", 3),
    ]
    for name, each in peers.items():
        times = f"{each.false / mine.false:,.0f}x" if mine.false else ""
        rows.append(Row(f"false alerts an account-week, {name}", show(each.false, "", 2), times))
    rows.append(Row("median delay", show(mine.median, "min"), "<= 10 min", mine.median <= 10))
    rows += [Row(f"median delay, {name}", show(each.median, "min")) for name, each in peers.items()]
    rows.append(Row("p90 delay", show(mine.p90, "min")))
    rows += [Row(f"p90 delay, {name}", show(each.p90, "min")) for name, each in peers.items()]
    rows.append(Row("median delay to an oracle's", show(mine.slower, "x", 2), "<= 1.20x", mine.slower <= 1.2))
    rows.append(Row("p90 delay to an oracle's", show(mine.slowest, "x", 2), "<= 3.50x", mine.slowest <= 3.5))
    return rows


def _by_evidence(notice: list[Outcome]) -> list[Row]:
    rows = []
    for low, high, goal in ((100.0, 1e18, 0.97), (STRONG, 100.0, 0.85), (WEAK, STRONG, 0.45)):
        some = [pair for pair in pairs(notice) if low <= pair[0].evidence < high]
        among = f"above {low:.0f}" if high > 1e9 else f"{low:.0f}-{high:.0f}"
        rows.append(_share(f"recall at sensitivity {NOTICE}, {among} nats", some, goal))
    return rows


def _by_volume(mine: list[Outcome]) -> list[Row]:
    rows = []
    for tier in TIERS:
        some = [each for each in mine if each.tier == tier]
        sums = figures(some)
        rows.append(_share(f"{tier:,} a day: recall", [each for each in pairs(some) if each[0].evidence >= STRONG]))
        goal = 0.02 if tier <= 500 else 0.04
        rows.append(below(f"{tier:,} a day: false alerts an account-week", sums.false, goal, "", 3))
        if sums.labels:
            rows.append(Row(f"{tier:,} a day: median and p90 delay", f"{sums.median:.0f} and {sums.p90:.0f} min"))
    return rows


def _by_kind(mine: list[Outcome]) -> list[Row]:
    rows = []
    for kind in KINDS:
        some = [pair for pair in pairs(mine) if pair[0].kind == kind and pair[0].evidence >= STRONG]
        rows.append(_share(f"{kind}: recall", some, GOALS.get(kind)))
        delays = [delay for _, delay in some if delay is not None]
        if delays:
            rows.append(
                Row(f"{kind}: median and p90 delay", f"{np.median(delays):.0f} and {np.percentile(delays, 90):.0f} min")
            )
    return rows


def _share(figure: str, some: list[tuple[Label, int | None]], goal: float | None = None) -> Row:
    found = recall(some)
    against = f">= {goal:.2f}" if goal is not None else ""
    if not some:
        return Row(figure, "-", against)
    return Row(figure, f"{found:.3f} ({len(some)})", against, found >= goal if goal is not None else None)


def _cold(outcomes: list[Outcome]) -> float:
    return sum(len(each.false) for each in outcomes) / (len(outcomes) * (WARM + TEST) / 7)


def table(rows: dict[str, dict[str, str]]) -> None:
    """Print rows under one heading."""
    heads = list(next(iter(rows.values())))
    print(f"{'':24}" + "".join(f"{head:>14}" for head in heads))
    for name, cells in rows.items():
        print(f"{name:24}" + "".join(f"{cells[head]:>14}" for head in heads))
    print()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--accounts", type=int, default=50)
    parser.add_argument("--sensitivity", type=float, default=PAGE)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--quiet", action="store_true", help="accounts without incidents")
    parser.add_argument("--cold", action="store_true", help="the same, judged from their first hour on")
    parser.add_argument("--show", type=int, default=0, help="this many false alerts and misses")
    asked = parser.parse_args()
    detectors = built_in(asked.sensitivity)
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    begun, shown = time.perf_counter(), 0
    for number in range(asked.accounts):
        made = stream(asked.seed + number, TIERS[number % len(TIERS)], not (asked.quiet or asked.cold))
        outcome = ours(made, detectors, asked.cold)
        outcomes["BillingWatch"].append(outcome)
        if asked.peers:
            for name in RIVALS:
                outcomes[name].append(peer(made, name))
        missed = [
            f"missed {label}"
            for label, d in zip(outcome.labels, outcome.delays, strict=True)
            if d is None and label.evidence >= STRONG
        ]
        for line in [f"false {each}" for each in outcome.false] + missed:
            if shown < asked.show:
                print(f"{made.seed} {made.tier} {made.zone}: {line}")
                shown += 1
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{asked.accounts}", end="", file=sys.stderr)
    print(f"{asked.accounts} accounts, {time.perf_counter() - begun:.0f} s, sensitivity {asked.sensitivity}\n")
    table({name: row(each) for name, each in outcomes.items()})
    mine = outcomes["BillingWatch"]
    if asked.cold:
        for week in range((WARM + TEST) // 7):
            alerts_of = sum(week == alert.opened // (7 * DAY) for each in mine for alert in each.false)
            print(f"week {week + 1}: {alerts_of / len(mine):.3f} alerts an account")
        return
    table({f"{tier}/day": row([each for each in mine if each.tier == tier]) for tier in TIERS})
    if not asked.quiet:
        table(
            {
                kind: row([_only(each, kind) for each in mine])
                for kind in sorted({label.kind for each in mine for label in each.labels})
            }
        )
    blame: dict[str, int] = defaultdict(int)
    for each in mine:
        for alert in each.false:
            blame[alert.detectors[-1]] += 1
    print("false alerts by detector:", dict(blame))


def _only(outcome: Outcome, kind: str) -> Outcome:
    some = [pair for pair in pairs([outcome]) if pair[0].kind == kind]
    return msgspec.structs.replace(
        outcome, labels=tuple(label for label, _ in some), delays=tuple(d for _, d in some), false=(), true=0
    )


if __name__ == "__main__":
    main()
