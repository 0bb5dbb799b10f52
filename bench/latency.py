"""A quiet system, and one event that decides: how long from its POST to the incident's row, and to the alert."""

import time
from datetime import UTC, datetime

import msgspec

from bench import traffic
from bench.report import Report, Row, below, quantile, show
from bench.rig import SINK, Rig, expect, number, rig, until
from bench.sink import Sink
from billingwatch.model import Tenant
from billingwatch.queues import Received
from billingwatch.simulator.stream import Scenario, simulate
from detectors.registry import configure
from worker.learn import learn
from worker.record import record

DAYS = 7
VOLUME = 15.0  # charges a day: at most a refund or two in an hour
DECIDING = 5  # the refund that crosses it
LIMIT = 20.0  # seconds
PLAN = configure({})[0].of("")
WAIT = 2.0  # seconds, of group_wait; 30 by default
# A fixed limit, so that it is known which event decides.
CONFIG = f"""
[alerts]
group_wait = "{WAIT:.0f}s"
budget = 1000

[rules.deciding]
metric = "refund.created"
factor = 0
plus = {DECIDING - 1}
"""


def run(quick: bool) -> Report:
    repeats = 8 if quick else 40
    accounts = [f"acct_bench{number:08d}" for number in range(repeats)]
    with Sink() as sink, rig(postgres={}, channel=SINK.format(port=sink.port), config=CONFIG) as servers:
        for seed, account in enumerate(accounts):
            _live(servers, account, seed)
        servers.start_all()
        ways = [_decide(servers, sink, account) for account in accounts]
    incident = [seconds for seconds, _ in ways if seconds is not None]
    alert = [seconds for _, seconds in ways if seconds is not None]
    rows = (
        below("POST to the incident's row, p99", quantile(incident, 0.99), 2, "s", 3),
        Row("POST to the incident's row, p50", show(quantile(incident, 0.5), "s", 3)),
        below("POST to the message at its channel, beyond group_wait, p99", quantile(alert, 0.99), 1.5, "s", 3),
        Row("POST to the message at its channel, beyond group_wait, p50", show(quantile(alert, 0.5), "s", 3)),
        Row("incidents and alerts seen", f"{len(incident)} and {len(alert)}", f"= {repeats}", len(alert) == repeats),
    )
    return Report(
        about=f"{repeats} connected accounts, each with a simulated week; their {DECIDING}th refund of the hour crosses"
        f" the limit of a rule. group_wait is {WAIT:.0f} s and taken off. Looked for every 2 ms.",
        rows=rows,
    )


def _live(servers: Rig, account: str, seed: int) -> None:
    """Store a week of the account's life, up to two hours ago: the hour that is judged holds our refunds alone."""
    start = int(time.time()) - DAYS * 86_400 - 7_200
    scenario = Scenario(seed=seed, start=start, days=DAYS, volume=VOLUME, account=account)
    now = datetime.now(UTC)
    week = [Received("default", event["created"], msgspec.json.encode(event)) for event in simulate(scenario)]
    with servers.connect() as conn:
        record(conn, week, now)
        learn(conn, Tenant(account, True), now, PLAN)  # else the clock has all of them learnt while they are measured


def _decide(servers: Rig, sink: Sink, account: str) -> tuple[float | None, float | None]:
    """Seconds from the deciding POST to the incident and to its alert; None for what never came."""
    with servers.connect() as conn:

        def judged() -> bool:
            return not number(
                conn, "SELECT count(*) FROM accounts WHERE account = %s AND dirty_since IS NOT NULL", account
            )

        def opened() -> bool:
            found = "SELECT count(*) FROM incidents WHERE account = %s AND detector = 'deciding'"
            return number(conn, found, account) > 0

        for each in range(1, DECIDING):
            servers.post(traffic.refund(account, each))
        expect(
            lambda: number(conn, "SELECT count(*) FROM events WHERE id = %s", f"evt_{account}{each:04d}") > 0,
            LIMIT,
            "it",
        )
        expect(judged, LIMIT, "the refunds before to be judged")
        assert not opened(), "the limit was crossed too early"
        deciding = traffic.refund(account, DECIDING)
        began = time.perf_counter()
        servers.post(deciding)
        incident = time.perf_counter() - began if until(opened, LIMIT, 0.002) else None
        # Its link into Stripe's dashboard names the account.
        until(lambda: sink.when(account.encode()) is not None, LIMIT, 0.002)
        heard = sink.when(account.encode())
        return incident, None if heard is None else heard - began - WAIT
