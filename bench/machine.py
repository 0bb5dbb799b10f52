"""The machine that is measured: what it is, which process runs where, how much memory each holds."""

import os
import platform
import subprocess
import sys
from pathlib import Path

# One core for what is measured and one for what drives it; without two, or without Linux, nothing is pinned.
CAN_PIN = sys.platform == "linux" and len(os.sched_getaffinity(0)) >= 2
PINNING = "each pinned to a core of its own" if CAN_PIN else "not pinned, this machine cannot"


def describe() -> dict[str, str]:
    return {
        "cpu": f"{_model()}, {os.cpu_count()} cores",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def cores() -> tuple[int, int]:
    """(the core of what is measured, the core of what drives it)."""
    first, second, *_ = sorted(os.sched_getaffinity(0)) if CAN_PIN else (0, 0)
    return first, second


def pin(pid: int, core: int) -> None:
    """Keep the process and the threads it has, and will have, on one core."""
    if sys.platform == "linux" and CAN_PIN:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def resident(pid: int) -> float:
    """Resident memory in MB."""
    answer = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], check=True, capture_output=True, text=True)
    return int(answer.stdout) / 1024


def children(pid: int) -> list[int]:
    answer = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True)
    pairs = (map(int, line.split()) for line in answer.stdout.splitlines())
    return [child for child, parent in pairs if parent == pid]


def _model() -> str:
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()
