"""What a webhook is sent: our own event, Alertmanager's alerts, or Keep's. Pure.

The fields of an incident have the names that `billingwatch incidents show --json` gives them.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from billingwatch.model import SEVERITIES, Format, Incident, Reason, Severity, State, described, iso
from notify.telling import Message, Telling

SOURCE = "billingwatch"

EVENTS: dict[Reason, str] = {
    "first": "opened",
    "worse": "worse",
    "repeat": "reminder",
    "escalate": "escalated",
    "resolved": "resolved",
    "test": "test",
    "digest": "digest",
}

# An alert without an end is over for Alertmanager after its resolve_timeout, five minutes, while an incident that
# somebody looks after is not told again for days. So an open one is told with an end that its resolution comes before.
OPEN_FOR = timedelta(days=30)
NOTICE_FOR = timedelta(minutes=5)  # a test, or what is about no incident: nobody will tell that it is over

_KEEP_SEVERITY: dict[Severity, str] = {"low": "low", "medium": "warning", "high": "high", "critical": "critical"}
_KEEP_STATUS: dict[State, str] = {"open": "firing", "acked": "acknowledged", "resolved": "resolved"}


def payload(
    format: Format, tellings: Sequence[Telling], message: Message, at: datetime, id: str, base_url: str = ""
) -> bytes:
    """The JSON of `message`, told at `at` about the incidents of `tellings`; without any it is a notice.

    `id` is the message's, the same for every try. `base_url` is the console's address, "" where there is none.
    """
    write = {"billingwatch": _events, "alertmanager": _alerts, "keep": _keep}[format]
    return msgspec.json.encode(write(tellings, message, at, id, base_url.rstrip("/")))


def _events(tellings: Sequence[Telling], message: Message, at: datetime, id: str, base: str) -> dict[str, Any]:
    """One incident is an event of its own; several are one with a list of such events."""
    words = {"title": message.title, "text": message.text}
    events: list[dict[str, Any]] = [
        {
            "type": f"incident.{EVENTS[telling.reason]}",
            "timestamp": iso(at),
            "data": {
                **described(telling.incident),
                "url": _url(telling.incident, base),
                "attached": [described(each) for each in telling.attached],
            },
        }
        for telling in tellings
    ]
    if len(events) == 1:
        [event] = events
        return {**event, "data": {**event["data"], **words}}
    kind = "incidents.summary" if events else "message"
    listed: dict[str, Any] = {"incidents": events} if events else {}
    return {"type": kind, "timestamp": iso(at), "data": {**words, **listed}}


def _alerts(tellings: Sequence[Telling], message: Message, at: datetime, id: str, base: str) -> list[dict[str, Any]]:
    """The array that POST /api/v2/alerts takes.

    Alertmanager knows an alert by its labels and tells of it when it is new. An incident keeps its labels for life but
    the severity, by which people route there: when that rises, the alert of the lower one ends and a new one is told.
    """
    if not tellings:
        end = at + NOTICE_FOR
        labels = {"alertname": "BillingWatchNotice", "source": SOURCE, "severity": "none"}
        words = {"summary": message.title, "description": message.text}
        return [{"labels": labels, "annotations": words, "startsAt": iso(at), "endsAt": iso(end)}]
    alone = message if len(tellings) == 1 else None
    alerts = []
    for telling in tellings:
        now, end = telling.incident.severity, _end(telling, at)
        alerts.append(_alert(telling, alone, now, end, base))
        # A severity only rises; which one was told before is not known here, and the end of none does no harm.
        lower = () if telling.reason in {"first", "test"} else SEVERITIES[: SEVERITIES.index(now)]
        alerts.extend(_alert(telling, None, severity, min(at, end), base) for severity in lower)
    return alerts


def _alert(telling: Telling, message: Message | None, severity: Severity, end: datetime, base: str) -> dict[str, Any]:
    incident = telling.incident
    labels = {
        "alertname": incident.detector,
        "source": SOURCE,
        "account": incident.tenant.account,
        "livemode": str(incident.tenant.livemode).lower(),
        "detector": incident.detector,
        "metric": incident.metric,
        "scope": incident.scope,
        "severity": severity,
        "incident": str(incident.id),
        "test": "true" if telling.reason == "test" else "",
    }
    annotations = {
        "summary": message.title if message else incident.why,
        "description": message.text if message else incident.why,
        "state": incident.state,
        "observed": f"{incident.observed:g}",
        "expected": f"{incident.expected:g}",
        "money_at_risk": " + ".join(map(str, incident.at_risk)),
        "customers": str(incident.customers),
    }
    url = _url(incident, base)
    return {
        "labels": {name: value for name, value in labels.items() if value},  # an empty label is no label
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": iso(min(incident.first_breach_at, end)),
        "endsAt": iso(end),
        **({"generatorURL": url} if url else {}),
    }


def _end(telling: Telling, at: datetime) -> datetime:
    if telling.incident.state == "resolved":
        return telling.incident.resolved_at or at
    return at + (NOTICE_FOR if telling.reason == "test" else OPEN_FOR)


def _keep(
    tellings: Sequence[Telling], message: Message, at: datetime, id: str, base: str
) -> dict[str, Any] | list[dict[str, Any]]:
    """What POST /alerts/event takes: an AlertDto, or several. Known by the fingerprint, so that it ends as it began."""
    if not tellings:
        # Nothing would ever end it, so it begins as ended.
        return {
            "name": "BillingWatch notice",
            "status": "resolved",
            "severity": "info",
            "environment": "undefined",
            **_kept(id, message.title, message.text, at),
            "fingerprint": f"{SOURCE}-notice",
        }
    alerts = []
    for telling in tellings:
        incident = telling.incident
        title, text = (message.title, message.text) if len(tellings) == 1 else (incident.why, incident.why)
        where = f"{incident.tenant.account}-{'live' if incident.tenant.livemode else 'test'}"
        url = _url(incident, base)
        fields = {name: value for name, value in described(incident).items() if name != "evidence"}
        alerts.append(
            {
                "name": f"{incident.detector} on {incident.tenant.account}",
                "status": "resolved" if telling.reason == "test" else _KEEP_STATUS[incident.state],
                "severity": _KEEP_SEVERITY[incident.severity],
                "environment": "live" if incident.tenant.livemode else "test",
                "service": incident.tenant.account,
                **_kept(f"{id}-{incident.id}", title, text, at),
                "startedAt": iso(incident.first_breach_at),
                "fingerprint": f"{SOURCE}-{where}-{incident.id}",
                "labels": {**fields, "money_at_risk": " + ".join(map(str, incident.at_risk))},
                **({"url": url} if url else {}),
            }
        )
    return alerts[0] if len(alerts) == 1 else alerts


def _kept(id: str, title: str, text: str, at: datetime) -> dict[str, Any]:
    return {"id": id, "message": title, "description": text, "lastReceived": iso(at), "source": [SOURCE]}


def _url(incident: Incident, base: str) -> str:
    return f"{base}/incidents/{incident.id}" if base else ""
