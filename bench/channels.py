"""Channels that hang, fail, redirect and refuse beside two that work: who has to wait for whom, and who is told."""

import threading
import time

from bench import told
from bench.report import Report, Row, below, exactly, quantile, show
from bench.rig import Rig, expect, number, rig
from bench.sink import Sink

EVERY = 5.0  # seconds between incidents
SETTLE = 30.0  # seconds after the last one
HANG = 60.0  # seconds

# What is said of each broken channel.
SAID = {"hangs": "timed out", "fails": "HTTP 500", "redirects": "HTTP 302", "token": "HTTP 401"}


def run(quick: bool) -> Report:
    lasting = 90.0 if quick else 600.0
    target = Sink()
    sinks = {
        "good": Sink(),
        "fine": Sink(),
        "hangs": Sink(delay=HANG),
        "fails": Sink(500),
        "redirects": Sink(302, location=target.url.replace("json", "http")),
        "token": Sink(401),
    }
    lines = [f'{name} = "{sink.url}"' for name, sink in sinks.items()]
    with rig(postgres={}, config="\n".join(["[channels]", *lines, "[alerts]", "budget = 1000"])) as servers:
        for name in ("alerts", "clock"):
            servers.start(name)
        expect(lambda: servers.redis.scard("rq:workers") == 1, 30, "the worker to start")
        due = _open(servers, list(sinks), lasting)
        with servers.connect() as conn:
            rows = [Row("incidents, each told to all six", f"{len(due)}", f"one every {EVERY:.0f} s")]
            for name in ("good", "fine"):
                late = [(sinks[name].when(account) or float("inf")) - moment for account, moment in due.items()]
                rows += [
                    below(f"{name}: due to arrived, p99", quantile(late, 0.99), 5, "s", 2),
                    Row(f"{name}: due to arrived, p50 and longest", f"{quantile(late, 0.5):.2f} s, {max(late):.2f} s"),
                ]
            for name, words in SAID.items():
                query = """
                    SELECT count(*) FROM incidents WHERE detector = 'channel_broken' AND scope = %s AND why LIKE %s
                """
                rows += [
                    exactly(f"{name}: incident that says {words}", number(conn, query, name, f"%{words}%"), 1),
                    Row(f"{name}: attempts", f"{len(sinks[name].heard)}"),
                    Row(
                        f"{name}: seconds until it was told on the others",
                        _told(sinks["good"], name, min(due.values())),
                    ),
                ]
            rows.append(exactly("followed to where it redirects", len(target.heard), 0))
            pending = "SELECT count(*) FROM alerts WHERE channel = 'good' AND state <> 'sent'"
            rows.append(exactly("good: not told", number(conn, pending), 0))
    for sink in (*sinks.values(), target):
        sink.__exit__(None, None, None)
    return Report(
        about=f"Six channels for {lasting:.0f} s: two work, one hangs {HANG:.0f} s, one answers 500, one redirects to"
        " loopback, one refuses its token. One alerts worker; group_wait 30 s is taken off.",
        rows=tuple(rows),
    )


def _open(servers: Rig, channels: list[str], lasting: float) -> dict[bytes, float]:
    """Open incidents for so long; when each account's was due to be told, by its name."""
    by = told.policy(channels)
    due: dict[bytes, float] = {}
    stop = threading.Event()
    with servers.connect() as conn:
        began = time.monotonic()
        while time.monotonic() - began < lasting:
            account = f"acct_{len(due):04d}"
            told.open_incident(conn, account, by)
            due[account.encode()] = time.perf_counter() + by.default.group_wait.total_seconds()
            stop.wait(EVERY)
    stop.wait(by.default.group_wait.total_seconds() + SETTLE)
    return due


def _told(sink: Sink, channel: str, since: float) -> str:
    heard = sink.when(f"channel {channel}".encode())
    return "never" if heard is None else show(heard - since, "s", 1)
