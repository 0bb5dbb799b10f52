"""Drills in a pipeline that runs: told as drill on every channel, and however they end, nothing of them is left."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from billingwatch.store import drill
from tests.faults.rig import Rig, kill
from tests.faults.sender import Post
from tests.pipeline.sink import Sink, listening
from tests.waiting import until

CONFIG = """
channels.ops = "{ops}"
channels.pager = "{pager}"
alerts.group_wait = "3s"
"""


@pytest.fixture
def sinks(rig: Rig) -> Iterator[tuple[Sink, Sink]]:
    with listening() as ops, listening() as pager:
        config = rig.folder / "drill.toml"
        config.write_text(CONFIG.format(ops=ops.url, pager=pager.url))
        rig.environment |= {"BILLINGWATCH_CONFIG": str(config), "PORT": str(rig.port)}
        yield ops, pager


def command(rig: Rig, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "billingwatch", "drill", *arguments],
        env=rig.environment,
        cwd=rig.folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def rows(rig: Rig) -> dict[str, int]:
    with rig.connect() as conn:
        tables = (*drill.BY_ACCOUNT, *drill.BY_INCIDENT, "incidents", "audit", "quarantine")
        counted = {}
        for table in tables:
            (counted[table],) = conn.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)  # noqa: S608 - ours
        return counted


def is_open(rig: Rig) -> bool:
    with rig.connect() as conn:
        return conn.execute("SELECT count(*) > 0 FROM incidents WHERE starts_with(account, 'drill_')").fetchone() == (
            True,
        )


@pytest.mark.timeout(240)
def test_drill_is_told_as_one_and_leaves_nothing_however_it_ends(
    rig: Rig, sinks: tuple[Sink, Sink], posts: list[Post]
) -> None:
    rig.up("--console-port", "0")
    with rig.load(posts[:200], 200) as stripe:
        stripe.send_all()
    rig.settle()
    until(lambda: not rig.queue("evaluate").count and not rig.queue("alerts").count)
    before = rows(rig)
    assert before["events"] == len(stripe.acked)

    result = command(rig, "refund_spike", "volume_drop", "--json")
    assert result.returncode == 0, result.stderr + result.stdout
    for told in json.loads(result.stdout):
        assert told["detector"] in told["detected_by"]
        assert 0 < told["seconds"] < 30
        assert [each["channel"] for each in told["heard"]] == ["ops", "pager"]
        for each in told["heard"]:
            assert each["state"] == "sent"
            assert each["group_wait"] == 3
            assert 3 <= each["seconds"] < 40
    for sink in sinks:
        assert sorted("drill_refund_spike" in title for title in sink.titles()) == [False, True]
        assert all("DRILL" in title for title in sink.titles())
    assert rows(rig) == before

    for number in (signal.SIGINT, signal.SIGTERM):
        program = rig.start("drill", "churn_spike")
        until(lambda: is_open(rig), 40)
        program.process.send_signal(number)
        assert program.wait() == 1
        assert rows(rig) == before

    program = rig.start("drill", "dispute_spike")
    until(lambda: is_open(rig), 40)
    kill(program.pid)
    program.wait()
    assert rows(rig) != before
    until(lambda: rig.unfinished() == 0)
    result = command(rig, "failure_rate", "--keep")
    assert result.returncode == 0, result.stderr + result.stdout
    assert "Cleaning up after an earlier drill: drill_dispute_spike" in result.stderr
    with rig.connect() as conn:
        assert drill.leftovers(conn) == ["drill_failure_rate"]
    assert command(rig, "--clean").stdout == "Cleaned up: drill_failure_rate\n"
    assert rows(rig) == before


@pytest.mark.timeout(120)
def test_channel_that_refuses_and_a_secret_that_is_not_the_receivers(rig: Rig, sinks: tuple[Sink, Sink]) -> None:
    ops, pager = sinks
    pager.status = 404
    rig.up("--console-port", "0")
    result = command(rig, "card_testing")
    assert result.returncode == 1
    assert "card_testing on pager: " in result.stdout
    assert "404" in result.stdout
    assert [title for title in ops.titles() if "drill_card_testing" in title]
    rig.environment["STRIPE_WEBHOOK_SECRET"] = "whsec_another"
    result = command(rig, "card_testing")
    assert result.returncode == 1
    assert "the receiver refuses the events" in result.stdout
    with rig.connect() as conn:
        assert drill.leftovers(conn) == []
