"""One receiver process against the plain ways of receiving, each driven as fast as it answers."""

from statistics import median

from bench import load, machine
from bench.report import Report, Row, at_least, exactly, show
from bench.rig import Rig, rig

# With fewer, AOF always measures the disk alone: in a closed loop half of the connections wait for one fsync while
# the other half gathers for the next.
CONNECTIONS = 128
OURS = "BillingWatch"
VERIFY = "verify only"
ENQUEUE = "one enqueue a request"
_PEERS = {VERIFY: "bench.peers:verify_only", ENQUEUE: "bench.peers:enqueue_each"}
_UVICORN = "--loop uvloop --http httptools --no-access-log --no-server-header --no-date-header --log-level warning"


def run(quick: bool) -> Report:
    rows: list[Row] = []
    for fsync in ("always", "everysec"):
        with rig(valkey={"appendfsync": fsync}) as servers:
            rows += _compare(servers, fsync, quick)
    return Report(
        about=f"One uvicorn process under {CONNECTIONS} kept connections, distinct signed events of 3 kB; generator"
        f" and Valkey on the other core, {machine.PINNING}. The three take turns; medians of their turns.",
        rows=tuple(rows),
    )


def _compare(servers: Rig, fsync: str, quick: bool) -> list[Row]:
    rounds, seconds, count = (1, 1.5, 5_000) if quick else (3, 5.0, 50_000)
    servers.make(count)
    turns: dict[str, list[load.Outcome]] = {VERIFY: [], OURS: [], ENQUEUE: []}
    for _ in range(rounds):
        for name, outcomes in turns.items():
            outcomes.append(_turn(servers, name, count, seconds))
    rate = {name: median(outcome.rate for outcome in outcomes) for name, outcomes in turns.items()}
    rows = []
    for name, outcomes in turns.items():
        p50, p99 = (median(values) for values in zip(*((each.p50, each.p99) for each in outcomes), strict=True))
        busy = max(each.busy for each in outcomes)
        times = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; generator {busy:.0%} busy"
        rows.append(Row(f"AOF {fsync}: {name}", show(rate[name], "req/s"), times))
    to_verify, to_enqueue = rate[OURS] / rate[VERIFY], rate[OURS] / rate[ENQUEUE]
    if fsync == "always":
        rows.append(at_least(f"AOF {fsync}: to {VERIFY}", to_verify, 0.6, "x", 2))
        rows.append(at_least(f"AOF {fsync}: to {ENQUEUE}", to_enqueue, 8, "x", 1))
    else:
        rows.append(Row(f"AOF {fsync}: to {VERIFY}", show(to_verify, "x", 2)))
        rows.append(Row(f"AOF {fsync}: to {ENQUEUE}", show(to_enqueue, "x", 1)))
    rows.append(exactly(f"AOF {fsync}: not 200", sum(each.refused for each in turns[OURS]), 0))
    return rows


def _turn(servers: Rig, name: str, count: int, seconds: float) -> load.Outcome:
    measured, driving = machine.cores()
    servers.redis.flushall()  # nobody works on the jobs of the turn before
    for process in servers.folder.glob("valkey/data/valkey.pid"):
        machine.pin(int(process.read_text()), driving)
    if name == OURS:
        pid = servers.start("ingest")
    else:
        pid = servers.run(
            "ingest", "uvicorn", _PEERS[name], "--factory", "--port", str(servers.port), *_UVICORN.split()
        )
    machine.pin(pid, measured)
    servers.expect_ready("/readyz")
    plan = load.Plan(
        port=servers.port, events=str(servers.traffic), count=count, seconds=seconds, connections=CONNECTIONS
    )
    with load.prepared(plan, driving) as generator:
        outcome = generator.run()
    servers.stop("ingest")
    return outcome
