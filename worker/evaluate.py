"""Judge one tenant: read counts and forecast, ask the detectors, step incidents, stage alerts; one transaction."""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from math import ceil
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import structlog
from psycopg import Connection

from billingwatch.model import Incident, Reason, Tenant, utc
from billingwatch.store import accounts, baselines, evidence, incidents, markers
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
from notify.policy import Policy
from worker.learn import read_sheet
from worker.stage import stage

log = structlog.get_logger(__name__)

EXPLAINED = ("contributors", "objects", "changes")  # of the evidence: what is asked of the events, and kept
BEFORE = timedelta(hours=6)  # changes that came so long before the onset at most
WHO = "billingwatch"  # in the incident log, where no person acted


def evaluate(
    conn: Connection, tenant: Tenant, at: datetime, plan: Plan, policy: Policy, *, backlog: bool = False
) -> int:
    """Judge the tenant as of `at` and commit; how many alerts were staged.

    Under the tenant's lock: of two workers the second sees what the first wrote, so nothing opens twice. `backlog`
    says that events wait in our own queue: absence means nothing then.
    """
    with conn.transaction():
        account = accounts.begin_evaluation(conn, tenant, at)
        if account is None:
            return 0
        stored = {incident.number: incident for incident in incidents.read_recent(conn, tenant, at)}
        before = msgspec.msgpack.decode(account.life, type=Life) if account.life else Life()
        settled = settle(before, _ended(before, stored), int(at.timestamp()))
        life, changes, scene = _judge(conn, account, at, plan, settled, backlog)
        if life != before or account.life is None:
            accounts.write_life(conn, tenant, msgspec.msgpack.encode(life))
        staged = 0
        for number in sorted(_concerned(life, changes)):
            here = [change for change in changes if change.part.incident == number]
            known = stored.get(number)
            incident, reason = tell(known, life.parts(number), here, int(at.timestamp()), scene)
            staged += _write(conn, known, incident, reason, at, policy, ZoneInfo(plan.calendar.zone))
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
    policy: Policy,
    zone: tzinfo,
) -> int:
    """Write the incident as it is and stage what is told of it; how many alerts."""
    if reason in ("first", "worse"):
        incident = _explained(conn, incident)
    elif before is not None:
        if reason == "resolved":
            seen = evidence.read_window(conn, incident.tenant, incident.metric, incident.first_breach_at, at)
            incident = msgspec.structs.replace(incident, customers=max(incident.customers, customers(seen)))
        kept = {name: before.evidence[name] for name in EXPLAINED if name in before.evidence}
        incident = msgspec.structs.replace(incident, evidence=incident.evidence | kept)
    if before is None:
        id_ = incidents.open_incident(conn, incident)
        if id_ is None:
            return 0
        incident = msgspec.structs.replace(incident, id=id_)
    elif not incidents.update(conn, incident, before.state):
        return 0  # a person resolved it meanwhile
    if reason is None:
        return 0
    incidents.log(conn, incident.id, at, before.state if before else None, incident.state, reason, WHO)
    log.info(
        "incident",
        reason=reason,
        id=incident.id,
        detector=incident.detector,
        account=incident.tenant.account,
        livemode=incident.tenant.livemode,
        severity=incident.severity,
    )
    return stage(conn, incident, reason, at, policy, zone, told=before.told if before else None)


def _explained(conn: Connection, incident: Incident) -> Incident:
    """With whom it affects and what contributed most, from the window's events only."""
    first = incident.evidence["signals"][0]
    start, end = first["window"]
    seen = evidence.read_window(conn, incident.tenant, incident.metric, utc(start), utc(end))
    found = contributors(seen, rate=first["expected"] / first["out_of"] if first["out_of"] else 0.0)
    onset = incident.first_breach_at
    explained = {
        "contributors": [msgspec.to_builtins(each) for each in found],
        "objects": evidence.objects(seen),
        "changes": evidence.read_changes(conn, incident.tenant, onset - BEFORE, onset),
    }
    return msgspec.structs.replace(
        incident, customers=max(incident.customers, customers(seen)), evidence=incident.evidence | explained
    )
