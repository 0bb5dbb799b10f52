"""The picture of a digest: payments, failed first attempts and refunds, this span against the one a week before."""

from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from billingwatch.chart import SCHEMA
from billingwatch.picture import squeezed
from notify.digest import DAYS, Digest, Series

LARGEST = 120_000  # bytes
NOW, BEFORE, GRID = "#1f5fa8", "#b8c4d0", "#eceff2"
WIDTH, HEIGHT = 600, 110  # pixels of one of the small multiples
SCALE = 1.5


def digest_picture(digest: Digest) -> bytes | None:
    """A PNG; None where there is nothing to be drawn, and without vl-convert-python, which is an extra."""
    try:
        import vl_convert
    except ImportError:
        return None
    shown = [each for each in digest.series if any(each.values) or any(each.before)]
    if not shown:
        return None
    png: bytes = vl_convert.vegalite_to_png(msgspec.json.encode(_spec(digest, shown)).decode(), scale=SCALE)
    small = squeezed(png)
    return small if len(small) <= LARGEST else None


def _spec(digest: Digest, shown: list[Series]) -> dict[str, Any]:
    daily, whole = digest.kind == "daily", digest.span
    zone = ZoneInfo(digest.zone)
    now, before = (
        _days(start.astimezone(zone).date(), DAYS[digest.kind]) for start in (whole.start, whole.before_start)
    )
    parts = [slot if daily else f"{date.fromisoformat(slot):%a} {int(slot[-2:])}" for slot in digest.slots]
    return {
        "$schema": SCHEMA,
        "background": "white",
        "padding": 12,
        "spacing": 14,
        "vconcat": [
            _multiple(each, parts, now, before, last=each is shown[-1], first=each is shown[0]) for each in shown
        ],
        "config": {
            "font": "DejaVu Sans, Arial, sans-serif",
            "view": {"stroke": None},
            "axis": {"labelFontSize": 11, "labelColor": "#52606d", "domainColor": "#9aa5b1", "gridColor": GRID},
            "title": {"fontSize": 13, "anchor": "start", "color": "#1f2933", "offset": 6, "frame": "group"},
            "legend": {"labelFontSize": 11, "labelColor": "#52606d"},
        },
    }


def _days(first: date, count: int) -> str:
    """`"Mon 9 Mar"`, `"2 Mar to 8 Mar"`."""
    last = first + timedelta(days=count - 1)
    return f"{first:%a} {first.day} {first:%b}" if count == 1 else f"{first.day} {first:%b} to {last.day} {last:%b}"


def _multiple(series: Series, parts: list[str], now: str, before: str, *, last: bool, first: bool) -> dict[str, Any]:
    """One figure: bars of the week before behind a line of now."""
    rate = series.name.startswith("failed")
    rows = [
        {"part": part, "span": span, "value": value}
        for span, values in ((before, series.before), (now, series.values))
        for part, value in zip(parts, values, strict=False)
    ]
    colour = {
        "field": "span",
        "type": "nominal",
        "scale": {"domain": [now, before], "range": [NOW, BEFORE]},
        "legend": {
            "orient": "top-right",
            "title": None,
            "symbolType": "square",
            "direction": "horizontal",
            "offset": -26,
        }
        if first
        else None,
    }
    x = {
        "field": "part",
        "type": "ordinal",
        "sort": parts,
        "title": None,
        "scale": {"paddingInner": 0.25},
        "axis": {"labelAngle": 0, "ticks": False, "labels": last, "labelPadding": 5},
    }
    y = {
        "field": "value",
        "type": "quantitative",
        "title": None,
        "scale": {"domainMin": 0},
        "axis": {
            "tickCount": 3,
            "domain": False,
            "ticks": False,
            **({"format": ".0%"} if rate else {"format": ",d", "tickMinStep": 1}),
        },
    }
    here = {"x": x, "y": y, "color": colour}
    return {
        "title": series.name.capitalize(),
        "width": WIDTH,
        "height": HEIGHT,
        "data": {"values": rows},
        "layer": [
            {
                "transform": [{"filter": {"field": "span", "equal": before}}],
                "mark": {"type": "bar", "cornerRadiusEnd": 1},
                "encoding": here,
            },
            {
                "transform": [{"filter": {"field": "span", "equal": now}}],
                "mark": {
                    "type": "line",
                    "strokeWidth": 2.2,
                    "point": {"size": 22, "filled": True},
                    "invalid": "break-paths-show-domains",
                },
                "encoding": here,
            },
        ],
    }
