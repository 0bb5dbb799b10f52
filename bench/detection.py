"""Recall by evidence, precision, false alerts per account-week and delay, on streams that nothing was tuned on.

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
from msgspec import Struct

from bench.rivals import RIVALS, alerts
from bench.streams import BIN, DAY, TEST, TIERS, WARM, Label, Stream, stream, visible
from detectors import catalogue
from detectors.almanac import BACK, Almanac
from detectors.calendar import Calendar
from detectors.judgement import Detector, run
from detectors.life import Change, Life
from detectors.watch import NEW

GRACE = 12  # bins after an incident in which it may still be found
FINDS = {
    "failures": {"failure_rate", "card_testing", "failure"},
    "card testing": {"card_testing", "failure_rate", "failure", "small"},
    "refunds": {"refund_spike", "refund"},
    "cancels": {"churn_spike", "cancel"},
    "disputes": {"dispute_spike", "dispute"},
    "drop": {"volume_drop", "webhook_silence", "attempt.checkout"},
    "silence": {"webhook_silence", "volume_drop", "attempt.checkout"},
    "lag": {"webhook_lag"},
    "duplicates": {"duplicate_charges", "duplicate"},
}


class Alert(Struct, frozen=True):
    """One incident as told: its detectors, and from where to where, in bins."""

    detectors: tuple[str, ...]
    opened: int
    closed: int


class Outcome(Struct, frozen=True):
    """One account: what was planted, what was told, and which incident found which label."""

    tier: int
    labels: tuple[Label, ...]
    delays: tuple[int | None, ...]  # minutes, None where missed
    false: tuple[Alert, ...]
    true: int


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
    almanac = Almanac(
        Calendar(made.zone, made.holidays),
        first_hour,
        forecast=catalogue.FORECAST,
        plain=[name for name in made.lines if name not in catalogue.FORECAST],
        guard=catalogue.GUARD,
        prior=catalogue.PRIOR,
        raw=catalogue.RAW,
    )
    life, changes = Life(), []
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
            life, found = _block(almanac, made, seen, life, detectors, first, last, first_hour)
            changes += found
        for change in [*changes, *[Change(0, name, "first", part) for name, part in life.open.items()]]:
            if change.reason in ("resolved", "eased") or change.at == 0:
                begun = change.part.onset // 3600
                if begun < first_hour + NEW:
                    continue
                over = (change.at or (made.start + end * BIN)) // 3600 + 1
                almanac.expose(begun, min(over, begun + 72), 0.0)
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
) -> tuple[Life, list[Change]]:
    """The ticks at the ends of the bins [first, last), on one strip."""
    start = max(0, first // 12 - BACK)
    day_end = -(-last // 12)
    strip = almanac.strip(
        first_hour + start, {name: each[start * 12 : day_end * 12] for name, each in seen.items()}, last / DAY
    )
    ticks = made.start + np.arange(first + 1, last + 1, dtype=np.int64) * BIN
    some = np.where(seen["any"][:last] > 0, np.arange(1, last + 1), 0)
    watermark = made.start + np.maximum.accumulate(some)[first:last] * BIN
    return run(strip, ticks, watermark, life, detectors, catalogue.SILENCE if almanac.baselines else None)


def _count(almanac: Almanac, made: Stream, seen: dict[str, np.ndarray], first_hour: int, begin: int, end: int) -> None:
    for name, counts in seen.items():
        rows = counts[begin:end].reshape(-1, 12)
        almanac.count(name, first_hour + begin // 12, rows.sum(1), (rows**2).sum(1))


def told(changes: Iterable[Change], start: int) -> list[Alert]:
    """The incidents that these changes tell, in bins."""
    parts: dict[int, list[Change]] = defaultdict(list)
    for change in changes:
        parts[change.part.incident].append(change)
    found = []
    for each in parts.values():
        names = {change.detector: change.at for change in reversed(each) if change.reason in ("first", "joined")}
        opened, closed = min(names.values()), max(change.at for change in each)
        found.append(Alert(tuple(names), (opened - start) // BIN, (closed - start) // BIN))
    return found


def score(made: Stream, found: list[Alert], opens: list[tuple[str, int]]) -> Outcome:
    """Match alerts to labels by time; a label is found by the first open of a detector that ought to find it."""
    delays: list[int | None] = []
    for label in made.labels:
        names = FINDS[next(kind for kind in FINDS if label.kind.startswith(kind))]
        last = max(label.end, label.release) + GRACE
        hits = [at for name, at in opens if name in names and label.start <= at <= last]
        delays.append((min(hits) - label.start) * BIN // 60 if hits else None)
    spans = [(label.start, max(label.end, label.release) + GRACE * 3) for label in made.labels]
    false = [each for each in found if not any(each.opened <= end and each.closed >= start for start, end in spans)]
    return Outcome(made.tier, tuple(made.labels), tuple(delays), tuple(false), len(found) - len(false))


def ours(made: Stream, detectors: dict[str, Detector], cold: bool = False) -> Outcome:
    """The built-in detectors on one account; `cold` from its first hour on."""
    changes = judge(made, detectors, cold)
    opens = [(each.detector, (each.at - made.start) // BIN) for each in changes if each.reason in ("first", "joined")]
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
    weeks = len(outcomes) * TEST / 7
    pairs = [pair for each in outcomes for pair in zip(each.labels, each.delays, strict=True)]

    def recall(low: float, high: float = 1e18) -> str:
        some = [delay for label, delay in pairs if low <= label.evidence < high]
        return f"{sum(d is not None for d in some) / len(some):.3f} ({len(some)})" if some else "-"

    false = sum(len(each.false) for each in outcomes)
    true = sum(each.true for each in outcomes)
    delays = [delay for label, delay in pairs if delay is not None and label.evidence >= 25]
    slower = [d / label.oracle for label, d in pairs if d is not None and label.evidence >= 25]
    return {
        ">=25": recall(25),
        ">100": recall(100),
        "25-100": recall(25, 100),
        "12-25": recall(12, 25),
        "precision": f"{true / max(1, true + false):.3f}",
        "false/wk": f"{false / weeks:.4f}",
        "median": f"{np.median(delays):.0f}" if delays else "-",
        "p90": f"{np.percentile(delays, 90):.0f}" if delays else "-",
        "x oracle": " / ".join(f"{np.percentile(slower, q):.1f}" for q in (50, 90)) if slower else "-",
    }


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
    parser.add_argument("--sensitivity", type=float, default=7.2)
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
            if d is None and label.evidence >= 25
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
    pairs = [(label, d) for label, d in zip(outcome.labels, outcome.delays, strict=True) if label.kind == kind]
    return msgspec.structs.replace(
        outcome, labels=tuple(label for label, _ in pairs), delays=tuple(d for _, d in pairs), false=(), true=0
    )


if __name__ == "__main__":
    main()
