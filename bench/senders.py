"""kill -9 of an alerts worker in the middle of its work, again and again: nothing is lost, what comes twice says so."""

import os
import random
import signal
import threading
import time
from collections import Counter

from bench import told
from bench.report import Report, Row, exactly, show
from bench.rig import expect, number, rig, until
from bench.sink import Sink

RATE = 10.0  # incidents a second
SLOW = 0.05  # seconds that the channel takes for an answer
RECOVER = 200.0  # seconds; a claim is in doubt for two minutes
# What is told of the missing worker itself is held for five minutes, as updates are.
UNSENT = """
    SELECT count(*) FROM alerts AS a JOIN incidents AS i ON i.id = a.incident
    WHERE a.state <> 'sent' AND i.detector = 'refund_spike'
"""
AGAIN = b"may have reached you already"


def run(quick: bool) -> Report:
    kills = 5 if quick else 25
    with Sink(delay=SLOW) as sink:
        config = f'channels.ops = "{sink.url}"\n[alerts]\nbudget = 10000\n'
        with rig(postgres={}, config=config) as servers, servers.connect() as conn:
            for name in ("alerts", "clock"):
                servers.start(name)
            expect(lambda: servers.redis.scard("rq:workers") == 1, 30, "the worker to start")
            rng, done = random.Random(1), threading.Event()
            killed = 0
            accounts: list[str] = []

            def stream() -> None:
                by = told.policy(["ops"], group_wait=told.NONE)
                with servers.connect() as own:
                    while not done.is_set():
                        accounts.append(f"acct_{len(accounts):05d}")
                        told.open_incident(own, accounts[-1], by)
                        done.wait(1 / RATE)

            thread = threading.Thread(target=stream)
            thread.start()
            while killed < kills:
                time.sleep(rng.uniform(2.5, 5.0))
                os.kill(servers.child("alerts"), signal.SIGKILL)
                killed += 1
            done.set()
            thread.join()
            began = time.monotonic()
            until(lambda: number(conn, UNSENT) == 0, RECOVER, 0.25)
            took = time.monotonic() - began
            doubtful = number(conn, "SELECT count(*) FROM deliveries WHERE outcome = 'unknown'")
            left = number(conn, UNSENT)
        arrived = Counter(account for _, body in sink.heard for account in accounts if account.encode() in body)
        marked = sum(AGAIN in body for _, body in sink.heard)
    twice = sum(count > 1 for count in arrived.values())
    return Report(
        about=f"{RATE:.0f} incidents a second to a channel that answers after {SLOW * 1000:.0f} ms, while the worker is"
        f" killed {kills} times at random moments and started again by its supervisor.",
        rows=(
            Row("alerts", f"{len(accounts):,}"),
            exactly("never arrived", sum(account not in arrived for account in accounts), 0),
            exactly("not marked as sent in the end", left, 0),
            Row("kills with a message on its way", f"{doubtful}", f"of {kills}"),
            Row("arrived twice", f"{twice}", f"<= {doubtful}", twice <= doubtful),
            exactly("arrived more than twice", sum(count > 2 for count in arrived.values()), 0),
            exactly("repeated without saying so", twice - min(twice, marked), 0),
            Row("last kill to all sent", show(took, "s"), "a claim is in doubt for 120 s"),
        ),
    )
