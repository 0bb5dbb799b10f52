"""The picture that goes with an alert: two days of a line, what of them is usual, and when the incident was.

Draws what it is given and judges nothing. Drawn by vl-convert-python, which is an extra; without it nothing is drawn.
"""

import struct
import zlib
from collections.abc import Iterator
from datetime import tzinfo
from functools import cache
from math import isfinite
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from billingwatch.chart import COLOURS, HOUR, SCHEMA
from billingwatch.model import Incident, utc

log = structlog.get_logger(__name__)

WIDTH, HEIGHT, SCALE = 720, 300, 2  # points, and pixels of a point
LARGEST = 100_000  # bytes
NARROWEST = 1800  # seconds of an incident's span, so that one which has just begun is seen
EVERY = 6  # hours of the day that are written on the axis
LARGE = 10_000  # from which on the axis counts in thousands
LONGEST, NAME = 24, 20  # characters of an account's name, and of a rule's: beside the legend there is room for it
INK, GREY, GRID, USUAL = "#1f2933", "#52606d", "#e4e8ec", "#7fa8d6"
FONT = "DejaVu Sans, Arial, sans-serif"
# What a line counts, as a title. A rule's line is called as the rule is.
NAMES = {
    "failure": "Failed payments",
    "failure.checkout": "Failed checkout payments",
    "failure.renewal": "Failed renewals",
    "attempt.checkout": "Attempts to pay",
    "attempt.renewal": "Attempts to renew",
    "success": "Payments",
    "small": "Failed small payments",
    "refund": "Refunds",
    "dispute": "Disputes",
    "cancel": "Cancellations",
    "duplicate": "Double charges",
    "any": "Customer activity",
    "arrived": "Events received",
    "late": "Events received late",
    "revenue": "Revenue",
    "mrr_lost": "MRR lost",
}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Hours(Struct, frozen=True, kw_only=True):
    """A line by the hour from `start` (epoch seconds) on; nan where nothing is known. The last hour may be running.

    Money is in the major units of `currency`; where that is "" events are counted.
    """

    line: str
    currency: str = ""
    start: int
    end: int  # epoch seconds: now
    counts: list[float]
    middle: list[float]
    low: list[float]
    high: list[float]


def draw(incident: Incident, hours: Hours, zone: tzinfo) -> bytes | None:
    """A PNG with times in `zone`; None where there is nothing to be drawn, and where it cannot be."""
    if not any(map(isfinite, hours.counts)):
        return None
    try:
        import vl_convert
    except ImportError:
        _tell("vl-convert-python is not installed (pip install 'billingwatch[console]')")
        return None
    try:
        png: bytes = vl_convert.vegalite_to_png(msgspec.json.encode(_spec(incident, hours, zone)).decode(), scale=SCALE)
        small = squeezed(png)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with a picture, the words go out
        _tell(type(error).__name__)
        return None
    return small if len(small) <= LARGEST else None


@cache
def _tell(why: str) -> None:
    """Once a process: alerts go out without pictures, and each would say so again."""
    log.warning("no_pictures", why=why)


def squeezed(png: bytes) -> bytes:
    """The same picture, packed as tightly as zlib can: vl-convert is four times as quick and as large."""
    kept, data, place = [], b"", len(_SIGNATURE)
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        kind, body = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        place += 12 + length
        if kind == b"IDAT":
            data += body
        else:
            kept.append((kind, body))
    kept.insert(-1, (b"IDAT", zlib.compress(zlib.decompress(data), 9)))  # before the end
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in kept
    )


def _spec(incident: Incident, hours: Hours, zone: tzinfo) -> dict[str, Any]:
    rows = [*_rows(hours)]
    labels = dict(_ticks(hours, zone))
    table = msgspec.json.encode({str(at): label for at, label in labels.items()}).decode()
    top = max(value for row in rows for value in (row.get("count"), row.get("high")) if value is not None)
    begin, over = _span(incident, hours)
    x = {
        "field": "at",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [hours.start, hours.start + HOUR * len(hours.counts)], "nice": False, "zero": False},
        "axis": {
            "values": [*labels],
            # By a table: an axis of times knows UTC and the zone of this machine, and no other one.
            "labelExpr": f"({table})[datum.value]",
            "grid": False,
            "tickColor": GREY,
        },
    }
    y = {
        "type": "quantitative",
        "title": None,
        "scale": {"domainMin": 0, "domainMax": top * 1.08 or 1},
        "axis": {
            "tickCount": 4,
            "labelExpr": f"format(datum.value, datum.value && {top} >= {LARGE} ? '~s' : ',~f')",
            "domain": False,
            "ticks": False,
            **({} if hours.currency else {"tickMinStep": 1}),
        },
    }
    legend = {"usual": USUAL, "incident": COLOURS[incident.severity]}
    known = any(map(isfinite, hours.middle))
    colour = {
        "type": "nominal",
        "scale": {"domain": [*legend], "range": [*legend.values()]},
        "legend": {
            "values": [*legend] if known else ["incident"],
            "title": None,
            "orient": "none",
            "direction": "horizontal",
            "legendX": {"expr": f"width - {218 if known else 122}"},
            "legendY": -54,
            "symbolType": "square",
            "symbolSize": 260,
            "symbolOpacity": 0.5,
            "labelFontSize": 17,
            "labelColor": GREY,
            "columnPadding": 16,
        },
    }
    until = {"field": "until"}
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": [{"at": begin, "until": over}]},
            "mark": {"type": "rect", "opacity": 0.28},
            "encoding": {"x": x, "x2": until, "color": {"datum": "incident", **colour}},
        },
        {
            "mark": {"type": "rect", "opacity": 0.5},
            "encoding": {
                "x": x,
                "x2": until,
                "y": {**y, "field": "low"},
                "y2": {"field": "high"},
                "color": {"datum": "usual", **colour},
            },
            "transform": [{"filter": "isValid(datum.high)"}],
        },
        {
            "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.5, "color": "#2f6db5"},
            "encoding": {"x": x, "x2": until, "y": {**y, "field": "middle"}},
            "transform": [{"filter": "isValid(datum.middle)"}],
        },
        {
            "mark": {"type": "line", "strokeWidth": 3, "color": INK, "interpolate": "step-after"},
            "encoding": {"x": x, "y": {**y, "field": "count"}},
            "transform": [{"filter": "isValid(datum.count)"}],
        },
    ]
    return {
        "$schema": SCHEMA,
        "background": "white",
        "padding": {"left": 10, "right": 18, "top": 10, "bottom": 8},
        "autosize": {"type": "fit", "contains": "padding"},
        "width": WIDTH,
        "height": HEIGHT,
        "title": {
            "text": _title(incident, hours),
            "subtitle": _subtitle(incident, hours, zone),
            "anchor": "start",
            "frame": "group",
            "fontSize": 19,  # the longest title ends where the legend begins
            "color": INK,
            "subtitleFontSize": 16,
            "subtitleColor": GREY,
            "subtitlePadding": 5,
            "offset": 10,
        },
        "data": {"values": rows},
        "layer": layers,
        "config": {
            "font": FONT,
            "view": {"stroke": None},
            "axis": {
                "labelFontSize": 17,
                "labelColor": GREY,
                "domainColor": GREY,
                "gridColor": GRID,
                "labelPadding": 6,
            },
        },
    }


def _rows(hours: Hours) -> Iterator[dict[str, Any]]:
    """An hour a row, without what is not known; the last count once more at its end, to which a step line needs it."""
    names = ("count", "middle", "low", "high")
    for place, values in enumerate(zip(hours.counts, hours.middle, hours.low, hours.high, strict=True)):
        at = hours.start + place * HOUR
        told = {name: round(value, 3) for name, value in zip(names, values, strict=True) if isfinite(value)}
        yield {"at": at, "until": at + HOUR, **told}
    last = hours.counts[-1]
    if isfinite(last):
        yield {"at": hours.start + len(hours.counts) * HOUR, "count": round(last, 3)}


def _span(incident: Incident, hours: Hours) -> tuple[int, int]:
    """Epoch seconds, as far as the picture goes; an incident that is open lasts to its end."""
    last = hours.start + len(hours.counts) * HOUR
    over = min(int(incident.resolved_at.timestamp()) if incident.resolved_at else last, last)
    begin = max(int(incident.first_breach_at.timestamp()), hours.start)
    return max(hours.start, min(begin, over - NARROWEST)), max(over, hours.start + NARROWEST)


def _ticks(hours: Hours, zone: tzinfo) -> Iterator[tuple[int, str]]:
    """The hours of the day that are written: `"06:00"`, and `"Tue 10"` where a day begins."""
    for at in range(-(-hours.start // HOUR) * HOUR, hours.start + len(hours.counts) * HOUR + 1, HOUR // 4):
        local = utc(at).astimezone(zone)
        if local.minute == 0 and local.hour % EVERY == 0:
            yield at, f"{local:%H:%M}" if local.hour else f"{local:%a} {local.day}"


def _title(incident: Incident, hours: Hours) -> str:
    head = hours.line.partition(".")[0]
    name = NAMES.get(hours.line) or NAMES.get(head) or _short(incident.detector, NAME)
    unit = f", {hours.currency.upper()}" if hours.currency else ""
    return f"{name} by the hour{unit}"


def _subtitle(incident: Incident, hours: Hours, zone: tzinfo) -> str:
    short = _short(incident.tenant.account, LONGEST)
    mode = "" if incident.tenant.livemode else ", test"
    begin = incident.first_breach_at.astimezone(zone)
    when = f"{begin:%a} {begin.day} {begin:%b %H:%M}"
    if incident.resolved_at is None:
        return f"{short}{mode}: {incident.severity} since {when}"
    over = incident.resolved_at.astimezone(zone)
    day = "" if over.date() == begin.date() else f"{over:%a} {over.day} "
    return f"{short}{mode}: {incident.severity}, {when} to {day}{over:%H:%M}"


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
