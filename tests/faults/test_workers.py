"""Workers die in the middle of a transaction: their jobs come again by themselves, and change nothing twice."""

from tests.faults.audit import CLEAN
from tests.faults.rig import Rig, alive, kill
from tests.faults.sender import Post
from tests.waiting import until

RATE = 250  # events a second
TIMES = 5


def test_killed_workers_leave_nothing_half_done(rig: Rig, posts: list[Post]) -> None:
    rig.start("ingest", "--port", str(rig.port))
    workers = rig.start("worker", "events", "--processes", "2")
    rig.wait_ready()
    with rig.load(posts, RATE) as stripe:
        for turn in range(TIMES):
            with rig.blocked_store(workers=2):
                kill(workers.children("--in-process")[turn % 2])
    assert stripe.statuses().keys() == {200}
    rig.recover()
    assert rig.failed() == 0
    assert rig.audit(stripe.acked) == CLEAN


def test_workers_end_with_their_killed_supervisor_and_the_next_one_takes_over(rig: Rig, posts: list[Post]) -> None:
    rig.start("ingest", "--port", str(rig.port))
    workers = rig.start("worker", "events", "--processes", "2")
    rig.wait_ready()
    with rig.load(posts, RATE) as stripe:
        for _ in range(TIMES):
            with rig.blocked_store(workers=2):
                orphans = workers.children("--in-process")
                kill(workers.pid)
                workers.wait()
                workers = rig.start("worker", "events", "--processes", "2")
            assert len(orphans) == 2
            until_dead(orphans)
    assert stripe.statuses().keys() == {200}
    rig.recover()
    assert rig.failed() == 0
    assert rig.audit(stripe.acked) == CLEAN


def until_dead(pids: list[int]) -> None:
    until(lambda: not any(map(alive, pids)), 60)
