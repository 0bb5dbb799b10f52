"""An incident's life, step by step: what each verdict changes, and what people are told of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from billingwatch.model import Incident, Money, Severity, Tenant, Verdict
from detectors.incident import Change, step

AT = datetime(2026, 9, 14, 10, 0, tzinfo=UTC)
TENANT = Tenant("acct_1", True)
RECOVERY = 1800  # seconds


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def verdict(breached: bool, **changes: Any) -> Verdict:
    fields: dict[str, Any] = {
        "breached": breached,
        "observed": 12.0,
        "expected": 2.0,
        "limit": 7.0,
        "window": 3600,
        "why": "12 refunds in the last hour",
        "severity": "high",
        "at_risk": (Money(900, "usd"),),
        "customers": 3,
    }
    return Verdict(**(fields | changes))


BREACHED = verdict(True)
BETWEEN = verdict(False, observed=6.0)
RECOVERED = verdict(False, observed=1.0, recovered=True)

OPEN = Incident(
    tenant=TENANT,
    detector="refund_spike",
    metric="refund.created",
    severity="high",
    opened_at=AT - minutes(60),
    first_breach_at=AT - minutes(90),
    last_breach_at=AT - minutes(20),
    observed=20.0,
    expected=2.0,
    limit=7.0,
    peak=20.0,
    told=20.0,
    window=3600,
    why="20 refunds in the last hour",
    customers=9,
    id=7,
)


def taken(incident: Incident | None, judged: Verdict | None, at: datetime = AT) -> Change | None:
    return step(
        incident, judged, at, tenant=TENANT, detector="refund_spike", metric="refund.created", recovery=RECOVERY
    )


def opened(**changes: Any) -> Incident:
    return msgspec.structs.replace(OPEN, **changes)


KEPT: dict[str, Any] = {
    "last_breach_at": AT,
    "clear_since": None,
    "observed": 12.0,
    "peak": 20.0,
    "why": "12 refunds in the last hour",
    "at_risk": (Money(900, "usd"),),
    "customers": 9,
}


@pytest.mark.parametrize(
    ("incident", "judged", "changes", "reason"),
    [
        pytest.param(OPEN, BREACHED, KEPT, None, id="breached again: the evidence is kept current"),
        pytest.param(opened(state="acked"), BREACHED, KEPT, None, id="breached again, seen by a person: stays acked"),
        pytest.param(
            OPEN, verdict(True, observed=31.0, customers=40), KEPT | {"observed": 31.0, "peak": 31.0, "customers": 40},
            None, id="breached more than ever: the peak moves",
        ),
        pytest.param(
            OPEN, verdict(True, severity="critical"), KEPT | {"severity": "critical", "told": 12.0}, "worse",
            id="more severe is told",
        ),
        pytest.param(
            opened(state="acked"), verdict(True, severity="critical"), KEPT | {"severity": "critical", "told": 12.0},
            "worse", id="more severe is told to who has seen it, too",
        ),
        pytest.param(OPEN, verdict(True, severity="medium"), KEPT, None, id="less severe changes no severity"),
        pytest.param(
            opened(clear_since=AT - minutes(29)), BREACHED, KEPT, None, id="breached while recovering: starts again"
        ),
        pytest.param(OPEN, BETWEEN, {"clear_since": None}, None, id="between breached and recovered: stays open"),
        pytest.param(
            opened(clear_since=AT - minutes(29)), BETWEEN, {"clear_since": None}, None,
            id="between, while recovering: starts again",
        ),
        pytest.param(
            opened(clear_since=AT - minutes(31)), BETWEEN, {"clear_since": None}, None,
            id="between at the end of recovery: not resolved",
        ),
        pytest.param(OPEN, RECOVERED, {"clear_since": AT}, None, id="recovered for the first time"),
        pytest.param(
            opened(clear_since=AT - minutes(29.9)), RECOVERED, {"clear_since": AT - minutes(29.9)}, None,
            id="recovered, not long enough",
        ),
        pytest.param(
            opened(clear_since=AT - minutes(30)), RECOVERED,
            {"state": "resolved", "clear_since": AT - minutes(30), "resolved_at": AT}, "resolved",
            id="recovered long enough on end",
        ),
        pytest.param(
            opened(state="acked", clear_since=AT - minutes(45)), RECOVERED,
            {"state": "resolved", "clear_since": AT - minutes(45), "resolved_at": AT}, "resolved",
            id="acked ones are resolved as well",
        ),
    ],
)  # fmt: skip
def test_what_a_verdict_changes_of_an_open_incident(
    incident: Incident, judged: Verdict, changes: dict[str, Any], reason: str | None
) -> None:
    assert taken(incident, judged) == Change(msgspec.structs.replace(incident, **changes), reason)  # type: ignore[arg-type]


@pytest.mark.parametrize("incident", [None, OPEN, opened(state="acked", clear_since=AT - minutes(99))])
def test_no_verdict_judges_nothing(incident: Incident | None) -> None:
    assert taken(incident, None) is None


@pytest.mark.parametrize("judged", [BETWEEN, RECOVERED])
def test_without_a_breach_nothing_opens(judged: Verdict) -> None:
    assert taken(None, judged) is None


@pytest.mark.parametrize("severity", ["low", "medium", "high", "critical"])
def test_a_breach_opens_an_incident_with_its_evidence_and_tells_it_first(severity: Severity) -> None:
    change = taken(None, verdict(True, severity=severity))
    expected = Incident(
        tenant=TENANT,
        detector="refund_spike",
        metric="refund.created",
        severity=severity,
        opened_at=AT,
        first_breach_at=AT,
        last_breach_at=AT,
        observed=12.0,
        expected=2.0,
        limit=7.0,
        peak=12.0,
        told=12.0,
        window=3600,
        why="12 refunds in the last hour",
        at_risk=(Money(900, "usd"),),
        customers=3,
    )
    assert change == Change(expected, "first")


@pytest.mark.parametrize(
    ("began", "first_breach_at"),
    [(AT - minutes(40), AT - minutes(40)), (None, AT), (AT, AT), (AT + minutes(1), AT)],
)
def test_an_incident_began_when_the_breach_did_and_never_after_it_opened(
    began: datetime | None, first_breach_at: datetime
) -> None:
    change = taken(None, verdict(True, first_breach_at=began))
    assert change is not None
    assert (change.incident.opened_at, change.incident.first_breach_at) == (AT, first_breach_at)


def test_a_whole_life() -> None:
    """A burst that gets worse, half recovers, comes back and ends: three messages in four hours."""
    critical = verdict(True, severity="critical", observed=40.0)
    judged = [BREACHED, BREACHED, critical, BETWEEN, *[RECOVERED] * 5, BREACHED, critical, *[RECOVERED] * 9]
    incident, told = None, []
    for tick, each in enumerate(judged):
        change = taken(incident, each, AT + minutes(5 * tick))
        if change is None:
            continue
        incident = change.incident
        if change.reason:
            told.append((5 * tick, change.reason))
        if incident.state == "resolved":
            break
    assert told == [(0, "first"), (10, "worse"), (85, "resolved")]
    assert incident is not None
    assert incident.opened_at == AT
    assert incident.last_breach_at == AT + minutes(50)
    assert incident.clear_since == AT + minutes(55)
    assert incident.peak == 40.0
