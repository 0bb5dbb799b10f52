"""The detectors by name, and how a user's TOML changes them. A new detector is one file and one line here."""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from billingwatch.model import Verdict
from detectors.facts import CANCELED, DISPUTE, PAYMENT_FAILED, REFUND
from detectors.failure_rate import FailureRate
from detectors.series import Reading
from detectors.silence import Silence
from detectors.surge import Surge


class Detector(Protocol):
    """A frozen struct of thresholds, called on a reading: breached, fine, or None for too early."""

    @property
    def metric(self) -> str: ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that it reads."""

    @property
    def recovery(self) -> int:
        """Seconds that it must be clear before its incident is resolved."""

    def __call__(self, reading: Reading, /) -> Verdict | None: ...


DETECTORS: dict[str, Detector] = {
    "failure_rate": FailureRate(),
    "failure_spike": Surge(metric=PAYMENT_FAILED, noun="failed payments"),
    "refund_spike": Surge(metric=REFUND, noun="refunds"),
    "dispute_spike": Surge(metric=DISPUTE, noun="disputes", least=3),
    "churn_spike": Surge(metric=CANCELED, noun="cancellations", least=4),
    "webhook_silence": Silence(),
}
FIXED = frozenset({"metric", "noun"})  # what a detector is about is no threshold


def configure(sections: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Detector], dict[str, str]]:
    """The detectors as `[detectors.NAME]` of the TOML changes them, and what is wrong by place.

    `enabled = false` leaves one out. A section with a mistake keeps the shipped thresholds.
    """
    detectors: dict[str, Detector] = {}
    wrong = {
        f"detectors.{name}": f"no such detector; there are {', '.join(DETECTORS)}"
        for name in sections
        if name not in DETECTORS
    }
    for name, shipped in DETECTORS.items():
        section = dict(sections.get(name, {}))
        enabled = section.pop("enabled", True)
        if not isinstance(enabled, bool):
            wrong[f"detectors.{name}.enabled"] = "expected true or false"
        try:
            fixed = FIXED & section.keys()
            if fixed:
                raise msgspec.ValidationError(f"`{min(fixed)}` cannot be changed")
            thresholds = msgspec.to_builtins(shipped)
            detector = msgspec.convert(thresholds | section, type(shipped))
        except msgspec.ValidationError as error:
            wrong[f"detectors.{name}"] = str(error)
            detector = shipped
        if enabled:
            detectors[name] = detector
    return detectors, wrong
