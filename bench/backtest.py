"""How long a month of a busy account takes to be judged again, and in how much memory."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Report, Row, below

DAYS, VOLUME = 30, 5000  # first attempts to pay a day
SECONDS, MEMORY = 120.0, 1000.0  # MB


def run(quick: bool) -> Report:
    days, volume = (3, 500) if quick else (DAYS, VOLUME)
    with tempfile.TemporaryDirectory() as folder:
        month, half = Path(folder, "month.jsonl"), Path(folder, "half.jsonl")
        began = time.monotonic()
        for path, length in ((month, days), (half, days / 2)):
            _command("simulate", "--days", str(length), "--volume", str(volume), "--seed", "5", "-o", str(path))
        made = time.monotonic() - began
        _, _, small = _judged(half)
        events, seconds, large = _judged(month)
    return Report(
        about=f"{days} days of a simulated account at {volume:,} first attempts to pay a day, from the file to the"
        " incidents, every minute judged, in one process.",
        rows=(
            Row("events", f"{events:,}", f"made in {made:.0f} s with a half of them again"),
            below("seconds", seconds, SECONDS, "s", 0),
            Row("events a second", f"{events / seconds:,.0f}"),
            below("memory, at most", large, MEMORY, "MB", 0),
            Row("memory of half the stream", f"{small:.0f} MB", f"{large / small:.2f}x for twice the length"),
        ),
    )


def _judged(path: Path) -> tuple[int, float, float]:
    """Events, seconds of wall time, and the largest resident memory in MB of a backtest of this file."""
    began = time.monotonic()
    told = json.loads(_command("backtest", str(path), "--json"))
    seconds = time.monotonic() - began
    # the largest of all children that ended: the halves are judged before the wholes
    return int(told["events"]), seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


def _command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "billingwatch", *words], check=True, capture_output=True, text=True)
    return done.stdout
