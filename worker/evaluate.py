"""Judge one tenant: read counts and forecast, ask the detectors, step incidents, stage alerts; one transaction."""

from collections.abc import Sequence
from datetime import datetime
from math import ceil

import msgspec
import numpy as np
import structlog
from psycopg import Connection

from billingwatch.model import Incident, Reason, Tenant, utc
from billingwatch.store import accounts, baselines, evidence, incidents, markers, outbox
from billingwatch.store.accounts import Account
from detectors.catalogue import SILENCE
from detectors.contributors import contributors, customers
from detectors.forecast import HOUR, Forecast, draw
from detectors.incident import Scene, tell
from detectors.judgement import run
from detectors.life import Change, Life, forget, settle
from detectors.pulse import untold
from detectors.registry import Plan
from detectors.watch import KEPT
from notify.message import compose
from notify.route import route
from worker.learn import read_sheet

log = structlog.get_logger(__name__)

WHO = "billingwatch"  # in the incident log, where no person acted


def evaluate(
    conn: Connection, tenant: Tenant, at: datetime, plan: Plan, channels: Sequence[str], *, backlog: bool = False
) -> list[int]:
    """Judge the tenant as of `at` and commit; the ids of the alerts staged, to be enqueued afterwards.

    Under the tenant's lock: of two workers the second sees what the first wrote, so nothing opens twice. `backlog`
    says that events wait in our own queue: absence means nothing then.
    """
    with conn.transaction():
        account = accounts.begin_evaluation(conn, tenant, at)
        if account is None:
            return []
        stored = {incident.number: incident for incident in incidents.read_recent(conn, tenant, at)}
        before = msgspec.msgpack.decode(account.life, type=Life) if account.life else Life()
        settled = settle(before, _ended(before, stored), int(at.timestamp()))
        life, changes, scene = _judge(conn, account, at, plan, settled, backlog)
        if life != before or account.life is None:
            accounts.write_life(conn, tenant, msgspec.msgpack.encode(life))
        staged: list[int] = []
        for number in sorted(_concerned(life, changes)):
            here = [change for change in changes if change.part.incident == number]
            known = stored.get(number)
            incident, reason = tell(known, life.parts(number), here, int(at.timestamp()), scene)
            staged += _write(conn, known, incident, reason, at, channels)
        if not staged:
            accounts.not_urgent(conn)  # nobody was told: what a crash undoes is judged again
        return staged


def _judge(
    conn: Connection, account: Account, at: datetime, plan: Plan, life: Life, backlog: bool
) -> tuple[Life, list[Change], Scene]:
    now = int(at.timestamp())
    hour, since = now // HOUR, int(account.first_event.timestamp()) // HOUR
    packed = baselines.read_forecast(conn, account.tenant)
    forecast = msgspec.msgpack.decode(packed, type=Forecast) if packed else Forecast()
    sheet = read_sheet(conn, account.tenant, plan.lines, hour - plan.back, hour + 1)
    strip = draw(forecast, sheet, plan.calendar, hour, since=since, left_out=life.spent)
    newest, received = int(account.newest_event.timestamp()), ceil(account.newest_received.timestamp())
    known = SILENCE.line in forecast.lines
    after, changes = run(
        strip,
        np.array([now], np.int64),
        np.array([min(now, newest)], np.int64),
        forget(life, now - KEPT),
        plan.detectors,
        plan.silence if known else None,
        backlog=backlog or untold(now, newest, received, plan.settle),
        expected=markers.expected(markers.read(conn, account.tenant)),
    )
    return after, changes, Scene(account.tenant, plan.judges, plan.lines, sheet, forecast.units)


def _ended(life: Life, stored: dict[int, Incident]) -> set[int]:
    """The incidents that go on in the account's life and that a person resolved."""
    numbers = {part.incident for part in life.open.values()}
    return {number for number in numbers if number not in stored or stored[number].state == "resolved"}


def _concerned(after: Life, changes: Sequence[Change]) -> set[int]:
    """The incidents that are open, or were until now."""
    return {change.part.incident for change in changes} | {part.incident for part in after.open.values()}


def _write(
    conn: Connection,
    before: Incident | None,
    incident: Incident,
    reason: Reason | None,
    at: datetime,
    channels: Sequence[str],
) -> list[int]:
    """Write the incident as it is and stage what is told of it; the staged alerts' ids."""
    if reason in ("first", "worse"):
        incident = _explained(conn, incident)
    elif before is not None and "contributors" in before.evidence:
        kept = {"contributors": before.evidence["contributors"]}
        incident = msgspec.structs.replace(incident, evidence=incident.evidence | kept)
    if before is None:
        id_ = incidents.open_incident(conn, incident)
        if id_ is None:
            return []
        incident = msgspec.structs.replace(incident, id=id_)
    elif not incidents.update(conn, incident, before.state):
        return []  # a person resolved it meanwhile
    if reason is None:
        return []
    incidents.log(conn, incident.id, at, before.state if before else None, incident.state, reason, WHO)
    message = compose(incident, reason, at, told=before.told if before else None)
    log.info(
        "incident",
        reason=reason,
        id=incident.id,
        detector=incident.detector,
        account=incident.tenant.account,
        livemode=incident.tenant.livemode,
        severity=incident.severity,
    )
    return [
        outbox.stage(conn, incident.id, each.channel, reason, each.reason, message.title, message.body, at)
        for each in route(incident, reason, channels)
    ]


def _explained(conn: Connection, incident: Incident) -> Incident:
    """With whom it affects and what contributed most, from the window's events only."""
    first = incident.evidence["signals"][0]
    start, end = first["window"]
    seen = evidence.read_window(conn, incident.tenant, incident.metric, utc(start), utc(end))
    found = contributors(seen, rate=first["expected"] / first["out_of"] if first["out_of"] else 0.0)
    return msgspec.structs.replace(
        incident,
        customers=max(incident.customers, customers(seen)),
        evidence=incident.evidence | {"contributors": [msgspec.to_builtins(each) for each in found]},
    )
