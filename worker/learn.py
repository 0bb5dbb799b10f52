"""Learn one tenant's baselines at the end of its day, from what was counted; one transaction."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from psycopg import Connection

from billingwatch.model import Tenant, utc
from billingwatch.store import accounts, baselines, markers, rollups
from billingwatch.store.accounts import Lesson
from billingwatch.store.markers import Marker
from detectors.almanac import PAST, Almanac, nights
from detectors.catalogue import Source
from detectors.forecast import BACK, HOUR, Forecast
from detectors.judgement import Spans
from detectors.life import Life, forget
from detectors.pulse import arriving
from detectors.registry import Plan
from detectors.sheet import Sheet
from detectors.watch import KEPT


def due(lesson: Lesson, plan: Plan, now: datetime) -> list[int]:
    """The hours up to which the tenant has to be learnt, in order; none where all is learnt, or still coming in."""
    account = lesson.account
    at, received = int(now.timestamp()), int(account.newest_received.timestamp())
    if arriving(at, int(account.newest_event.timestamp()), received, plan.settle):
        return []
    since = int(account.first_event.timestamp()) // HOUR
    after = since if lesson.learned_until is None else int(lesson.learned_until.timestamp()) // HOUR
    found = nights(plan.calendar, since, max(after, at // HOUR - PAST), at // HOUR)
    if not found and lesson.rewritten and lesson.learned_until is not None:
        return [after]
    return found


def learn(conn: Connection, tenant: Tenant, now: datetime, plan: Plan) -> bool:
    """Learn what is due of the tenant and commit; whether anything was.

    Where days that were learnt from already were told about since, or people announced something, all is learnt anew
    from the rollups.
    """
    with conn.transaction():
        lesson = accounts.begin_lesson(conn, tenant)
        if lesson is None:
            return False
        hours = due(lesson, plan, now)
        if not hours:
            return False
        if lesson.rewritten:
            accounts.learnt(conn, tenant)  # before anything is read: what is told from here on marks it again
        packed = None if lesson.rewritten else baselines.read_archive(conn, tenant)
        said = markers.read(conn, tenant)
        since = max(int(lesson.account.first_event.timestamp()) // HOUR, _restart(said, int(now.timestamp())))
        if since >= hours[-1]:
            # People said so for today: the old normal is worth nothing, and of the new one no day is over.
            empty = msgspec.msgpack.encode(Forecast(since=since))
            baselines.write(conn, tenant, utc(hours[-1] * HOUR), empty, Almanac(plan.calendar, since).pack())
            return True
        almanac = Almanac.unpack(plan.calendar, packed) if packed else None
        # Of an old account it began later than the account did, and holds all it can all the same.
        if almanac is None or max(almanac.since, almanac.first) != max(since, almanac.first):
            almanac = Almanac(plan.calendar, max(since, hours[-1] - PAST))
            hours = nights(plan.calendar, almanac.since, almanac.since, hours[-1]) or hours
        life = forget(_life(lesson.account.life), int(now.timestamp()) - KEPT)
        forecast = _study(conn, tenant, almanac, hours, plan, life, markers.expected(said))
        baselines.write(conn, tenant, utc(almanac.closed * HOUR), msgspec.msgpack.encode(forecast), almanac.pack())
        return True


def _study(
    conn: Connection, tenant: Tenant, almanac: Almanac, hours: list[int], plan: Plan, life: Life, said: Spans
) -> Forecast:
    first = max(almanac.since, almanac.closed - BACK)
    sheet = read_sheet(conn, tenant, plan.lines, first, hours[-1])
    forecast = Forecast()
    for hour in hours:
        # what is open now was not, on days long learnt from: each night leaves out what had begun by then
        running = tuple((part.onset, hour * HOUR) for part in life.open.values() if part.onset < hour * HOUR)
        spent = tuple((start, min(end, hour * HOUR)) for start, end in life.spent if start < hour * HOUR)
        forecast = almanac.close(hour, sheet, spent + running, said)
    return forecast


def read_sheet(conn: Connection, tenant: Tenant, lines: Mapping[str, Source], first: int, last: int) -> Sheet:
    """What was counted in the UTC hours [first, last)."""
    sheet = Sheet(lines, first, max(1, last - first))
    metrics = {metric for source in lines.values() for metric in source.metrics}
    for row in rollups.read_bins(conn, tenant, metrics, first * HOUR, last * HOUR):
        sheet.add(row.metric, row.stratum, row.currency, row.starts, row.counts, row.amounts)
    return sheet


def _restart(said: list[Marker], now: int) -> int:
    """The hour from which on all is different; 0 where people never said so, or of a time to come."""
    starts = (int(each.starts_at.timestamp()) for each in said if each.kind == "new_normal")
    return max((start // HOUR for start in starts if start <= now), default=0)


def _life(packed: bytes | None) -> Life:
    return msgspec.msgpack.decode(packed, type=Life) if packed else Life()
