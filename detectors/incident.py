"""From the changes of a life to incidents as they are stored and told: words, money, severity. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from billingwatch.model import SEVERITIES, Incident, Money, Reason, Severity, Tenant, utc
from detectors import facts
from detectors.catalogue import Source
from detectors.judgement import Detector
from detectors.life import LADDER, Change, Open
from detectors.pulse import WebhookSilence
from detectors.sentence import sentence
from detectors.sheet import Sheet
from detectors.signal import Signal, limit
from detectors.strip import BIN
from detectors.threshold import Threshold

_METRICS = {
    "failure_rate": facts.PAYMENT_FAILED,
    "card_testing": facts.PAYMENT_FAILED,
    "refund_spike": facts.REFUND,
    "churn_spike": facts.CANCELED,
    "dispute_spike": facts.DISPUTE,
    "duplicate_charges": "payment.duplicate",
    "volume_drop": facts.PAYMENT_SUCCEEDED,
    "revenue_drop": "revenue",
    "mrr_drop": facts.MRR,
    "webhook_silence": "webhook.silence",
    "webhook_lag": "webhook.late",
}
# Whose money is at risk, by detector: that of its own line, or of these.
_MONEY = {"failure_rate": ("failure.checkout", "failure.renewal")}


CURRENCIES = frozenset({"revenue_drop", "mrr_drop"})  # they judge the money of one
MISSING = CURRENCIES | {"volume_drop", "webhook_silence", "webhook_lag"}  # what happens then is not what is at risk
LONGEST = 72 * 3600  # seconds; every sheet reaches back so far
ALSO = "; also "  # between the sentences of several signals


class Scene(Struct, frozen=True):
    """Where incidents happen: whose they are, who judged, what was counted and what a count is worth by line."""

    tenant: Tenant
    detectors: Mapping[str, Detector | WebhookSilence]
    lines: Mapping[str, Source]
    sheet: Sheet
    units: Mapping[str, float]


def tell(
    before: Incident | None, parts: Sequence[Open], changes: Sequence[Change], at: int, scene: Scene
) -> tuple[Incident, Reason | None]:
    """One incident as of `at` (epoch seconds), and what people are told of it, None where nothing.

    `parts` are what is open of it, `changes` what happened to it at this instant; `before` is it as stored, None
    where it is new.
    """
    # The figures are those of the detector that opened it; where that is over and others last, they stay as they were.
    known = [*parts, *(change.part for change in changes if change.part not in parts)]
    own = max(known, key=_first_to_speak, default=None)
    if before is not None:
        own = next((part for part in known if part.signal.detector == before.detector), None)
    now = _written(before, own, parts, known, at, scene)
    if not parts:
        clear = [change.part.clear_since for change in changes if change.part.clear_since]
        over = {"state": "resolved", "clear_since": utc(max(clear, default=at)), "resolved_at": utc(at)}
        return msgspec.structs.replace(now, **over, at_risk=_in_all(now, at, scene)), "resolved"
    if before is None:
        return now, "first"
    if before.state == "resolved":
        return msgspec.structs.replace(now, state="open", resolved_at=None), "first"
    worse = now.severity != before.severity or any(
        change.reason == "worse" and change.detector == now.detector for change in changes
    )
    return msgspec.structs.replace(now, told=now.observed if worse else before.told), "worse" if worse else None


def _first_to_speak(part: Open) -> tuple[int, float, str]:
    return part.rank, part.signal.margin, part.signal.detector


def _worst(first: Severity, second: Severity) -> Severity:
    return max(first, second, key=SEVERITIES.index)


def _written(
    before: Incident | None, own: Open | None, parts: Sequence[Open], known: Sequence[Open], at: int, scene: Scene
) -> Incident:
    """The incident as its own part, those that are open, and all that are known of now, make it."""
    clear = [part.clear_since for part in parts]
    clear_since = None if None in clear else min((each for each in clear if each is not None), default=at)
    severities = [_severity(part, scene) for part in known]
    found: dict[str, Any] = {
        "severity": max([*severities, *([before.severity] if before else [])], key=SEVERITIES.index),
        "last_breach_at": utc(at if clear_since is None else clear_since),
        "clear_since": None if clear_since is None else utc(clear_since),
        "why": _why(before, own, known, scene),
        "evidence": _evidence(before, known, scene),
    }
    if own is not None:
        signal = own.signal
        observed, expected, bound = _figures(signal, scene)
        found |= {
            "observed": observed,
            "expected": expected,
            "limit": bound,
            "peak": _figures(own.worst, scene)[0],
            "window": max(BIN, round(signal.end - signal.start)),
            "at_risk": _at_risk(own, scene),
        }
    if before is not None:
        return msgspec.structs.replace(before, **found)
    if own is None:
        raise ValueError("an incident opens with a signal")
    return Incident(
        tenant=scene.tenant,
        number=own.incident,
        detector=own.signal.detector,
        metric=_metric(own.signal.detector, scene),
        scope=own.signal.scope,
        opened_at=utc(at),
        first_breach_at=utc(min(at, *(part.onset for part in parts))),
        told=found["observed"],
        **found,
    )


def _why(before: Incident | None, own: Open | None, parts: Sequence[Open], scene: Scene) -> str:
    """The sentence of the detector that opened the incident, and beside it those of the others."""

    def told(part: Open) -> str:
        return sentence(part.signal, scene.detectors.get(part.signal.detector), _unit(part.signal, scene))

    others = sorted((part for part in parts if part is not own), key=lambda part: (part.opened, part.signal.detector))
    first = told(own) if own else before.why.partition(ALSO)[0] if before else ""
    return ALSO.join([first, *map(told, others)])


def _figures(signal: Signal, scene: Scene) -> tuple[float, float, float]:
    """Observed, expected and the limit: shares where a share is judged, money in minor units where money is."""
    scale = 1 / signal.out_of if signal.detector == "failure_rate" and signal.out_of else _unit(signal, scene)
    return tuple(round(each * scale, 4) for each in (signal.observed, signal.expected, limit(signal)))  # type: ignore[return-value]


def _severity(part: Open, scene: Scene) -> Severity:
    """By rank, and the detector's own at least; a rule that a user wrote has the severity that it names."""
    detector = scene.detectors.get(part.signal.detector)
    ranked = LADDER[part.rank]
    if detector is None:
        return ranked
    if isinstance(detector, Threshold):
        return detector.severity
    return _worst(ranked, detector.severity)


def _metric(detector: str, scene: Scene) -> str:
    if detector in _METRICS:
        return _METRICS[detector]
    rule = scene.detectors.get(detector)
    source = scene.lines.get(getattr(rule, "line", ""))
    return source.metrics[0] if source else detector


def _unit(signal: Signal, scene: Scene) -> float:
    line = getattr(scene.detectors.get(signal.detector), "line", "")
    return scene.units.get(f"{line}.{signal.scope}", scene.units.get(line, 1.0))


def _at_risk(part: Open, scene: Scene) -> tuple[Money, ...]:
    """The money of what happened in the window, or of what is missing; one a currency, largest first."""
    signal = part.signal
    if signal.detector in CURRENCIES:
        difference = abs(signal.expected - signal.observed) * _unit(signal, scene)
        return (Money(round(difference), signal.scope),)
    return _sorted(_counted(signal.detector, int(signal.start), int(signal.end), scene))


def _in_all(incident: Incident, at: int, scene: Scene) -> tuple[Money, ...]:
    """The money of the whole incident, of its newest three days at the most; no less than at its worst."""
    if incident.detector in MISSING:
        return incident.at_risk
    amounts = {money.currency: money.amount for money in incident.at_risk}
    start = max(int(incident.first_breach_at.timestamp()), at - LONGEST)
    for currency, amount in _counted(incident.detector, start, at, scene).items():
        amounts[currency] = max(amounts.get(currency, 0), amount)
    return _sorted(amounts)


def _counted(detector: str, start: int, end: int, scene: Scene) -> dict[str, int]:
    """The money of what a detector counts in [start, end), epoch seconds, by currency."""
    line = getattr(scene.detectors.get(detector), "line", "")
    amounts: dict[str, int] = {}
    for name in _MONEY.get(detector, (line,)):
        for currency, amount in scene.sheet.amounts(name, start, end).items():
            amounts[currency] = amounts.get(currency, 0) + amount
    return amounts


def _sorted(amounts: Mapping[str, int]) -> tuple[Money, ...]:
    return tuple(sorted((Money(amount, currency) for currency, amount in amounts.items()), key=lambda m: -m.amount))


def _evidence(before: Incident | None, known: Sequence[Open], scene: Scene) -> dict[str, Any]:
    """What each signal compared, for people and programs; of what is over what it compared last."""
    earlier = {each["detector"]: each for each in (before.evidence.get("signals", ()) if before else ())}
    now = {
        part.signal.detector: {
            "detector": part.signal.detector,
            "scope": part.signal.scope,
            "since": part.onset,
            "window": [int(part.signal.start), int(part.signal.end)],
            "observed": round(part.signal.observed, 2),
            "out_of": round(part.signal.out_of, 2),
            "expected": round(part.signal.expected, 4),
            "usual": [round(each, 2) for each in part.signal.usual],
            "unit": round(_unit(part.signal, scene), 2),
            "score": round(part.signal.score, 2),
            "needed": round(part.signal.needed, 2),
        }
        for part in sorted(known, key=lambda each: (each.opened, each.signal.detector))
    }
    return {"signals": list((earlier | now).values())}
