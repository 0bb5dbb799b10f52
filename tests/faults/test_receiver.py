"""The receiver dies, or is replaced, under load: whatever it acknowledged is stored once and counted once."""

import os
import signal

from tests.faults.audit import CLEAN
from tests.faults.rig import Program, Rig, alive, kill
from tests.faults.sender import NO_ANSWER, Post, Stripe
from tests.waiting import until

RATE = 250  # events a second
TIMES = 5


def test_killed_receiver_loses_nothing_that_it_acknowledged(rig: Rig, posts: list[Post]) -> None:
    up = rig.up()
    with rig.load(posts, RATE) as stripe:
        for turn in range(1, TIMES + 1):
            stripe.wait_for(turn * RATE)
            kill(receivers(up)[0])
            until(lambda: receivers(up))
    assert stripe.statuses().keys() == {200, NO_ANSWER}
    rig.settle()
    assert rig.audit(stripe.acked) == CLEAN


def test_rolling_restart_of_receivers_and_workers_fails_no_delivery(rig: Rig, posts: list[Post]) -> None:
    """One process after the other gets SIGTERM; the socket is the supervisor's, so there is always somebody behind it.

    A kept connection may end just as the next delivery goes out on it, which HTTP allows and every client repeats at
    once on a new one (RFC 9112, 9.3.1); the delivery counts as failed where its second attempt fails, too.
    """
    ingest = rig.start("ingest", "--port", str(rig.port), "--workers", "2")
    workers = rig.start("worker", "events", "--processes", "2")
    rig.wait_ready()
    until(lambda: len(receivers(ingest)) == 2)
    with rig.load(posts, RATE) as stripe:
        for program in (ingest, workers, ingest, workers):
            children = program.children("--fd" if program is ingest else "--in-process")
            assert len(children) == 2
            for pid in children:
                restart(program, pid)
                stripe.wait_for(len(stripe.acked) + RATE // 4)
    assert stripe.statuses().keys() <= {200, NO_ANSWER}
    assert repeated_more_than_once(stripe) == []
    rig.settle()
    assert rig.audit(stripe.acked) == CLEAN


def receivers(program: Program) -> list[int]:
    return program.children(" ingest ")


def restart(program: Program, pid: int) -> None:
    """Ask one child to stop, and wait until its supervisor has replaced it."""
    siblings = len(program.children())
    os.kill(pid, signal.SIGTERM)
    until(lambda: not alive(pid), 60)
    until(lambda: len(program.children()) == siblings, 30)


def repeated_more_than_once(stripe: Stripe) -> list[str]:
    times: dict[str, int] = {}
    for answer in stripe.answers:
        times[answer.id] = times.get(answer.id, 0) + 1
    return [id_ for id_, attempts in times.items() if attempts > 2]
