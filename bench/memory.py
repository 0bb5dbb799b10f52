"""What each process holds in memory: after its start, and at rest after some work, alerts sent."""

from bench import load, machine, traffic
from bench.report import Report, Row, below, show
from bench.rig import EVERYTHING, SINK, WORKERS, Rig, expect, rig
from bench.sink import Sink

RECEIVER, WORKER = 120, 150  # MB
DRAIN = 60.0  # seconds


def run(quick: bool) -> Report:
    count = 2_000 if quick else 20_000
    with Sink() as sink, rig(postgres={}, channel=SINK.format(port=sink.port)) as servers:
        servers.start_all()
        fresh = _resident(servers)
        plan = load.Plan(port=servers.port, events=servers.make(count), count=count)
        with load.prepared(plan) as generator:
            generator.run()
        for n in range(40):
            servers.post(traffic.refund("", n))
        expect(lambda: servers.stored() >= count + 40, DRAIN, "every event to be stored")
        expect(lambda: bool(sink.heard), DRAIN, "an alert")
        rest = _resident(servers)
    rows = []
    for name, goal in (("ingest", RECEIVER), *((f"worker {name}", WORKER) for name in WORKERS), ("clock", WORKER)):
        rows.append(below(f"{name}, at rest after work", rest[name], goal, "MB"))
        rows.append(Row(f"{name}, after its start", show(fresh[name], "MB")))
    rows.append(
        Row("the three supervisors of workers", show(sum(rest[f"supervisor {name}"] for name in WORKERS), "MB"))
    )
    rows.append(Row("all of it", show(sum(rest.values()), "MB")))
    return Report(
        about=f"Resident memory of each process, pages shared with others included; the work was {count:,} events and"
        " an alert over HTTP.",
        rows=tuple(rows),
    )


def _resident(servers: Rig) -> dict[str, float]:
    found = {}
    for name in EVERYTHING:
        if name in WORKERS:
            found[f"worker {name}"] = machine.resident(servers.child(name))
            found[f"supervisor {name}"] = machine.resident(servers.pid(name))
        else:
            found[name] = machine.resident(servers.pid(name))
    return found
