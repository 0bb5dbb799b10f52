"""The console as a process of its own: it needs the database alone, says where it listens, stops when it is told."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories import NOON
from tests.pipeline.consoles import Console
from tests.waiting import PATIENCE


def started(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    names = ("BILLINGWATCH_", "DATABASE_", "REDIS_", "STRIPE_", "CONSOLE_", "LOG_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    command = [sys.executable, "-m", "billingwatch", "console", *arguments]
    return subprocess.Popen(command, cwd=folder, env=clean | environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_console_listens_on_loopback_answers_and_stops_when_told(
    tmp_path: Path, database_url: str, number: signal.Signals
) -> None:
    with started(tmp_path, DATABASE_URL=database_url, CONSOLE_PORT="0", LOG_FORMAT="json") as process:
        try:
            assert process.stderr
            line = json.loads(process.stderr.readline())
            where = re.fullmatch(r"http://127\.0\.0\.1:(\d+)", line["address"])
            assert where
            console = Console(int(where[1]), NOON)
            assert json.loads(console.ask("/healthz").body) == {"ok": True}
            assert console.look("secret-token").status == 404
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0
            assert "secret-token" not in process.stderr.read()
        finally:
            process.kill()


def test_port_that_is_none_is_told_and_nothing_starts(tmp_path: Path) -> None:
    with started(tmp_path, CONSOLE_PORT="70000") as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "CONSOLE_PORT: is no port" in errors


def test_without_a_database_nothing_starts(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "DATABASE_URL" in errors
