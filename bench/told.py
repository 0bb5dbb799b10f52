"""Incidents that are written and staged as an evaluation does it, for benchmarks of what comes after."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
from psycopg import Connection

from billingwatch.model import Incident, Money, Severity, Tenant
from billingwatch.store import incidents
from notify.policy import Policy
from notify.route import Route
from worker.stage import stage

DEFAULT = Route()
DEFAULT = Route()
NONE = timedelta()  # of waiting


def policy(channels: Iterable[str], group_wait: timedelta = DEFAULT.group_wait) -> Policy:
    """One route to all of these."""
    return Policy(routes=(Route(channels=tuple(channels), group_wait=group_wait),))


def open_incident(conn: Connection, account: str, by: Policy, severity: Severity = "medium") -> int:
    """Open one of an account of its own, told by this policy; its id."""
    now = datetime.now(UTC)
    incident = Incident(
        tenant=Tenant(account, True),
        detector="refund_spike",
        metric="refund.created",
        severity=severity,
        opened_at=now,
        first_breach_at=now,
        last_breach_at=now,
        observed=12.0,
        expected=0.5,
        limit=4.0,
        peak=12.0,
        window=3600,
        why=f"12 refunds in 1 h of {account}, normally 0-3 (expected 0.5)",
        at_risk=(Money(34_800, "usd"),),
        customers=12,
    )
    with conn.transaction():
        id_ = incidents.open_incident(conn, incident)
        if id_ is None:
            raise RuntimeError(f"{account} has an incident already")
        stage(conn, msgspec.structs.replace(incident, id=id_), "first", now, by)
    return id_
