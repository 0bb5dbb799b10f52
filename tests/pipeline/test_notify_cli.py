"""`notify`: tests go the way of every alert where a worker lives, else straight from here; how channels do."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection
from redis import Redis

from billingwatch.cli import notify, running
from billingwatch.model import OWN
from billingwatch.queues import ALERTS
from billingwatch.store import deliveries, incidents, outbox, trials
from tests.conftest import Servers
from tests.factories import incident
from tests.pipeline.command import isolate, run, succeed
from tests.pipeline.sink import Sink, listening
from tests.waiting import until
from worker.health import live_workers

CHANNELS = '[channels]\ngood = "{good}"\nbad = "{bad}"\n'
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Sink, Sink]]:
    """Two channels, `good` and `bad`, and no server named."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)
    with listening() as good, listening() as bad:
        (tmp_path / "billingwatch.toml").write_text(CHANNELS.format(good=good.url, bad=bad.url))
        yield good, bad


@pytest.fixture
def stores(sinks: tuple[Sink, Sink], monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> None:
    """The servers are named; nobody works on them."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)


@contextmanager
def working(redis: Redis) -> Iterator[None]:
    """An alerts worker lives."""
    process = subprocess.Popen(
        [sys.executable, "-m", "billingwatch", "worker", ALERTS, "--in-process"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: live_workers(redis, ALERTS, datetime.now(UTC)), 40)
        yield
    finally:
        process.terminate()
        process.wait(30)


def listed(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(succeed(*arguments, "--json"))
    return found


# --- by the worker ----------------------------------------------------------------------------------------------------


def test_it_goes_the_way_of_every_alert_and_says_what_arrived_where(
    sinks: tuple[Sink, Sink], stores: None, conn: Connection, redis: Redis, tmp_path: Path
) -> None:
    good, bad = sinks
    with working(redis):
        result = run("notify", "test")
        assert result.exit_code == 0
        assert result.stderr == ""
        assert [line.partition(" in ")[0] for line in result.stdout.splitlines()] == ["good: sent", "bad: sent"]
        assert all("TEST from BillingWatch" in line for line in result.stdout.splitlines())
        assert good.titles() == bad.titles() == ["TEST from BillingWatch"]
        rows = conn.execute("SELECT channel, kind, outcome FROM deliveries ORDER BY channel").fetchall()
        assert rows == [("bad", "test", "sent"), ("good", "test", "sent")]

        (one,) = listed("notify", "test", "good")
        assert (one["via"], one["ok"], one["error"]) == ("worker", True, "")
        assert one["url"] == f"json://127.0.0.1:{good.port}/****"
        assert 0 < one["seconds"] < notify.PATIENCE
        assert len(bad.posted) == 1

        bad.status = 503  # which an alert would be tried again for, a test is not
        result = run("notify", "test")
        assert result.exit_code == 1
        assert "good: sent in" in result.stdout
        assert "bad: FAILED: " in result.stdout
        assert "503" in result.stdout
        states: dict[str, str] = dict(conn.execute("SELECT channel, state FROM alerts WHERE id > 3").fetchall())
        assert states == {"good": "sent", "bad": "given_up"}

        bad.status = 200
        with (tmp_path / "billingwatch.toml").open("a") as file:
            file.write(f'new = "{good.url}"\n')
        result = run("notify", "test", "new")
        assert result.exit_code == 1
        assert "does not know this channel: restart it" in result.stdout

        assert listed("notify", "test", "good", "--direct")[0]["via"] == "direct"


def test_what_nobody_sent_in_time_is_taken_back(
    sinks: tuple[Sink, Sink], stores: None, conn: Connection, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is busy for ever, or was killed a moment ago: its entry stands for a minute."""
    monkeypatch.setattr(notify, "PATIENCE", 0.2)
    redis.sadd(f"rq:workers:{ALERTS}", "rq:worker:busy")
    redis.hset("rq:worker:busy", mapping={"last_heartbeat": "2026-01-01T00:00:00.000000Z", "state": "busy"})
    result = run("notify", "test")
    assert result.exit_code == 1
    assert "good: FAILED: dropped: nobody sent it" in result.stdout
    assert outbox.due_channels(conn, datetime.now(UTC)) == []
    assert sinks[0].posted == []


def test_only_what_nobody_took_is_taken_back(conn: Connection, now: datetime) -> None:
    taken, left = trials.stage(conn, ("good", "bad"), now)
    (alert,) = outbox.waiting(conn, "good", now)
    sending = deliveries.begin(conn, deliveries.Delivery(channel="good", kind="test", title="T", body="B"), now)
    assert outbox.claim(conn, [alert], sending, "test", now)
    assert trials.withdraw(conn, [taken, left]) == 1
    assert [(each.state, each.over, each.title) for each in trials.read(conn, [left, taken])] == [
        ("sending", False, "T"),
        ("dropped", True, ""),
    ]


# --- from here --------------------------------------------------------------------------------------------------------


def test_without_servers_it_is_sent_from_here_and_that_is_said(sinks: tuple[Sink, Sink]) -> None:
    good, bad = sinks
    result = run("notify", "test")
    assert result.exit_code == 0
    assert result.stdout == "good: sent\nbad: sent\n"
    assert "DATABASE_URL and REDIS_URL are not set" in result.stderr
    bad.status = 404
    result = run("notify", "test", "--json")
    assert result.exit_code == 1
    assert [(each["channel"], each["ok"], each["via"]) for each in json.loads(result.stdout)] == [
        ("good", True, "direct"),
        ("bad", False, "direct"),
    ]
    assert len(good.posted) == 2


def test_without_a_worker_it_is_sent_from_here_and_that_is_said(
    sinks: tuple[Sink, Sink], stores: None, conn: Connection
) -> None:
    result = run("notify", "test", "good")
    assert result.exit_code == 0
    assert "no alerts worker is running" in result.stderr
    assert len(sinks[0].posted) == 1
    assert conn.execute("SELECT count(*) FROM alerts").fetchone() == (0,)


@pytest.mark.parametrize(
    ("variable", "address", "said"),
    [
        ("DATABASE_URL", "postgresql://ada:hunter2@127.0.0.1:1/none", "Postgres does not answer"),
        ("REDIS_URL", "redis://:hunter2@127.0.0.1:1/0", "Redis does not answer"),
    ],
)
def test_servers_that_are_away_keep_no_test_back(
    sinks: tuple[Sink, Sink], stores: None, monkeypatch: pytest.MonkeyPatch, variable: str, address: str, said: str
) -> None:
    monkeypatch.setenv(variable, address)
    result = run("notify", "test", "good")
    assert result.exit_code == 0
    assert said in result.stderr
    assert "hunter2" not in result.output
    assert len(sinks[0].posted) == 1


def test_several_addresses_of_one_name_are_all_tried(sinks: tuple[Sink, Sink], tmp_path: Path) -> None:
    (tmp_path / "billingwatch.toml").write_text(f'[channels]\nops = ["{sinks[0].url}", "{sinks[1].url}"]\n')
    assert succeed("notify", "test", "ops") == "ops-1: sent\nops-2: sent\n"
    assert succeed("notify", "test", "ops-2") == "ops-2: sent\n"
    assert run("notify", "test", "nobody").exit_code == 2


# --- how they do ------------------------------------------------------------------------------------------------------


def test_channels_are_listed_with_how_they_do(sinks: tuple[Sink, Sink], stores: None, conn: Connection) -> None:
    now = datetime.now(UTC)

    def deliver(channel: str, outcome: deliveries.Outcome, error: str, ago: timedelta) -> None:
        once = deliveries.Delivery(channel=channel, kind="alert", title="T", body="B")
        deliveries.end(conn, deliveries.begin(conn, once, now - ago), outcome, error, now - ago)

    good, bad = listed("notify", "channels")
    assert (good["last"], good["failures"], good["broken"], good["incident"]) == (None, 0, "", None)

    deliver("good", "sent", "", timedelta(minutes=2))
    deliver("bad", "sent", "", timedelta(minutes=5))
    for second in range(20):
        deliver("bad", "failed", "HTTP 500", timedelta(seconds=40 - second))
    id_ = incidents.open_incident(conn, incident(tenant=OWN, detector="channel_broken", scope="bad"))
    gone = incidents.open_incident(conn, incident(tenant=OWN, detector="channel_broken", scope="old"))
    good, bad, old = listed("notify", "channels")
    assert (good["outcome"], good["failures"], good["paused_until"]) == ("sent", 0, None)
    assert (bad["outcome"], bad["failures"], bad["error"], bad["incident"]) == ("failed", 20, "HTTP 500", id_)
    assert datetime.fromisoformat(bad["paused_until"]) > now
    assert "20 tries failed in a row" in bad["broken"]
    assert (old["channel"], old["configured"], old["incident"]) == ("old", False, gone)

    said = succeed("notify", "channels")
    assert "****" in said
    assert f"incident {id_} is open" in " ".join(said.split())


def test_channels_want_a_database(sinks: tuple[Sink, Sink]) -> None:
    result = run("notify", "channels")
    assert result.exit_code == 2
    assert "DATABASE_URL: is not set" in result.stderr


# --- beside `up` ------------------------------------------------------------------------------------------------------


def test_servers_of_a_running_up_are_found_and_none_is_started(servers: Servers, tmp_path: Path) -> None:
    nobody = {"BILLINGWATCH_DATA_DIR": str(tmp_path / "nobody")}
    assert running.beside(nobody) == nobody
    assert not (tmp_path / "nobody").exists()
    found = running.beside({"BILLINGWATCH_DATA_DIR": str(servers.folder)})
    assert (found["DATABASE_URL"], found["REDIS_URL"]) == (servers.database_url, servers.redis_url)
    named = {"BILLINGWATCH_DATA_DIR": str(servers.folder), "REDIS_URL_FILE": "redis.txt"}
    assert running.beside(named) == {**named, "DATABASE_URL": servers.database_url}
