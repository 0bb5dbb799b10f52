"""The life of an incident: one pure step from what is open and what was judged to what changes, with its reason."""

from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec import Struct

from billingwatch.model import SEVERITIES, Incident, Severity, Tenant, Verdict

Told = Literal["first", "worse", "resolved"]


class Change(Struct, frozen=True):
    """The incident as it is from now on. `reason` says what people are told; None where nobody needs to know."""

    incident: Incident
    reason: Told | None


def step(
    open_incident: Incident | None,
    verdict: Verdict | None,
    at: datetime,
    *,
    tenant: Tenant,
    detector: str,
    metric: str,
    recovery: int,
) -> Change | None:
    """What the verdict changes at the instant `at`; None where nothing changes.

    A breach opens, or keeps open. A verdict between breached and recovered keeps open too: only after
    `recovery` seconds of recovered verdicts on end is the incident resolved. No verdict judges nothing.
    """
    if verdict is None:
        return None
    if open_incident is None:
        return Change(_open(verdict, at, tenant, detector, metric), "first") if verdict.breached else None
    if verdict.breached:
        return _keep(open_incident, verdict, at)
    if not verdict.recovered:
        return Change(msgspec.structs.replace(open_incident, clear_since=None), None)
    clear_since = open_incident.clear_since or at
    if at - clear_since < timedelta(seconds=recovery):
        return Change(msgspec.structs.replace(open_incident, clear_since=clear_since), None)
    return Change(
        msgspec.structs.replace(open_incident, state="resolved", clear_since=clear_since, resolved_at=at), "resolved"
    )


def _open(verdict: Verdict, at: datetime, tenant: Tenant, detector: str, metric: str) -> Incident:
    return Incident(
        tenant=tenant,
        detector=detector,
        metric=metric,
        severity=verdict.severity,
        opened_at=at,
        first_breach_at=min(at, verdict.first_breach_at or at),
        last_breach_at=at,
        observed=verdict.observed,
        expected=verdict.expected,
        limit=verdict.limit,
        peak=verdict.observed,
        told=verdict.observed,
        window=verdict.window,
        why=verdict.why,
        at_risk=verdict.at_risk,
        customers=verdict.customers,
    )


def _keep(incident: Incident, verdict: Verdict, at: datetime) -> Change:
    """Breached again: the evidence is kept current, and a higher severity is told."""
    worse = _rank(verdict.severity) > _rank(incident.severity)
    return Change(
        msgspec.structs.replace(
            incident,
            severity=verdict.severity if worse else incident.severity,
            last_breach_at=at,
            clear_since=None,
            observed=verdict.observed,
            expected=verdict.expected,
            limit=verdict.limit,
            peak=max(incident.peak, verdict.observed),
            told=verdict.observed if worse else incident.told,
            window=verdict.window,
            why=verdict.why,
            at_risk=verdict.at_risk,
            customers=max(incident.customers, verdict.customers),
        ),
        "worse" if worse else None,
    )


def _rank(severity: Severity) -> int:
    return SEVERITIES.index(severity)
