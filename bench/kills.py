"""kill -9 of each part under load: what was acknowledged is stored, once, counted once, and soon."""

import os
import signal
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from bench import ledger, load, traffic
from bench.report import Report, Row, below, exactly
from bench.rig import TIMED, Rig, kill_server, rig, until
from billingwatch import embedded

RATE = 200  # events a second
LEAD, BETWEEN = 2.0, 6.0  # seconds before the first kill, and from one to the next
PAUSE = 1.0  # seconds until whoever supervises starts it again
RECOVER = 240.0  # seconds
GOAL = 180.0  # seconds


def _receiver(servers: Rig) -> None:
    servers.kill("ingest")
    time.sleep(PAUSE)
    servers.start("ingest")


def _worker(servers: Rig) -> None:
    os.kill(servers.child("events"), signal.SIGKILL)  # its supervisor starts another


def _supervisor(servers: Rig) -> None:
    servers.kill("events")
    time.sleep(PAUSE)
    servers.start("events")


def _valkey(servers: Rig) -> None:
    kill_server(embedded.valkey_pid(servers.folder))
    time.sleep(PAUSE)
    embedded.start_valkey(servers.folder)


def _postgres(servers: Rig) -> None:
    kill_server(embedded.postgres_pid(servers.folder))
    time.sleep(PAUSE)
    embedded.start_postgres(servers.folder, TIMED)


VICTIMS: dict[str, Callable[[Rig], None]] = {
    "receiver": _receiver,
    "worker": _worker,
    "worker's supervisor": _supervisor,
    "Valkey": _valkey,
    "Postgres": _postgres,
}


class Loss(Struct, frozen=True):
    """What the kills did. All but `refused` and `longest` ought to be 0."""

    lost: int
    twice: int
    differences: int
    unanswered: int
    refused: int
    longest: float  # seconds from an event's verification to its row


def run(quick: bool) -> Report:
    rounds = {"each of them, once": list(VICTIMS)} if quick else {name: [name] * 5 for name in VICTIMS}
    between = 2.5 if quick else BETWEEN
    rows: list[Row] = []
    for name, victims in rounds.items():
        with rig(postgres=TIMED) as servers:
            loss = _kill(servers, victims, between)
        rows += [
            exactly(f"{name}: acknowledged and lost", loss.lost, 0),
            exactly(f"{name}: stored twice", loss.twice, 0),
            exactly(f"{name}: rollup totals unlike a recount", loss.differences, 0),
            exactly(f"{name}: never acknowledged", loss.unanswered, 0),
            below(f"{name}: longest from acknowledged to stored", loss.longest, GOAL, "s", 1),
            Row(f"{name}: attempts refused, sent again", f"{loss.refused:,}"),
        ]
    return Report(
        about=f"{RATE} events a second, sent again until acknowledged as Stripe does; "
        + ("a kill of each" if quick else "five kills of each, under a load of its own")
        + f", {between:g} s apart; what nothing restarts is restarted after {PAUSE:.0f} s. AOF everysec.",
        rows=tuple(rows),
    )


def _kill(servers: Rig, victims: list[str], between: float) -> Loss:
    servers.start_all()
    count = int(RATE * (LEAD + between * len(victims)))
    plan = load.Plan(port=servers.port, events=servers.make(count), count=count, rate=RATE, retry=True, limit=240)
    with load.prepared(plan) as generator:
        generator.go()
        began = time.monotonic()
        for turn, victim in enumerate(victims):
            time.sleep(max(0.0, began + LEAD + between * turn - time.monotonic()))
            VICTIMS[victim](servers)
        outcome = generator.wait()
    until(lambda: servers.stored() >= count and not servers.backlog(), RECOVER, 0.25)
    sent = traffic.bodies(servers.traffic)
    acknowledged = {_id(body) for body in sent} - {_id(sent[place]) for place in outcome.unanswered}
    with servers.connect() as conn:
        return Loss(
            lost=len(acknowledged - ledger.ids(conn)),
            twice=ledger.twice(conn),
            differences=ledger.differences(conn, sent),
            unanswered=len(outcome.unanswered),
            refused=outcome.refused,
            longest=ledger.delays(conn).longest,
        )


class _Named(Struct):
    id: str


_named = msgspec.json.Decoder(_Named)


def _id(body: bytes) -> str:
    return _named.decode(body).id
