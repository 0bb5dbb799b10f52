"""Judge one tenant: read windows, ask the detectors, step the incidents, stage the alerts; one transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
import structlog
from psycopg import Connection

from billingwatch.model import Incident, Tenant
from billingwatch.store import accounts, events, incidents, outbox, rollups
from billingwatch.store.accounts import Account
from detectors.incident import Change, step
from detectors.registry import Detector
from detectors.series import BUCKET, DAY, HOUR, MINUTE, Reading, Series, grid
from notify.message import compose
from notify.route import route

log = structlog.get_logger(__name__)

HISTORY = 15 * DAY  # of hourly buckets: the longest look back of any detector
RECENT = 26 * HOUR  # of 5-minute buckets: the edges of the longest window, in part hours
WHO = "billingwatch"  # in the incident log, where no person acted

# Whose customers an incident about a metric affects: the event types that tell it.
_TYPES = {
    "payment.failed": ("charge.failed", "payment_intent.payment_failed", "invoice.payment_failed"),
    "refund.created": ("refund.created", "charge.refunded"),
    "subscription.canceled": ("customer.subscription.deleted", "customer.subscription.updated"),
}


def evaluate(
    conn: Connection, tenant: Tenant, at: datetime, detectors: Mapping[str, Detector], channels: Sequence[str]
) -> list[int]:
    """Judge the tenant as of `at` and commit; the ids of the alerts staged, to be enqueued afterwards.

    Under the tenant's lock: of two workers the second sees what the first wrote, so nothing opens twice.
    """
    with conn.transaction():
        account = accounts.begin_evaluation(conn, tenant, at)
        if account is None:
            return []
        reading = _read(conn, account, at, detectors)
        open_ones = {incident.detector: incident for incident in incidents.read_open(conn, tenant)}
        staged: list[int] = []
        for name, detector in detectors.items():
            change = step(
                open_ones.get(name),
                detector(reading),
                at,
                tenant=tenant,
                detector=name,
                metric=detector.metric,
                recovery=detector.recovery,
            )
            if change:
                staged += _apply(conn, open_ones.get(name), change, at, channels)
        return staged


def _read(conn: Connection, account: Account, at: datetime, detectors: Mapping[str, Detector]) -> Reading:
    metrics = {metric for detector in detectors.values() for metric in detector.metrics}
    end = grid(at)
    buckets = rollups.read(
        conn,
        account.tenant,
        metrics,
        {60: (end // HOUR * HOUR - HISTORY, end), BUCKET // MINUTE: (end - RECENT, end)},
    )
    return Reading(
        series=Series(buckets),
        at=at,
        since=account.first_event,
        newest=min(account.newest_event, at),
        received=account.newest_received,
    )


def _apply(
    conn: Connection, before: Incident | None, change: Change, at: datetime, channels: Sequence[str]
) -> list[int]:
    """Write the change and stage what it tells; the staged alerts' ids."""
    incident = change.incident
    types = _TYPES.get(incident.metric)
    if change.reason in ("first", "worse") and types:
        affected = events.customers(conn, incident.tenant, types, incident.first_breach_at, at)
        incident = msgspec.structs.replace(incident, customers=max(incident.customers, affected))
    if before is None:
        id_ = incidents.open_incident(conn, incident)
        if id_ is None:
            return []
        incident = msgspec.structs.replace(incident, id=id_)
    elif not incidents.update(conn, incident):
        return []  # a person resolved it meanwhile
    if change.reason is None:
        return []
    incidents.log(conn, incident.id, at, before.state if before else None, incident.state, change.reason, WHO)
    message = compose(incident, change.reason, at, told=before.told if before else None)
    log.info(
        "incident",
        reason=change.reason,
        id=incident.id,
        detector=incident.detector,
        account=incident.tenant.account,
        livemode=incident.tenant.livemode,
        severity=incident.severity,
    )
    return [
        outbox.stage(conn, incident.id, each.channel, change.reason, each.reason, message.title, message.body, at)
        for each in route(incident, change.reason, channels)
    ]
