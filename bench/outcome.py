"""What was told of made-up accounts, held against what had been planted: recall, precision, delays. Knows no detector
but by name.
"""

import numpy as np
from msgspec import Struct

from bench.streams import BIN, TEST, Label, Stream

STRONG = 25.0  # nats of evidence from which on an incident ought to be found
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


class Figures(Struct, frozen=True):
    """What outcomes amount to; NaN where there was nothing to measure."""

    recall: float  # of labels with STRONG evidence
    labels: int
    precision: float
    false: float  # an account-week
    median: float  # minutes
    p90: float
    slower: float  # times an oracle's delay, median
    slowest: float  # p90


def figures(outcomes: list[Outcome]) -> Figures:
    """The figures that have goals."""
    strong = [pair for pair in pairs(outcomes) if pair[0].evidence >= STRONG]
    found = [(label, delay) for label, delay in strong if delay is not None]
    false, true = sum(len(each.false) for each in outcomes), sum(each.true for each in outcomes)
    delays = [float(delay) for _, delay in found] or [np.nan]
    slower = [delay / label.oracle for label, delay in found] or [np.nan]
    return Figures(
        recall(strong),
        len(strong),
        true / (true + false) if true + false else float("nan"),
        false / (len(outcomes) * TEST / 7),
        float(np.median(delays)),
        float(np.percentile(delays, 90)),
        float(np.median(slower)),
        float(np.percentile(slower, 90)),
    )


def pairs(outcomes: list[Outcome]) -> list[tuple[Label, int | None]]:
    """Every label with its delay."""
    return [pair for each in outcomes for pair in zip(each.labels, each.delays, strict=True)]


def recall(some: list[tuple[Label, int | None]]) -> float:
    """The share of the labels that was found."""
    return sum(delay is not None for _, delay in some) / len(some) if some else float("nan")
