"""What modules may not know: pure parts no I/O and no clock, the receiver no database, job names real functions."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from billingwatch import queues

ROOT = Path(__file__).parents[2]
IO = {"psycopg", "redis", "rq", "stripe", "starlette", "os", "random", "secrets", "socket", "subprocess", "time"}
CLOCK = {"now", "utcnow", "today"}
# What sends may do what sending takes.
SENDERS = {
    Path("notify/send.py"): {"apprise", "os"},  # a picture's memory file
    Path("notify/webhook.py"): {"socket", "time"},
}
PURE = sorted(path.relative_to(ROOT) for folder in ("detectors", "notify") for path in (ROOT / folder).rglob("*.py"))


def impurities(source: str, banned: set[str]) -> list[str]:
    """The banned packages that this source imports, anywhere in it, and where it asks what time it is."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in banned]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in banned:
            found.append(node.module)
        elif isinstance(node, ast.Attribute) and node.attr in CLOCK:
            found.append(node.attr)
    return sorted(found)


@pytest.mark.parametrize("path", PURE, ids=str)
def test_pure_parts_do_no_io_and_ask_no_clock(path: Path) -> None:
    banned = (IO | {"apprise"}) - SENDERS.get(path, set())
    assert impurities((ROOT / path).read_text(), banned) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import redis", ["redis"]),
        ("import os.path", ["os.path"]),
        ("from psycopg.rows import dict_row", ["psycopg.rows"]),
        ("def late():\n    import time\n    return time.time()", ["time"]),
        ("from datetime import datetime\nstart = datetime.now()", ["now"]),
        ("import datetime\nstart = datetime.date.today()", ["today"]),
        ("import operator, timeit, osmium", []),
    ],
)
def test_impurities_are_seen(source: str, found: list[str]) -> None:
    assert impurities(source, IO) == found


@pytest.mark.parametrize("name", sorted(queues.JOBS))
def test_every_job_name_is_a_function(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert module == "worker.jobs"
    function = getattr(importlib.import_module(module), attribute)
    assert inspect.isfunction(function)
    assert function.__module__ == module


def test_the_receiver_loads_no_database_no_sender_no_detectors_and_no_stripe_client() -> None:
    script = "import sys, ingest.server; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(ran.stdout.split())
    assert {"ingest", "redis", "rq", "starlette"} <= loaded
    assert loaded & {"alembic", "apprise", "detectors", "notify", "psycopg", "sqlalchemy", "stripe", "worker"} == set()
