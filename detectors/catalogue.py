"""The built-in detectors by name, and which rollups add up to each line that they read."""

from collections.abc import Mapping

from msgspec import Struct

from detectors import facts
from detectors.currency import CurrencyDrop, CurrencyExcess
from detectors.drop import Drop
from detectors.excess import Excess
from detectors.judgement import Detector
from detectors.pulse import WebhookLag, WebhookSilence
from detectors.share import FailureShare

M5, M15, M30, H1, H2, H3, H6, H12, H24, H72 = 1, 3, 6, 12, 24, 36, 72, 144, 288, 864  # bins
EACH = "*"


class Source(Struct, frozen=True):
    """The rollups of a line: metrics, and the strata and the currency that count (all where none is named).

    With the currency "*" there is a line a currency, `revenue.usd`. `amounts` sums money, in minor units and
    without its sign, instead of counting.
    """

    metrics: tuple[str, ...]
    strata: tuple[str, ...] = ()
    currency: str = ""
    amounts: bool = False


LINES: dict[str, Source] = {
    "attempt.checkout": Source((facts.PAYMENT_FAILED, facts.PAYMENT_SUCCEEDED), (facts.CHECKOUT,)),
    "attempt.renewal": Source((facts.PAYMENT_FAILED, facts.PAYMENT_SUCCEEDED), (facts.RENEWAL,)),
    "failure.checkout": Source((facts.PAYMENT_FAILED,), (facts.CHECKOUT,)),
    "failure.renewal": Source((facts.PAYMENT_FAILED,), (facts.RENEWAL,)),
    "success": Source((facts.PAYMENT_SUCCEEDED,)),
    "small": Source((facts.SMALL_FAILED,)),
    "refund": Source((facts.REFUND,)),
    "dispute": Source((facts.DISPUTE,)),
    "cancel": Source((facts.CANCELED,), (facts.VOLUNTARY,)),
    "duplicate": Source(("payment.duplicate",)),
    "any": Source((facts.ANY,), (facts.PEOPLE,)),
    "arrived": Source(("delivery.arrived",)),
    "late": Source(("delivery.late",)),
    "revenue": Source((facts.PAYMENT_SUCCEEDED,), (facts.CHECKOUT, facts.RETRY), EACH, amounts=True),
    "mrr_lost": Source((facts.MRR,), ("lost",), EACH, amounts=True),
    "contraction": Source((facts.MRR,), ("lost",)),
}
# Lines with a baseline; those of each currency by the part before the point.
FORECAST = frozenset("attempt.checkout success small refund dispute cancel duplicate any revenue mrr_lost".split())
GUARD = {"refund": 1, "cancel": 1, "mrr_lost": 1, "dispute": 3}  # newest days that a baseline does not learn from
PRIOR = {"refund": 0.09, "revenue": 0.04, "mrr_lost": 0.09}  # tau squared
RAW = frozenset({"refund"})  # comes in sessions: measured unclipped

DETECTORS: dict[str, Detector] = {
    each.name: each
    for each in (
        FailureShare(),
        Excess(
            "card_testing",
            "small",
            (M5, M15, M30, H1, H3),
            3.0,
            4.5,
            0.2,
            days=0,
            clusters=1.05,
            lift_by="success",
            part_of="failure.checkout",
        ),
        Excess("refund_spike", "refund", (M30, H1, H3, H6, H24), 2.0, 5.0, 1.4, days=7, records=0.8, beyond=3.0),
        Excess("churn_spike", "cancel", (H1, H2, H3, H6, H24, H72), 1.8, 4.0, -0.8, days=2),
        Excess("dispute_spike", "dispute", (H1, H3, H6, H12, H24, H72), 2.0, 3.0, 0.0, days=7),
        Excess("duplicate_charges", "duplicate", (M15, H1, H3, H6, H24), 3.0, 2.5, -0.5, days=0, share_of="success"),
        Drop("volume_drop", "attempt.checkout"),
        CurrencyDrop("revenue_drop", "revenue", (H3, H24, H72), factor=0.75, shift=0.0, days=14),
        CurrencyExcess("mrr_drop", "mrr_lost", (H24, H72), 3.0, 5.0, 2.6, days=35, records=0.8, several="contraction"),
        WebhookLag(),
    )
}
SILENCE = WebhookSilence()


def kind(line: str) -> str:
    """What a line of one currency is a line of: `"revenue"` of `"revenue.usd"`; any other line itself."""
    if line in LINES:
        return line
    head = line.partition(".")[0]
    return head if head in LINES and LINES[head].currency == EACH else line


def forecast(line: str) -> bool:
    """Whether the line has a baseline."""
    return kind(line) in FORECAST


def routes(lines: Mapping[str, Source], metric: str, stratum: str, currency: str) -> tuple[tuple[str, bool], ...]:
    """The lines that rollups of this metric, stratum and currency belong to, and whether by their amounts."""
    return tuple(
        (f"{name}.{currency}" if source.currency == EACH else name, source.amounts)
        for name, source in lines.items()
        if metric in source.metrics
        and (not source.strata or stratum in source.strata)
        and (source.currency in ("", currency) or (source.currency == EACH and currency != ""))
    )
