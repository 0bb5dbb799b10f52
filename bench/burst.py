"""A burst as after an outage at Stripe: out of order, much of it twice, as fast as it is taken."""

import time

from bench import ledger, load, traffic
from bench.report import Report, Row, below, exactly, show
from bench.rig import TIMED, rig, until

AGAIN = 0.3  # the share that is sent twice
DRAIN = 120.0  # seconds


def run(quick: bool) -> Report:
    count = 4_000 if quick else 20_000
    with rig(postgres=TIMED) as servers:
        servers.start_all()
        plan = load.Plan(port=servers.port, events=servers.make(count), count=count, again=AGAIN)
        with load.prepared(plan) as generator:
            began = time.monotonic()
            outcome = generator.run()
            until(lambda: servers.stored() >= count and not servers.backlog(), DRAIN)
            seconds = time.monotonic() - began
        sent = traffic.bodies(servers.traffic)
        with servers.connect() as conn:
            rows = (
                below("first sent to all stored", seconds, 30, "s", 1),
                Row("stored a second", show(count / seconds, "ev/s")),
                Row("acknowledged a second", show(outcome.rate, "ev/s")),
                Row("acknowledged, p99", show(outcome.p99, "ms", 1)),
                exactly("not 200", outcome.refused, 0),
                exactly("stored", servers.stored(), count),
                exactly("stored twice", ledger.twice(conn), 0),
                exactly("rollup totals unlike a recount", ledger.differences(conn, sent), 0),
            )
    return Report(
        about=f"{count:,} distinct events, {AGAIN:.0%} of them sent twice, shuffled, over 64 connections into the whole"
        " pipeline with one worker a queue; AOF everysec.",
        rows=rows,
    )
