"""Postgres dies or is away under load: the receiver never notices, and the backlog drains by itself."""

import os
import signal
import time

import psycopg

from billingwatch.store.connection import StoreAwayError
from tests.faults.audit import CLEAN
from tests.faults.rig import Rig, alive, kill
from tests.faults.sender import Post
from tests.waiting import until
from worker.process import PATIENCE

RATE = 200  # events a second
TIMES = 5
AWAY = PATIENCE.total_seconds() + 3  # longer than a job waits, so the one in flight has to give up and come again


def test_killed_postgres_costs_no_event_and_no_refusal(rig: Rig, posts: list[Post]) -> None:
    rig.up()
    with rig.load(posts, RATE) as stripe:
        for turn in range(1, TIMES + 1):
            stripe.wait_for(turn * RATE)
            until(rig.backends, 30)
            kill(rig.backends()[0])  # Postgres then drops every connection and recovers
            until(lambda: stored(rig), 30)
            rig.kill_postgres()
            rig.start_postgres()
    assert stripe.statuses().keys() == {200}
    rig.settle()
    assert rig.failed() == 0
    assert rig.audit(stripe.acked) == CLEAN


def test_backlog_of_an_outage_of_postgres_drains_by_itself(rig: Rig, posts: list[Post]) -> None:
    up = rig.up()
    with rig.load(posts, RATE) as stripe:
        until(lambda: stored(rig), 20)
        rig.stop_postgres()
        gone = time.monotonic()
        until(lambda: time.monotonic() - gone > AWAY and len(rig.queue()) > 0, 2 * AWAY)
        waiting = up.children("worker events")[0]
        os.kill(waiting, signal.SIGTERM)
        until(lambda: not alive(waiting), 10)  # nothing is in its hands, so it need not wait for Postgres
        rig.start_postgres()
        stripe.wait_for(len(stripe.acked) + RATE)
    assert stripe.statuses().keys() == {200}
    rig.settle()
    assert rig.failed() == 0
    assert rig.audit(stripe.acked) == CLEAN


def stored(rig: Rig) -> int:
    """How many events are stored; 0 while Postgres does not say."""
    try:
        with rig.connect() as conn:
            row = conn.execute("SELECT count(*) FROM events").fetchone()
    except (psycopg.Error, StoreAwayError):
        return 0
    return int(row[0]) if row else 0
