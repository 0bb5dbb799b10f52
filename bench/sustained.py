"""A steady stream into the whole pipeline: how fast each event is acknowledged, and that all of them are stored."""

import time

from bench import ledger, load
from bench.report import Report, Row, at_least, below, exactly, show
from bench.rig import TIMED, rig, until

RATE = 2_000  # events a second
DRAIN = 120.0  # seconds for the backlog, once nothing comes any more


def run(quick: bool) -> Report:
    seconds = 5 if quick else 60
    count = RATE * seconds
    with rig(postgres=TIMED) as servers:
        servers.start_all()
        plan = load.Plan(port=servers.port, events=servers.make(count), count=count, rate=RATE, limit=seconds + 30)
        with load.prepared(plan) as generator:
            outcome = generator.run()
        ended = time.monotonic()
        until(lambda: servers.stored() >= count, DRAIN)
        drained = time.monotonic() - ended
        with servers.connect() as conn:
            late = ledger.delays(conn)
        rows = (
            at_least("acknowledged a second", outcome.rate, RATE * 0.99, "ev/s"),
            below("acknowledged, p99", outcome.p99, 100, "ms", 1),
            Row("acknowledged, p50", show(outcome.p50, "ms", 1)),
            Row("acknowledged, longest", show(outcome.longest, "ms", 1)),
            exactly("not 200", outcome.refused, 0),
            exactly("stored in the end", servers.stored(), count),
            Row("acknowledged to stored, p50 and p99", f"{late.p50:.2f} s, {late.p99:.2f} s"),
            Row("last answer to all stored", show(drained, "s", 1)),
            Row("generator busy", f"{outcome.busy:.0%}", "of one core"),
        )
    return Report(
        about=f"{RATE:,} events a second for {seconds} s, latency from the moment each was due; receiver, one worker a"
        " queue, clock, Postgres, Valkey with AOF everysec and the generator share the cores.",
        rows=rows,
    )
