"""The command that simulates: what it writes and where, what it refuses, and that nothing is left half-written."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from billingwatch.cli.simulate import EPILOG
from billingwatch.cli.simulate import simulate as command
from billingwatch.simulator.incidents import KINDS
from tests.pipeline.manual import rows, section
from tests.pure.shop import DAY, HOUR

ROOT = Path(__file__).parents[2]


def test_command_writes_events_and_labels(tmp_path: Path) -> None:
    out, marks = tmp_path / "day.jsonl", tmp_path / "labels.json"
    arguments = (
        f"--days 1 --seed 3 --volume 50 --start 2026-09-01 --incident refund_spike@+3h -o {out} --labels {marks}"
    )
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    events = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    assert f"{len(events)} events, 1 planted incidents" in result.stderr
    assert all(event["object"] == "event" for event in events)
    (mark,) = msgspec.json.decode(marks.read_bytes())
    assert mark["start"] == "2026-09-01T03:00:00Z"
    assert mark["nats"] > 12
    assert {*tmp_path.iterdir()} == {out, marks}


def test_arrivals_are_lines_with_a_time_of_several_accounts(tmp_path: Path) -> None:
    out, marks = tmp_path / "day.jsonl", tmp_path / "labels.json"
    result = CliRunner().invoke(
        command,
        "--days 0.5 --volume 60 --accounts 3 --arrivals --calm --currency kwd --zone Asia/Kuwait --kind food "
        f"--incident webhook_lag@+3h --incident cancel_spike@+2h,on=2 -o {out} --labels {marks}",
    )
    assert result.exit_code == 0, result.output
    lines = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    assert all(line.keys() == {"received_at", "event"} for line in lines)
    assert [line["received_at"] for line in lines] == sorted(line["received_at"] for line in lines)
    assert len({line["event"].get("account") for line in lines}) == 3
    labels = msgspec.json.decode(marks.read_bytes())
    assert [(label["kind"], label["account"] == "default") for label in labels] == [
        ("cancel_spike", False),
        ("webhook_lag", True),
    ]


def test_a_stream_is_only_calm_when_asked_to_be(tmp_path: Path) -> None:
    sizes = []
    for calm in ("", "--calm"):
        out = tmp_path / f"month{calm}.jsonl"
        result = CliRunner().invoke(command, f"--days 60 --volume 5 --start 2026-09-01 {calm} -o {out}")
        assert result.exit_code == 0, result.output
        sizes.append(out.read_bytes())
    assert sizes[0] != sizes[1]


def test_help_names_every_kind_and_each_example_is_read() -> None:
    shown = CliRunner().invoke(command, "--help").output
    assert all(f"  {kind} " in shown for kind in KINDS)
    examples = [
        text.replace("\\\n", " ").splitlines()[0].split() for text in EPILOG.split("billingwatch simulate ")[1:]
    ]
    assert len(examples) >= 4
    for arguments in examples:  # all is read, and refused for the one fault that is added
        result = CliRunner().invoke(command, [*arguments, "--days", "nothing"])
        assert "Invalid value for '--days'" in result.output


def test_the_manual_has_each_kind_with_its_default_and_its_detector() -> None:
    told = {
        cells[0].strip("`"): (re.findall(r"\(([\d.]+)\)$", cells[2]), cells[3], cells[4].strip("`"))
        for cells in rows(section("docs/simulate.md", "Incidents"))
    }
    units = {"d": DAY, "h": HOUR}
    assert told.keys() == KINDS.keys()
    for kind, (size, span, detector) in told.items():
        sort = KINDS[kind]
        assert detector == sort.detector
        assert int(span[:-1]) * units[span[-1]] == sort.span
        assert size == ([f"{sort.size:g}"] if size or sort.size != 1 else [])


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, "--days 0.1 --volume 20 -o /dev/null")
    assert result.exit_code == 0, result.output
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert not [*tmp_path.iterdir()]


def test_a_link_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(real)
    assert CliRunner().invoke(command, f"--days 0.1 --volume 50 -o {link}").exit_code == 0
    assert link.is_symlink()
    assert real.read_bytes().endswith(b"}\n")


def test_interrupted_it_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    out = tmp_path / "year.jsonl"
    out.write_text("what was there before")
    arguments = f"-m billingwatch simulate --days 3000 --volume 1000 -o {out} --labels {tmp_path / 'labels.json'}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, *arguments.split()], env=environment, stderr=subprocess.PIPE) as running:
        try:
            until = time.monotonic() + 60
            while not any(path.stat().st_size > 100_000 for path in tmp_path.glob(".*.part")):
                assert time.monotonic() < until, "it never began to write"
                assert running.poll() is None, "it ended by itself"
            running.send_signal(signal.SIGINT)
            assert running.wait(timeout=30) != 0
        finally:
            running.kill()
    assert [*tmp_path.iterdir()] == [out]
    assert out.read_text() == "what was there before"


@pytest.mark.parametrize(
    "arguments",
    [
        "--days 1 --incident nonsense@+1h -o -",
        "--days 1 --incident refund_spike@+2d -o -",
        "--days 0 -o -",
        "--days 1 --start yesterday -o -",
        "--days 1 --account me -o -",
        "--days 1 --currency euros -o -",
        "--days 1 --api-version newest -o -",
        "--days 1 --zone Mars/Olympus -o -",
        "--days 1 --zone ../etc -o -",
        "--days 1 --zone Europe -o -",
        "--days 1 --kind shop -o -",
        "--days 1 --accounts 0 -o -",
        "--days 1 --incident refund_spike@+1h,on=2 -o -",
        "--days 1 --incident webhook_lag@+1h -o -",
        "--days 1 -o - --labels -",
        "--days 1 -o /no/such/folder/day.jsonl",
    ],
)
def test_command_answers_wrong_usage_with_2(arguments: str) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2
