"""Play a stream of arrivals through the store as the live system would: record, learn at night, judge each minute."""

from collections.abc import Iterable

from psycopg import Connection

from billingwatch.model import Incident, Tenant, utc
from billingwatch.queues import Received
from billingwatch.store import incidents
from detectors.almanac import nights
from detectors.calendar import Calendar
from detectors.forecast import HOUR
from detectors.registry import Plans
from notify.policy import Policy
from notify.route import Route
from worker.evaluate import evaluate
from worker.learn import learn
from worker.record import record

MINUTE = 60
POLICY = Policy(routes=(Route(channels=("ops",)),))


def play(
    conn: Connection, arrivals: Iterable[tuple[int, bytes]], plans: Plans, *, judge_from: int, source: str = "default"
) -> list[Incident]:
    """The source's incidents in the end. `arrivals` are (received, body), ascending; every minute from `judge_from`
    (epoch seconds) is judged, and every night learnt. What came before is recorded in larger batches.
    """
    tenant = Tenant(source, True)
    calendar = plans.of(source).calendar
    batch: list[Received] = []
    minute = since = 0
    for received, body in arrivals:
        arrives = -(-received // MINUTE) * MINUTE
        minute = minute or arrives
        since = since or received // HOUR
        while minute < arrives:
            if minute >= judge_from or _night(calendar, since, minute):
                _judge(conn, tenant, batch, minute, plans, minute >= judge_from, _night(calendar, since, minute))
            minute += MINUTE
        batch.append(Received(source, float(received), body))
    _judge(conn, tenant, batch, minute, plans, True, _night(calendar, since, minute))
    found = [each for each in incidents.read_all(conn) if each.tenant == tenant]
    return sorted(found, key=lambda each: (each.opened_at, each.number))


def _night(calendar: Calendar, since: int, minute: int) -> bool:
    return minute % HOUR == 0 and bool(nights(calendar, since, minute // HOUR - 1, minute // HOUR))


def _judge(
    conn: Connection, tenant: Tenant, batch: list[Received], minute: int, plans: Plans, judged: bool, night: bool
) -> None:
    if batch:
        record(conn, batch, utc(minute), filters=plans.filters)
        batch.clear()
    if night:
        learn(conn, tenant, utc(minute), plans.of(tenant.account))
    if judged:
        evaluate(conn, tenant, utc(minute), plans.of(tenant.account), POLICY)
