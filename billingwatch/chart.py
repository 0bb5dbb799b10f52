"""A page with a line's hours, the band of what is usual, and the incidents: one file that needs no network.

Draws what a trial lets it see and judges nothing. The scripts come from vl-convert-python, which is an extra.
"""

import html
from array import array
from collections.abc import Iterable, Mapping
from math import isnan, nan
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from billingwatch.model import Incident, Tenant, decimals
from detectors.calendar import Floats
from detectors.catalogue import kind
from detectors.registry import Plan
from detectors.share import STRATA
from detectors.strip import Strip, View

HOUR, DAY = 3600, 24  # seconds, hours
BINS = 12  # of an hour
FAILURE = "failure"  # failed first attempts of checkouts and renewals together, as failure_rate judges them
COLOURS = {"low": "#9aa5b1", "medium": "#e0a100", "high": "#e0651b", "critical": "#c62828"}  # of severities
MINUTES = {"type": "temporal", "timeUnit": "utcyearmonthdatehoursminutes", "format": "%Y-%m-%d %H:%M"}
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>body {{ font: 14px system-ui, sans-serif; margin: 2em }} #chart {{ width: 100% }}</style>
<script>{scripts}</script>
</head>
<body>
<h1>{title}</h1>
<div id="chart"></div>
<script>vegaEmbed("#chart", {spec}, {{actions: {{source: false, editor: false, compiled: false}}}});</script>
</body>
</html>
"""


class NoScripts(Exception):
    """The package that brings the scripts is not installed."""


class Nothing(Exception):
    """The line has no hours to be drawn; the message says what there is."""


class Band(Struct, frozen=True):
    """What an hour of a line held, in what one would say, and between what it usually lies."""

    counts: list[float]  # of the newest hours, the last one is this
    middle: float = nan
    low: float = nan
    high: float = nan


class Hours:
    """A line's hours from `first` (since the epoch) on; nan where nothing was usual yet."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.counts, self.middle, self.low, self.high = array("d"), array("d"), array("d"), array("d")

    def add(self, band: Band) -> None:
        for rows, value in ((self.middle, band.middle), (self.low, band.low), (self.high, band.high)):
            rows.append(value)
        self.counts.append(nan)
        newest = min(len(self.counts), len(band.counts))
        self.counts[-newest:] = array("d", band.counts[-newest:])  # events of earlier hours may have come late

    def rows(self) -> list[dict[str, Any]]:
        found = []
        for place, count in enumerate(self.counts):
            row = {"at": (self.first + place) * HOUR * 1000, "count": round(count, 3)}
            if not isnan(self.middle[place]):
                row |= {
                    name: round(rows[place], 3)
                    for name, rows in (("middle", self.middle), ("low", self.low), ("high", self.high))
                }
            found.append(row)
        return found


class Chart:
    """The hours of one line of one account. Until the first incident says whose, those of all are kept."""

    def __init__(self, line: str = "") -> None:
        self.line = line
        self._tenant: Tenant | None = None
        self._hours: dict[tuple[Tenant, str], Hours] = {}

    def observe(self, tenant: Tenant, hour: int, strip: Strip) -> None:
        """An hour is over."""
        if self._tenant not in (None, tenant):
            return
        for line in [self.line] if self.line else [*strip.lines, FAILURE]:
            band = look(strip, line)
            if band:
                self._hours.setdefault((tenant, line), Hours(hour)).add(band)

    def focus(self, incident: Incident, plan: Plan) -> None:
        """The first incident: draw what it is about, unless a line was asked for, and forget all else."""
        if self._tenant is None:
            self._tenant = incident.tenant
            self.line = self.line or line_of(incident, plan)
            key = self._tenant, self.line
            self._hours = {key: self._hours[key]} if key in self._hours else {}

    def page(self, incidents: Iterable[Incident]) -> str:
        """The page. Raises NoScripts, and Nothing where the line has no hours."""
        key = next((key for key in self._hours if key[1] == self.line), None)
        if key is None:
            known = sorted({line for _, line in self._hours})
            raise Nothing(f"no hours of {self.line!r}" if self.line else f"no incident; name a line of {known}")
        tenant, line = key
        hours = self._hours[key]
        end = (hours.first + len(hours.counts)) * HOUR
        mode = "" if tenant.livemode else ", test mode"
        title = f"{line} of {tenant.account}{mode}, by the hour (UTC)"
        some = [_drawn(each, end) for each in incidents if each.tenant == tenant]
        return _PAGE.format(title=html.escape(title), scripts=scripts(), spec=_inline(_spec(line, hours.rows(), some)))


def scripts() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script. Raises NoScripts."""
    try:
        import vl_convert
    except ImportError:
        raise NoScripts from None
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def line_of(incident: Incident, plan: Plan) -> str:
    """The line that an incident's detector judges."""
    detector: object = plan.detectors.get(incident.detector, plan.silence)
    line = str(getattr(detector, "line", FAILURE))
    return f"{line}.{incident.scope}" if kind(f"{line}.{incident.scope}") == line else line


def look(strip: Strip, name: str) -> Band | None:
    """The strip's newest hour of a line, and the hours before it for a day; None where there is no such line."""
    found = trace(strip, name, np.arange(BINS, len(strip.mask) + 1, BINS, dtype=np.float64)[-DAY:])
    if found is None:
        return None
    middle, low, high = (float(each[-1]) for each in (found.middle, found.low, found.high))
    return Band(found.counts.tolist(), middle, low, high)


class Trace(Struct, frozen=True):
    """A line over hours: what each held, in what one would say, and between what it usually lies; nan is unknown."""

    counts: Floats
    middle: Floats
    low: Floats
    high: Floats


def trace(strip: Strip, name: str, ends: Floats) -> Trace | None:
    """The line in the hour before each of `ends`, positions in the strip; None where there is no such line.

    The band is what nineteen of twenty such hours lie in, around the least and the most that is plausible.
    """
    view = View(ends, (BINS,))
    if name == FAILURE:
        return _failures(strip, view, tuple(STRATA))
    family, _, stratum = name.partition(".")
    if family == FAILURE and stratum in STRATA:
        return _failures(strip, view, (stratum,))
    line = strip.lines.get(name)
    if line is None:
        return None
    worth = line.unit / 10 ** decimals(stratum) if kind(name) != name else line.unit
    counts = view.count(line)[0] * worth
    if not line.known:
        unknown = np.full(len(ends), nan)
        return Trace(counts, unknown, unknown, unknown)
    low, middle, high = view.least(line.low), view.least(line.mid), view.most(line.high)
    below = low - 2 * np.sqrt(view.variance(line, low, line.dispersion.down))
    above = high + 2 * np.sqrt(view.variance(line, high, line.dispersion.up))
    return Trace(counts, middle[0] * worth, np.maximum(below[0], 0.0) * worth, above[0] * worth)


def _failures(strip: Strip, view: View, strata: tuple[str, ...]) -> Trace:
    """Failures have no rhythm of their own: so many of the attempts."""
    counts, mean, variance = (np.zeros(len(view.ends)) for _ in range(3))
    for stratum in strata:
        rate = strip.rates[stratum]
        counts += view.count(strip.lines[f"failure.{stratum}"])[0]
        part = view.count(strip.lines[f"attempt.{stratum}"])[0] * rate.share
        mean += part
        variance += part * (1 - rate.share) + (rate.tau * part) ** 2
    spread = 2 * np.sqrt(variance)
    return Trace(counts, mean, np.maximum(mean - spread, 0.0), mean + spread)


def _drawn(incident: Incident, end: int) -> dict[str, Any]:
    """An incident as the page knows it; one that is open lasts to the end."""
    until = incident.resolved_at.timestamp() if incident.resolved_at else end
    return {
        "from": int(incident.opened_at.timestamp()) * 1000,
        "to": int(until) * 1000,
        "severity": incident.severity,
        "detector": incident.detector,
        "why": incident.why,
        "resolved": f"{incident.resolved_at:%Y-%m-%d %H:%M}" if incident.resolved_at else "open",
    }


def _spec(line: str, hours: list[dict[str, Any]], incidents: list[dict[str, Any]]) -> dict[str, Any]:
    time = {"field": "at", "type": "temporal", "scale": {"type": "utc"}, "title": None}
    count = {"type": "quantitative", "title": line}
    severity = {
        "field": "severity",
        "type": "nominal",
        "scale": {"domain": list(COLOURS), "range": list(COLOURS.values())},
        "title": "incident",
    }
    span = {"x": {"field": "from", "type": "temporal", "scale": {"type": "utc"}}, "color": severity}
    told = [
        {"field": "detector", "type": "nominal"},
        {"field": "severity", "type": "nominal"},
        {"field": "from", "title": "opened", **MINUTES},
        {"field": "resolved", "type": "nominal"},
        {"field": "why", "type": "nominal"},
    ]
    hour = [
        {"field": "at", "title": "hour", **MINUTES},
        *({"field": name, "type": "quantitative"} for name in ("count", "low", "middle", "high")),
    ]
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": 420,
        "datasets": {"hours": hours, "incidents": incidents},
        "data": {"name": "hours"},
        "layer": [
            {
                "data": {"name": "incidents"},
                "mark": {"type": "rect", "opacity": 0.22},
                "encoding": {**span, "x2": {"field": "to"}, "tooltip": told},
            },
            {
                "mark": {"type": "area", "opacity": 0.25, "color": "#3b6ea5", "interpolate": "step-after"},
                "encoding": {"x": time, "y": {**count, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "line", "strokeDash": [4, 3], "color": "#3b6ea5", "interpolate": "step-after"},
                "encoding": {"x": time, "y": {**count, "field": "middle"}},
            },
            {
                "mark": {"type": "line", "color": "#1f2933", "interpolate": "step-after", "tooltip": True},
                "encoding": {"x": time, "y": {**count, "field": "count"}, "tooltip": hour},
                "params": [{"name": "pan", "select": {"type": "interval", "encodings": ["x"]}, "bind": "scales"}],
            },
            {
                "data": {"name": "incidents"},
                "mark": {"type": "rule", "size": 2},
                "encoding": {**span, "tooltip": told},
            },
        ],
    }


def _inline(spec: Mapping[str, Any]) -> str:
    """As JSON that no text in it can end the script of: an account's name or a rule's may be anything."""
    return msgspec.json.encode(spec).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028")
