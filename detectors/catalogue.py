"""The built-in detectors by name, and which rollups add up to each line that they read."""

from msgspec import Struct

from detectors import facts
from detectors.drop import Drop
from detectors.excess import Excess
from detectors.judgement import Detector
from detectors.pulse import WebhookLag, WebhookSilence
from detectors.share import FailureShare

M5, M15, M30, H1, H2, H3, H6, H12, H24, H72 = 1, 3, 6, 12, 24, 36, 72, 144, 288, 864  # bins


class Source(Struct, frozen=True):
    """The rollups of a line: metrics, and the strata that count (all where none is named)."""

    metrics: tuple[str, ...]
    strata: tuple[str, ...] = ()


LINES: dict[str, Source] = {
    "attempt.checkout": Source((facts.PAYMENT_FAILED, facts.PAYMENT_SUCCEEDED), (facts.CHECKOUT,)),
    "attempt.renewal": Source((facts.PAYMENT_FAILED, facts.PAYMENT_SUCCEEDED), (facts.RENEWAL,)),
    "failure.checkout": Source((facts.PAYMENT_FAILED,), (facts.CHECKOUT,)),
    "failure.renewal": Source((facts.PAYMENT_FAILED,), (facts.RENEWAL,)),
    "failure": Source((facts.PAYMENT_FAILED,)),
    "success": Source((facts.PAYMENT_SUCCEEDED,)),
    "small": Source((facts.SMALL_FAILED,)),
    "refund": Source((facts.REFUND,)),
    "dispute": Source((facts.DISPUTE,)),
    "cancel": Source((facts.CANCELED,), (facts.VOLUNTARY,)),
    "duplicate": Source(("payment.duplicate",)),
    "any": Source((facts.ANY,)),
}
# Lines with a baseline.
FORECAST = ("attempt.checkout", "success", "small", "refund", "dispute", "cancel", "duplicate", "any")
GUARD = {"refund": 1, "cancel": 1, "dispute": 3}  # newest days that a baseline does not learn from
PRIOR = {"refund": 0.09}  # tau squared
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
        Excess("refund_spike", "refund", (M30, H1, H3, H6, H24), 2.0, 5.0, 2.6, days=7, records=0.8),
        Excess("churn_spike", "cancel", (H1, H2, H3, H6, H24, H72), 1.8, 4.0, -0.8, days=2),
        Excess("dispute_spike", "dispute", (H1, H3, H6, H12, H24, H72), 2.0, 3.0, 0.0, days=7),
        Excess("duplicate_charges", "duplicate", (M15, H1, H3, H6, H24), 3.0, 2.5, -0.5, days=0, share_of="success"),
        Drop("volume_drop", "attempt.checkout"),
        WebhookLag(),
    )
}
SILENCE = WebhookSilence()
