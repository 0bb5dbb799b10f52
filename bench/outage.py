"""Postgres goes away and comes back: nobody outside notices, and the backlog drains by itself."""

import time

from bench import ledger, load, traffic
from bench.report import Report, Row, below, exactly, show
from bench.rig import TIMED, number, rig, until
from billingwatch import embedded

RATE = 200  # events a second
BEFORE, AFTER = 2, 8  # seconds of the load without an outage
FEW = 5  # jobs; new events come all the time, so the backlog is over before it is nothing
DRAIN = 300.0  # seconds


def run(quick: bool) -> Report:
    away = 15 if quick else 180
    count = RATE * (BEFORE + away + AFTER)
    with rig(postgres=TIMED) as servers:
        servers.start_all()
        plan = load.Plan(
            port=servers.port, events=servers.make(count), count=count, rate=RATE, limit=BEFORE + away + AFTER + 60
        )
        with load.prepared(plan) as generator:
            generator.go()
            time.sleep(BEFORE)
            embedded.stop_postgres(servers.folder)
            time.sleep(away)
            waiting = servers.backlog()
            embedded.start_postgres(servers.folder, TIMED)
            back = time.monotonic()
            until(lambda: servers.backlog() <= FEW, DRAIN)
            drained = time.monotonic() - back
            outcome = generator.wait()
        until(lambda: servers.stored() >= count, DRAIN)
        sent = traffic.bodies(servers.traffic)
        with servers.connect() as conn:
            rows = (
                exactly("answers of 500 and above", outcome.errors, 0),
                exactly("not 200", outcome.refused, 0),
                exactly("stored in the end", servers.stored(), count),
                exactly("rollup totals unlike a recount", ledger.differences(conn, sent), 0),
                exactly("in quarantine", number(conn, "SELECT count(*) FROM quarantine"), 0),
                Row("jobs that waited when it came back", f"{waiting:,}"),
                below("back to drained", drained, away, "s", 1),
                Row(
                    "drained a second",
                    show(RATE * (away / drained + 1), "ev/s"),
                    f"{away / drained + 1:.0f}x the arrivals",
                ),
                Row("acknowledged, p99", show(outcome.p99, "ms", 1)),
            )
    return Report(
        about=f"{RATE} events a second while Postgres is stopped for {away} s, and afterwards; one worker a queue, AOF"
        " everysec. What is drained includes what arrives meanwhile.",
        rows=rows,
    )
