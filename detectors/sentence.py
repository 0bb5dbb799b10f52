"""What a signal compared, in one sentence that a person can check by hand."""

from math import ceil, floor

from billingwatch.model import Money
from detectors.signal import Signal, odds
from detectors.strip import BIN
from detectors.threshold import Threshold
from detectors.words import amount_of, span

# What a detector counts: one of it, several of it.
_THINGS = {
    "card_testing": ("small payment failed", "small payments failed"),
    "refund_spike": ("refund", "refunds"),
    "churn_spike": ("cancellation", "cancellations"),
    "dispute_spike": ("dispute", "disputes"),
    "duplicate_charges": ("payment was taken twice", "payments were taken twice"),
    "volume_drop": ("attempt to pay", "attempts to pay"),
}
_SCOPES = {"checkout": "checkout payments", "renewal": "renewal payments"}


def sentence(signal: Signal, detector: object, unit: float = 1.0) -> str:
    """E.g. "12 refunds in 3 h, normally 0-3 (expected 1.1); by normal variation once in 3 million".

    `unit` is what one count of the signal's line is worth in minor units, where money is judged.
    """
    length = max(BIN, round((signal.end - signal.start) / BIN) * BIN)
    period = span(int(length))
    chance = f"; by normal variation {odds(signal.score)}"
    if isinstance(detector, Threshold):
        return _rule(signal, detector, period)
    if signal.detector == "webhook_silence":
        gap = span(int(signal.end - signal.start))
        expected = amount_of(signal.expected)
        return f"nothing from Stripe for {gap}, where {expected} payments and other things were to be expected{chance}"
    if signal.detector == "webhook_lag":
        return f"{signal.observed:.0f} of {signal.out_of:.0f} events came more than 5 min late in {period}{chance}"
    if signal.detector == "failure_rate":
        what = _SCOPES.get(signal.scope, "payments")
        share, usual = signal.observed / signal.out_of, signal.expected / signal.out_of
        count = f"{signal.observed:.0f} of {signal.out_of:.0f} {what} failed in {period} ({share:.0%})"
        return f"{count}; usually {usual:.0%}{chance}"
    low, high = (max(0.0, bound) for bound in signal.usual)
    if signal.detector in {"revenue_drop", "mrr_drop"}:
        seen, least, most = (Money(round(each * unit), signal.scope) for each in (signal.observed, low, high))
        what = "from checkouts" if signal.detector == "revenue_drop" else "of MRR lost"
        return f"{seen} {what} in {period}, normally {least} to {most}{chance}"
    one, many = _THINGS.get(signal.detector, (signal.detector, signal.detector))
    what = one if signal.observed == 1 else many
    usual_range = f"normally {floor(low)}-{ceil(high)} (expected {amount_of(signal.expected)})"
    return f"{signal.observed:.0f} {what} in {period}, {usual_range}{chance}"


def _rule(signal: Signal, rule: Threshold, period: str) -> str:
    side = "more" if signal.side == "up" else "less"
    seen, average, plus = f"{signal.observed:,.0f}", amount_of(signal.expected), f"{rule.plus:g}"
    if rule.currency:
        seen, average, plus = (
            str(Money(round(each), rule.currency)) for each in (signal.observed, signal.expected, rule.plus)
        )
    usual = f"the average of {span(rule.past * BIN)} ({average})"
    return f"{seen} in {period}: {side} than {rule.factor:g} times {usual} plus {plus}"
