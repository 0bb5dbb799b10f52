"""What the picture of an incident shows: two days of the line that it is about, and what of them is usual."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
import numpy as np
from psycopg import Connection

from billingwatch.chart import BINS, FAILURE, Trace, line_of, trace
from billingwatch.model import Incident, decimals
from billingwatch.picture import Hours
from billingwatch.store import accounts, baselines
from detectors.calendar import Bools, Floats, Ints
from detectors.catalogue import EACH, Source, kind
from detectors.forecast import BACK, HOUR, Forecast, draw
from detectors.life import Life
from detectors.pulse import WebhookLag
from detectors.registry import Plan
from detectors.share import STRATA
from detectors.strip import Strip
from detectors.threshold import Threshold
from worker.learn import read_sheet

SHOWN = 48  # hours
BIN = HOUR // BINS  # seconds


def read_hours(conn: Connection, incident: Incident, plan: Plan, now: datetime) -> Hours | None:
    """The incident's line in the hours before `now`, as its detector sees them; None where nothing was learnt of it.

    Hours end with the running 5 minutes, not on the hour: the newest one is as long as the others, and a drop that it
    seems to show is one. Late arrivals and what a rule counts have no forecast: of those the detector's own idea of
    the usual is told. Takes one transaction and no lock.
    """
    if incident.detector not in plan.judges:
        return None  # switched off since
    at, line = int(now.timestamp()), _line(incident, plan)
    with conn.transaction():
        account, packed = accounts.read(conn, incident.tenant), baselines.read_forecast(conn, incident.tenant)
        if account is None or packed is None:
            return None
        hour = at // HOUR
        sheet = read_sheet(conn, incident.tenant, _sources(plan, line), hour - BACK, hour + 1)
    forecast = msgspec.msgpack.decode(packed, type=Forecast)
    life = msgspec.msgpack.decode(account.life, type=Life) if account.life else Life()
    since = forecast.since or int(account.first_event.timestamp()) // HOUR
    if not forecast.lines or not sheet.bins:
        return None
    strip = draw(forecast, sheet, plan.calendar, hour, since=since, left_out=life.spent)
    end = -(-at // BIN) * BIN
    ends = np.minimum(strip.position(end) - BINS * np.arange(SHOWN)[::-1], strip.position(at))
    found = trace(strip, line, ends)
    if found is None:
        return None
    starts = end - HOUR * np.arange(1, SHOWN + 1)[::-1]
    found, currency = _judged(incident, plan, line, strip, ends, found)
    foretold = forecast.lines.get(line)
    lived = starts >= since * HOUR
    known = lived if foretold is None else _within(starts, forecast.first, len(foretold.mid)) & lived
    return Hours(
        line=line,
        currency=currency,
        start=int(starts[0]),
        end=at,
        counts=_where(lived, found.counts),
        middle=_where(known, found.middle),
        low=_where(known, found.low),
        high=_where(known, found.high),
    )


def _line(incident: Incident, plan: Plan) -> str:
    line = line_of(incident, plan)
    return f"{FAILURE}.{incident.scope}" if line == FAILURE and incident.scope in STRATA else line


def _sources(plan: Plan, line: str) -> Mapping[str, Source]:
    """The lines that have to be counted to draw this one."""
    if line.partition(".")[0] == FAILURE:
        names = {f"{part}.{stratum}" for part in ("attempt", FAILURE) for stratum in STRATA}
    else:
        names = {kind(line), "arrived"}
    return {name: source for name, source in plan.lines.items() if name in names}


def _judged(incident: Incident, plan: Plan, line: str, strip: Strip, ends: Floats, found: Trace) -> tuple[Trace, str]:
    """With what the detector holds for usual where there is no forecast; and the currency where money is counted."""
    detector, source = plan.detectors.get(incident.detector), plan.lines.get(kind(line), Source(()))
    currency = line.partition(".")[2] if source.currency == EACH else source.currency if source.amounts else ""
    if isinstance(detector, WebhookLag):
        arrived = trace(strip, detector.share_of, ends)
        if arrived is not None:
            usual = arrived.counts * detector.usual
            found = Trace(found.counts, usual, 0 * usual, usual + 2 * np.sqrt(usual))
    elif isinstance(detector, Threshold):
        worth = 10.0 ** -decimals(detector.currency) if detector.currency else 1.0
        average = np.full(len(ends), incident.expected * HOUR / incident.window * worth)
        currency = detector.currency
        found = Trace(found.counts * worth, average, found.low, found.high)
    return found, currency


def _within(starts: Ints, first: int, hours: int) -> Bools:
    """Which of the hours were foretold."""
    return np.asarray((starts >= first * HOUR) & (starts + HOUR <= (first + hours) * HOUR))


def _where(known: Bools, values: Floats) -> list[float]:
    found: list[float] = np.where(known, values, np.nan).tolist()
    return found
