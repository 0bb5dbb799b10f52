"""An incident's evidence in lines for people: what each signal compared, and what the excess has in common.

An incident of an older release has neither.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import convert

from billingwatch.model import Money, utc
from detectors.contributors import Contributor
from detectors.signal import odds
from detectors.words import span


def signals(evidence: Mapping[str, Any]) -> Iterator[str]:
    """Two or three lines a signal; those after the first are indented. Times are UTC."""
    for signal in evidence.get("signals", ()):
        yield from _signal(signal)


def contributors(evidence: Mapping[str, Any]) -> Iterator[str]:
    """A line each, the largest part first."""
    for each in evidence.get("contributors", ()):
        yield convert(each, Contributor).sentence


def _signal(signal: Mapping[str, Any]) -> Iterator[str]:
    start, end = signal["window"]
    scope = f" of {signal['scope']}" if signal["scope"] else ""
    day = "%Y-%m-%d %H:%M" if utc(start).date() != utc(end).date() else "%H:%M"
    window = f"{utc(start):%Y-%m-%d %H:%M} to {utc(end):{day}} UTC ({span(end - start)})"
    yield f"{signal['detector']}{scope}: {window}, since {utc(signal['since']):%Y-%m-%d %H:%M}"
    low, high = (_figure(signal, each) for each in signal["usual"])
    observed, expected = _figure(signal, signal["observed"]), _figure(signal, signal["expected"])
    yield f"  observed {observed}, expected {expected}, usually {low} to {high}"
    # A rule that a user wrote asks for no odds.
    if signal["needed"]:
        needed = f"score {signal['score']:.1f}, {signal['needed']:.1f} needed"
        yield f"  by normal variation {odds(signal['score'])} ({needed})"


def _figure(signal: Mapping[str, Any], value: float) -> str:
    """Money where the scope is a currency, a share besides where one is judged, else a count."""
    if re.fullmatch("[a-z]{3}", signal["scope"]):
        return str(Money(round(value * signal["unit"]), signal["scope"]))
    count = f"{value:,.2f}".rstrip("0").rstrip(".")
    if signal["out_of"]:
        return f"{count} of {signal['out_of']:,.0f} ({100 * value / signal['out_of']:.1f} %)"
    return count
