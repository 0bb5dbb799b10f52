"""`billingwatch backtest` as people and CI use it: what it reads, what it says of it, and how it ends."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result
from msgspec import Struct
from psycopg import Connection

import billingwatch
from billingwatch.queues import Received
from billingwatch.simulator.incidents import parse
from billingwatch.simulator.stream import Scenario, Stream
from billingwatch.store import markers
from billingwatch.store.markers import Marker
from tests.conftest import Servers
from tests.factories import LIVE
from tests.pipeline import command
from tests.pipeline.command import isolate
from worker.record import record

START = datetime(2026, 9, 1, tzinfo=UTC)
FAILING = START + timedelta(days=1, hours=12)
KEYS = (
    "detector metric account livemode scope severity opened_at first_breach_at resolved_at observed expected limit"
    " money_at_risk customers why"
).split()


class Shop(Struct, frozen=True):
    """Two days of a shop whose payments fail for two hours: its events, and what was planted."""

    events: Path
    labels: Path
    lines: list[bytes]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    planted = (parse("failed_payments@+1d12h,size=0.9,for=2h"),)
    stream = Stream(
        Scenario(
            seed=5, start=int(START.timestamp()), days=2, volume=500, surprises=False, incidents=planted, arrivals=True
        )
    )
    lines = [msgspec.json.encode(each) + b"\n" for each in stream.deliveries()]
    (folder / "shop.jsonl").write_bytes(b"".join(lines))
    (folder / "labels.json").write_bytes(msgspec.json.encode(stream.labels()))
    return Shop(folder / "shop.jsonl", folder / "labels.json", lines)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings, and no file in the working folder."""
    isolate(monkeypatch, tmp_path)


def run(*arguments: str | Path) -> Result:
    """The command's result; it never ends in a traceback."""
    return command.run("backtest", *map(str, arguments))


def found(*arguments: str | Path) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    shown: dict[str, Any] = json.loads(result.stdout)
    return shown


def rules(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# What it says


def test_json_is_one_object_of_the_promised_shape(shop: Shop) -> None:
    shown = found(shop.events)
    assert list(shown) == ["events", "duplicates", "unparsed", "from", "to", "seconds", "incidents"]
    assert shown["events"] == len(shop.lines)
    assert shown["unparsed"] == 0
    assert shown["from"].startswith("2026-09-01T00:")
    assert shown["to"].startswith("2026-09-02T23:")
    (incident,) = shown["incidents"]
    assert list(incident) == KEYS
    assert (incident["detector"], incident["account"], incident["livemode"]) == ("failure_rate", "default", True)
    opened = datetime.fromisoformat(incident["opened_at"])
    assert FAILING < opened < FAILING + timedelta(hours=1)
    assert incident["opened_at"].endswith(":00Z")
    assert incident["observed"] > incident["limit"] > incident["expected"]
    assert incident["money_at_risk"][0]["currency"] == "usd"


def test_labels_turn_incidents_into_precision_recall_and_delay(shop: Shop) -> None:
    result = run(shop.events, "--labels", shop.labels)
    assert result.exit_code == 0
    heading, row, total = (line.split() for line in result.stdout.splitlines()[2:5])
    assert heading[:8] == ["detector", "incidents", "noise", "a", "week", "precision", "labels", "recall"]
    assert row[:7] == ["failure_rate", "1", "0", "0.00", "1.00", "1", "1.00"]
    assert total[:2] == ["in", "all"]
    assert re.search(r"2026-09-02 1[23]:\d\d .* failure_rate .* true .* payments failed", result.stdout)


def test_scores_are_added_to_the_object_where_there_are_labels(shop: Shop) -> None:
    scores = found(shop.events, "--labels", shop.labels)["scores"]
    assert scores["failure_rate"] == scores["in all"]
    assert (scores["in all"]["precision"], scores["in all"]["recall"]) == (1, 1)
    assert 0 < scores["in all"]["delay_minutes"]["median"] < 60


def test_without_labels_an_incident_is_noise_and_too_much_of_it_fails(shop: Shop) -> None:
    result = run(shop.events, "--max-noise", "3")
    assert result.exit_code == 1
    assert "3.50 false incidents an account-week are more than 3" in result.stderr
    assert run(shop.events, "--max-noise", "3", "--labels", shop.labels).exit_code == 0


def test_nothing_is_judged_of_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    shown = found("none.jsonl", "--max-noise", "0")
    assert (shown["events"], shown["from"], shown["to"], shown["incidents"]) == (0, None, None, [])


def test_a_malformed_line_is_told_by_file_and_number_and_the_rest_is_judged(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"".join(shop.lines[:30]) + b'{"id": "sk_live_secret"\n' + b"".join(shop.lines[30:60]))
    result = run(path, "--json")
    assert result.exit_code == 1
    assert result.stderr == f"{path}:31: no JSON\n"
    assert [json.loads(result.stdout)[key] for key in ("events", "unparsed")] == [60, 1]


def test_parts_in_any_order_packed_or_not_are_the_whole(shop: Shop, tmp_path: Path) -> None:
    half = len(shop.lines) // 2
    (tmp_path / "late.jsonl").write_bytes(b"".join(shop.lines[half:]))
    (tmp_path / "early.jsonl.gz").write_bytes(gzip.compress(b"".join(shop.lines[:half])))
    parts, whole = found("late.jsonl", "early.jsonl.gz"), found(shop.events)
    assert {**parts, "seconds": 0} == {**whole, "seconds": 0}


def test_events_that_name_no_account_belong_to_the_named_one_and_so_do_their_labels(shop: Shop) -> None:
    shown = found(shop.events, "--account", "shop-eu", "--labels", shop.labels)
    assert [each["account"] for each in shown["incidents"]] == ["shop-eu"]
    assert shown["scores"]["in all"]["recall"] == 1


# Other rules


@pytest.mark.parametrize(
    "arguments",
    [
        ["--detector", "refund_spike", "--detector", "webhook_silence"],
        ["--set", "failure_rate.enabled=false"],
        ["--set", "failure_rate.sensitivity=50"],
        ["--set", 'failure_rate.windows=["5m"]', "--set", "detectors.failure_rate.least=500"],
        ["--set", "accounts.default.detectors.failure_rate.enabled=false"],
    ],
    ids=" ".join,
)
def test_settings_are_tried_without_a_file(arguments: Sequence[str], shop: Shop) -> None:
    assert found(shop.events, *arguments)["incidents"] == []


def test_a_file_is_tried_and_the_command_line_wins_over_it(shop: Shop, tmp_path: Path) -> None:
    """A channel's secret that only the live system has is no reason to refuse."""
    path = rules(
        tmp_path / "tried.toml",
        """
        [channels]
        ops = "env:NOT_SET_HERE"
        [detectors.failure_rate]
        enabled = false
        [rules.failures]
        metric = "payment.failed"
        window = "1h"
        least = 5
        factor = 50
        """,
    )
    assert found(shop.events, "--config", path)["incidents"] == []
    named = [
        each["detector"]
        for each in found(shop.events, "--config", path, "--set", "rules.failures.factor=4")["incidents"]
    ]
    assert named == ["failures"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "failure_rate.sensitvity=8"], 'did you mean "sensitivity"?'),
        (["--set", "failure_rate.sensitvity=8"], "--set failure_rate.sensitvity=8: unknown key"),
        (["--set", "sensitivity=hasty"], "--set sensitivity=hasty"),
        (["--set", "failure_rat.least=8"], 'did you mean "failure_rate"?'),
        (["--set", "failure_rate"], "is no KEY=VALUE"),
        (["--set", "=8"], "is no KEY=VALUE"),
        (["--set", "a b=8"], "is no key"),
        (["--detector", "refunds_spike"], 'did you mean "refund_spike"?'),
        (["--config", "bad.toml"], "bad.toml:2: detectors.refund_spike.factr: unknown key"),
        (["--config", "none.toml"], "does not exist"),
        (["--labels", "bad.toml"], "holds no labels"),
        (["--compare", "bad.toml", "bad.toml", "--config", "bad.toml"], "--compare excludes"),
        (["--chart-metric", "refund"], "--chart-metric needs --chart"),
        (["--chart", "c.html", "--chart-metric", "refnd"], 'did you mean "refund"?'),
        (["--chart", "nowhere/c.html"], "there is no folder nowhere"),
        (["--max-noise", "-1"], "--max-noise"),
        (["nothing.jsonl"], "does not exist"),
    ],
    ids=str,
)
def test_what_cannot_be_tried_is_told_with_its_place_before_anything_is_read(
    arguments: list[str], says: str, shop: Shop, tmp_path: Path
) -> None:
    rules(tmp_path / "bad.toml", "[detectors.refund_spike]\nfactr = 3\n")
    result = run(shop.events, *arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


def test_a_change_of_rules_is_told_by_what_it_adds_and_removes(shop: Shop, tmp_path: Path) -> None:
    rules(tmp_path / "a.toml", "")
    rules(tmp_path / "b.toml", "[detectors.failure_rate]\nenabled = false\n")
    there = run(shop.events, "--compare", "a.toml", "b.toml", "--max-noise", "3")
    assert there.exit_code == 0
    assert "Added by B: nothing" in there.stdout
    assert re.search(r"Removed by B: 1\n.*\n.*\n?.*failure_rate", there.stdout)
    result = run(shop.events, "--compare", "b.toml", "a.toml", "--max-noise", "3", "--json")
    assert result.exit_code == 1  # by the noise of the proposed rules
    back = json.loads(result.stdout)
    assert list(back) == ["a", "b", "added", "removed"]
    assert ([each["detector"] for each in back["added"]], back["removed"]) == (["failure_rate"], [])
    assert (back["a"]["incidents"], back["b"]["incidents"]) == ([], back["added"])


# The chart


def spec(page: str) -> dict[str, Any]:
    """What the page draws."""
    start = page.index('vegaEmbed("#chart", ') + len('vegaEmbed("#chart", ')
    drawn, _ = json.JSONDecoder().raw_decode(page, start)
    assert isinstance(drawn, dict)
    return drawn


def test_the_chart_holds_all_it_needs_and_shows_what_failed_when(shop: Shop, tmp_path: Path) -> None:
    account = "</script><script>alert(1)</script>"
    assert run(shop.events, "--chart", "page.html", "--account", account).exit_code == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert account not in page
    assert page.count("</script>") == 2
    assert not re.search("(src|href|url)[=(]", re.sub("<script>.*?</script>", "", page, flags=re.DOTALL))
    hours = spec(page)["datasets"]["hours"]
    assert len(hours) == 48
    assert all(hour["low"] <= hour["middle"] <= hour["high"] for hour in hours if "middle" in hour)
    worst = max(hours, key=lambda hour: float(hour["count"]))
    assert datetime.fromtimestamp(worst["at"] / 1000, UTC) in {FAILING, FAILING + timedelta(hours=1)}
    assert worst["count"] > worst["high"]
    assert [each["detector"] for each in spec(page)["datasets"]["incidents"]] == ["failure_rate"]


def test_another_line_is_drawn_where_it_is_asked_for(shop: Shop, tmp_path: Path) -> None:
    assert run(shop.events, "--chart", "page.html", "--chart-metric", "revenue.usd").exit_code == 0
    hours = spec((tmp_path / "page.html").read_text(encoding="utf-8"))["datasets"]["hours"]
    assert 100 < sum(hour["count"] for hour in hours) / len(hours) < 10_000  # dollars, of some 20 payments an hour


def test_what_cannot_be_drawn_is_said_and_what_was_found_is_told_all_the_same(shop: Shop, tmp_path: Path) -> None:
    result = run(shop.events, "--chart", "page.html", "--detector", "refund_spike")
    assert result.exit_code == 1
    assert "No incidents." in result.stdout
    assert "page.html was not drawn: no incident" in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_chart_without_its_package_is_refused_with_a_hint(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    result = run(shop.events, "--chart", "page.html")
    assert result.exit_code == 2
    assert "pip install 'billingwatch[console]'" in result.stderr


# Standard input, and people who cannot wait


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "billingwatch", "backtest", *map(str, arguments)]
    pipe = subprocess.PIPE
    env = {**os.environ, "PYTHONPATH": str(Path(billingwatch.__file__).parents[1])}
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)


def test_standard_input_is_read_as_a_file_is(shop: Shop) -> None:
    with start("-", "--json") as process:
        told, said = process.communicate(gzip.compress(b"".join(shop.lines)), timeout=100)
    assert (process.returncode, said) == (0, b"")
    assert {**json.loads(told), "seconds": 0} == {**found(shop.events), "seconds": 0}


def test_who_interrupts_it_is_told_what_was_found_so_far(shop: Shop) -> None:
    with start("-", "--json") as process:
        assert process.stdin
        process.stdin.write(b"".join(shop.lines))  # returns when all but what a pipe holds was read
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        told, said = process.communicate(timeout=100)
    assert process.returncode == 130
    assert b"partial" in said
    partial = json.loads(told)
    assert 0 < partial["events"] <= len(shop.lines)
    assert [each["detector"] for each in partial["incidents"]] == ["failure_rate"]


# The database


@pytest.fixture
def stored(shop: Shop, conn: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop's events as they were received."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    received = []
    for line in shop.lines:
        wrapped = msgspec.json.decode(line)
        received.append(Received("default", wrapped["received_at"], msgspec.json.encode(wrapped["event"])))
    now = START + timedelta(days=3)
    for first in range(0, len(received), 1000):
        record(conn, received[first : first + 1000], now)
    return shop


def test_the_database_tells_what_the_file_of_the_same_events_tells(stored: Shop) -> None:
    whole, kept = found(stored.events), found()
    assert kept["incidents"] == whole["incidents"] != []
    assert kept["events"] == whole["events"] - whole["duplicates"]
    assert (kept["from"], kept["to"], kept["duplicates"]) == (whole["from"], whole["to"], 0)


def test_nothing_opens_in_a_span_that_people_announced(stored: Shop, conn: Connection) -> None:
    until = FAILING + timedelta(hours=3)
    span = Marker(tenant=LIVE, kind="expected", starts_at=FAILING, ends_at=until, text="a drill", who="ada")
    markers.add(conn, span)
    assert found()["incidents"] == []


def test_a_database_without_tables_is_told_apart_from_one_without_events(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", servers.database_url)
    result = run()
    assert result.exit_code == 1
    assert "billingwatch migrate" in result.stderr
