"""What a webhook is sent, in each format."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from billingwatch.model import SEVERITIES, Format, Incident, Money, Reason, Tenant, described
from notify.payload import EVENTS, OPEN_FOR, payload
from notify.telling import Message, Telling
from tests.pure.messages import AT, incident

MESSAGE = Message("CRITICAL: payments failing: 71 %", "41 of 58 failed\nSince 14:05 UTC", "**md**", "<b>html</b>")
BASE = "https://watch.example/"


def told(*tellings: Telling, format: Format = "billingwatch", base: str = "", at: datetime = AT) -> Any:
    return json.loads(payload(format, tellings, MESSAGE, at, "msg_1", base))


def one(reason: Reason = "first", **changes: Any) -> Telling:
    return Telling(incident=incident(**({"id": 12} | changes)), reason=reason)


def over(reason: Reason = "resolved", **changes: Any) -> Telling:
    return one(reason, state="resolved", resolved_at=AT, **changes)


@pytest.mark.parametrize(("reason", "event"), EVENTS.items())
def test_event_of_one_incident(reason: Reason, event: str) -> None:
    body = told(one(reason), base=BASE)
    assert (body["type"], body["timestamp"]) == (f"incident.{event}", "2026-03-02T16:10:00Z")
    assert body["data"] == {
        **json.loads(json.dumps(described(incident(id=12)))),
        "url": "https://watch.example/incidents/12",
        "attached": [],
        "title": MESSAGE.title,
        "text": MESSAGE.text,
    }


def test_event_tells_what_is_attached_and_what_has_no_number() -> None:
    other = incident(id=13, limit=float("inf"), at_risk=(Money(5000, "jpy"), Money(1250, "kwd")))
    body = told(Telling(incident=incident(id=12), reason="first", attached=(other,)))
    [attached] = body["data"]["attached"]
    assert (attached["id"], attached["limit"], body["data"]["url"]) == (13, None, "")
    assert attached["money_at_risk"] == [{"amount": 5000, "currency": "jpy"}, {"amount": 1250, "currency": "kwd"}]


def test_event_of_several_incidents_lists_events() -> None:
    body = told(one(), over(id=13))
    assert body["type"] == "incidents.summary"
    assert [(each["type"], each["data"]["id"]) for each in body["data"]["incidents"]] == [
        ("incident.opened", 12),
        ("incident.resolved", 13),
    ]
    assert body["data"]["title"] == MESSAGE.title


def test_message_about_no_incident() -> None:
    body = told()
    assert body == {
        "type": "message",
        "timestamp": "2026-03-02T16:10:00Z",
        "data": {"title": MESSAGE.title, "text": MESSAGE.text},
    }
    [notice] = told(format="alertmanager")
    assert notice["labels"] == {"alertname": "BillingWatchNotice", "source": "billingwatch", "severity": "none"}
    assert (notice["startsAt"], notice["endsAt"]) == ("2026-03-02T16:10:00Z", "2026-03-02T16:15:00Z")
    kept = told(format="keep")
    assert (kept["status"], kept["severity"], kept["message"]) == ("resolved", "info", MESSAGE.title)


def test_alert_of_an_open_incident() -> None:
    assert told(one(scope="usd"), format="alertmanager", base=BASE) == [
        {
            "labels": {
                "alertname": "failure_rate",
                "source": "billingwatch",
                "account": "default",
                "livemode": "true",
                "detector": "failure_rate",
                "metric": "payment.failed",
                "scope": "usd",
                "severity": "critical",
                "incident": "12",
            },
            "annotations": {
                "summary": MESSAGE.title,
                "description": MESSAGE.text,
                "state": "open",
                "observed": "0.7069",
                "expected": "0.06",
                "money_at_risk": "1,823.00 USD",
                "customers": "31",
            },
            "startsAt": "2026-03-02T14:05:00Z",
            "endsAt": "2026-04-01T16:10:00Z",
            "generatorURL": "https://watch.example/incidents/12",
        }
    ]


def test_an_incident_told_through_its_life_leaves_no_alert_open() -> None:
    """Kept as Alertmanager keeps them: by labels, the end that was told last."""
    ends: dict[str, str] = {}
    story = [
        one("first", severity="low"),
        one("worse", severity="high", why="other words", observed=0.9),
        one("repeat", severity="high", state="acked"),
        one("escalate", severity="critical"),
        over("resolved", severity="critical"),
    ]
    open_after = []
    for minute, telling in enumerate(story):
        at = AT + timedelta(minutes=minute)
        for alert in told(telling, format="alertmanager", at=at):
            ends[json.dumps(alert["labels"], sort_keys=True)] = alert["endsAt"]
            assert alert["startsAt"] <= alert["endsAt"]
        still = [json.loads(labels)["severity"] for labels, end in ends.items() if datetime.fromisoformat(end) > at]
        open_after.append(still)
    assert open_after == [["low"], ["high"], ["high"], ["critical"], []]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_first_alert_is_one(severity: str) -> None:
    [alert] = told(one(severity=severity), format="alertmanager")
    assert alert["labels"]["severity"] == severity


def test_alert_of_a_test_ends_soon() -> None:
    [alert] = told(one("test"), format="alertmanager")
    assert alert["labels"]["test"] == "true"
    assert datetime.fromisoformat(alert["endsAt"]) < AT + OPEN_FOR / 100
    assert told(one("test"), format="keep")["status"] == "resolved"


def test_alerts_of_several_incidents_have_words_of_their_own() -> None:
    alerts = told(one(), one(id=13, why="31 refunds in an hour"), format="alertmanager")
    assert [alert["annotations"]["summary"] for alert in alerts] == [incident().why, "31 refunds in an hour"]


@pytest.mark.parametrize(
    ("changes", "status", "severity"),
    [
        ({"severity": "critical"}, "firing", "critical"),
        ({"severity": "high", "state": "acked"}, "acknowledged", "high"),
        ({"severity": "medium"}, "firing", "warning"),
        ({"severity": "low", "state": "resolved", "resolved_at": AT}, "resolved", "low"),
    ],
)
def test_keep(changes: dict[str, Any], status: str, severity: str) -> None:
    alert = told(one(**changes), format="keep", base=BASE)
    assert (alert["status"], alert["severity"]) == (status, severity)
    assert {name: alert[name] for name in ("id", "name", "fingerprint", "environment", "service", "source")} == {
        "id": "msg_1-12",
        "name": "failure_rate on default",
        "fingerprint": "billingwatch-default-live-12",
        "environment": "live",
        "service": "default",
        "source": ["billingwatch"],
    }
    assert (alert["message"], alert["description"]) == (MESSAGE.title, MESSAGE.text)
    assert (alert["startedAt"], alert["lastReceived"]) == ("2026-03-02T14:05:00Z", "2026-03-02T16:10:00Z")
    assert alert["url"] == "https://watch.example/incidents/12"
    assert alert["labels"]["money_at_risk"] == "1,823.00 USD"


def test_keep_of_several_is_a_list_and_test_mode_another_environment() -> None:
    test_mode = replace(one(id=13), incident=incident(id=13, tenant=Tenant("default", False)))
    alerts = told(one(), test_mode, format="keep")
    assert [alert["environment"] for alert in alerts] == ["live", "test"]
    assert len({alert["fingerprint"] for alert in alerts}) == 2


def test_described_misses_no_field_that_the_command_shows() -> None:
    every: Incident = incident(
        id=7, clear_since=datetime(2026, 3, 2, tzinfo=UTC), scope="usd", evidence={"signals": []}
    )
    body = told(Telling(incident=every, reason="first"))
    assert described(every).keys() <= body["data"].keys()
