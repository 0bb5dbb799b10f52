"""Alertmanager itself takes what the webhook posts, shows the incident while it is open, and lets go of it after."""

import json
import shutil
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from billingwatch.model import Channel
from notify.cause import Delivery
from notify.payload import payload
from notify.send import send
from notify.telling import Message, Telling
from tests.pipeline.sink import Sink, listening
from tests.pure.messages import incident

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
SECRET = "whsec_" + b64encode(b"k" * 32).decode()
MESSAGE = Message("CRITICAL: payments failing: 71 %", "41 of 58 failed")
NOW = datetime.now(UTC).replace(microsecond=0)  # when the tests were collected: minutes may have passed since

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="Alertmanager is not installed: apt-get install prometheus-alertmanager"
)


class Manager:
    """A running Alertmanager, and where it tells of alerts."""

    def __init__(self, port: int, told: Sink) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.told = told

    def post(self, *tellings: Telling) -> Delivery:
        channel = Channel(f"{self.base}/api/v2/alerts", secret=SECRET, format="alertmanager", allow_private=True)
        body = payload(channel.format, tellings, MESSAGE, datetime.now(UTC), "msg_1", "https://watch.example")
        return send(channel, MESSAGE, payload=body, id="msg_1")

    def alerts(self) -> list[dict[str, Any]]:
        with urlopen(f"{self.base}/api/v2/alerts") as answer:  # noqa: S310 - our own server
            return list(json.load(answer))

    def severities(self) -> list[str]:
        """Of the alerts that fire: the API shows no others."""
        return sorted(alert["labels"]["severity"] for alert in self.alerts())

    def notified(self) -> set[tuple[str, str]]:
        """The severity and the status of every alert it has told its receiver of."""
        told = [alert for post in self.told.posted for alert in post["alerts"]]
        return {(alert["labels"]["severity"], alert["status"]) for alert in told}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with socket.socket() as probe, listening() as told:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = tmp_path / "alertmanager.yml"
        config.write_text(
            "route: {receiver: sink, group_by: [incident], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}\n"
            f"receivers: [{{name: sink, webhook_configs: [{{url: 'http://127.0.0.1:{told.port}/'}}]}}]\n"
        )
        arguments = [f"--config.file={config}", f"--storage.path={tmp_path / 'data'}", "--cluster.listen-address="]
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [str(PROGRAM), *arguments, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
            )
        try:
            manager = Manager(port, told)
            until(lambda: ready(manager))
            yield manager
        finally:
            process.terminate()
            process.wait(20)


def ready(manager: Manager) -> bool:
    try:
        return manager.alerts() == []
    except OSError:
        return False


def until(true: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def one(reason: Any = "first", **changes: Any) -> Telling:
    start = NOW - timedelta(minutes=5)
    return Telling(incident=incident(**{"id": 12, "first_breach_at": start} | changes), reason=reason)


def test_open_incident_fires_until_it_is_resolved(manager: Manager) -> None:
    assert manager.post(one()) == Delivery(ok=True)
    [alert] = manager.alerts()
    assert alert["status"]["state"] in ("active", "unprocessed")
    assert alert["labels"]["alertname"] == "failure_rate"
    assert alert["labels"]["incident"] == "12"
    assert alert["annotations"]["summary"] == MESSAGE.title
    assert alert["generatorURL"] == "https://watch.example/incidents/12"
    # Longer than its own resolve_timeout of five minutes: it fires until we say that it is over.
    assert datetime.fromisoformat(alert["endsAt"]) > NOW + timedelta(days=1)
    assert manager.post(one("resolved", state="resolved", resolved_at=NOW)) == Delivery(ok=True)
    until(lambda: manager.alerts() == [])
    until(lambda: [each["status"] for each in manager.told.posted][-1:] == ["resolved"])


def test_severity_that_rises_is_told_as_a_new_alert(manager: Manager) -> None:
    assert manager.post(one(severity="medium")).ok
    until(lambda: len(manager.told.posted) == 1)
    assert manager.post(one("worse", severity="critical")).ok
    until(lambda: manager.severities() == ["critical"])
    until(lambda: ("critical", "firing") in manager.notified())
    assert manager.post(one("resolved", severity="critical", state="resolved", resolved_at=NOW)).ok
    until(lambda: manager.alerts() == [])


def test_incident_that_comes_back_fires_again(manager: Manager) -> None:
    assert manager.post(one()).ok
    assert manager.post(one("resolved", state="resolved", resolved_at=NOW)).ok
    until(lambda: manager.alerts() == [])
    assert manager.post(one()).ok
    until(lambda: manager.severities() == ["critical"])


def test_several_incidents_and_a_notice(manager: Manager) -> None:
    assert manager.post(one(), one(id=13, severity="low")).ok
    assert manager.severities() == ["critical", "low"]
    assert manager.post().ok
    assert manager.severities() == ["critical", "low", "none"]


def test_what_it_refuses_is_permanent(manager: Manager) -> None:
    channel = Channel(f"{manager.base}/api/v2/alerts", secret=SECRET, allow_private=True)
    told = send(channel, MESSAGE, payload=b'{"not": "an array"}')
    assert told == Delivery(ok=False, permanent=True, error="webhook: HTTP 400 Bad Request")
