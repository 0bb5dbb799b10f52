"""A worker dies, or is told to stop, at each moment at which RQ could lose its job: the job is done, and soon."""

import signal
import time

import pytest

from billingwatch.queues import EVENTS, TIMEOUT, Received, enqueue_events
from tests.faults import dying
from tests.faults.audit import CLEAN
from tests.faults.rig import Rig, kill, pass_time
from tests.faults.sender import Post
from tests.waiting import until
from worker.runner import GRACE, MAINTENANCE, WORKER_TTL

PROMISE = 180  # seconds
ORPHAN = 60  # seconds between RQ's first sight of a job that nobody began, and its return
# An idle worker looks when its blocking pop ends, which may have begun just before the time to look.
LOOK = MAINTENANCE + (WORKER_TTL - 15)
EXPIRY = TIMEOUT[EVENTS] + GRACE
# Seconds that pass before each of the looks that bring the job back; the new worker's start was a look, too.
WAITS = {
    dying.TAKEN: (ORPHAN + 1,),
    dying.REGISTERED: (EXPIRY, ORPHAN + 1),
    dying.BEGUN: (EXPIRY,),
    dying.DONE: (EXPIRY,),
}
JOBS, EVENTS_A_JOB = 3, 4


def test_worst_case_of_recovery_is_within_the_promise() -> None:
    assert EXPIRY + LOOK + ORPHAN + LOOK < PROMISE


@pytest.mark.parametrize("moment", WAITS)
def test_job_of_a_worker_that_died_comes_again(rig: Rig, posts: list[Post], moment: str) -> None:
    """Another worker sees each wait through; what RQ keeps of the dead one's time is moved by it, to the second."""
    ids = enqueue(rig, posts)
    assert die(rig, moment, signal.SIGKILL) == -signal.SIGKILL
    rig.start("worker", "events", "--in-process")
    until(lambda: not len(rig.queue()) and rig.unfinished() == 1, 30)
    for seconds in WAITS[moment]:
        assert rig.unfinished() == 1
        pass_time(rig.redis, seconds)
        rig.maintain()
    rig.settle()
    assert rig.audit(ids) == CLEAN
    assert rig.failed() == 0
    assert EVENTS.encode() not in {rig.redis.hget(key, "origin") for key in rig.redis.scan_iter("rq:job:*")}


def test_worker_killed_at_maintenance_keeps_others_from_it_for_half_a_minute_at_most(rig: Rig) -> None:
    assert die(rig, dying.MAINTAINING, signal.SIGKILL) == -signal.SIGKILL
    assert 0 < rig.redis.ttl(rig.queue().registry_cleaning_key) <= 30


@pytest.mark.timeout(PROMISE + 60)
def test_transaction_that_was_killed_in_the_middle_is_done_again_in_time(rig: Rig, posts: list[Post]) -> None:
    """In real time, with nothing helped along: the job that was begun, and those it had taken along."""
    ids = enqueue(rig, posts)
    workers = rig.start("worker", "events")
    with rig.blocked_store():
        kill(workers.children("--in-process")[0])
        killed = time.monotonic()
        assert rig.unfinished() == JOBS
    rig.settle(PROMISE - (time.monotonic() - killed))
    assert rig.audit(ids) == CLEAN


@pytest.mark.parametrize("moment", WAITS)
def test_worker_that_is_told_to_stop_finishes_the_job_it_has_taken(rig: Rig, posts: list[Post], moment: str) -> None:
    """Else it would come again only after RQ's minute."""
    ids = enqueue(rig, posts)
    assert die(rig, moment, signal.SIGTERM) == 0
    assert rig.unfinished() == 0
    assert rig.audit(ids) == CLEAN


def die(rig: Rig, moment: str, number: signal.Signals) -> int:
    """The exit code of a worker that gets the signal at this moment."""
    return rig.start(moment, str(int(number)), module="tests.faults.dying").wait()


def enqueue(rig: Rig, posts: list[Post]) -> list[str]:
    """Jobs of a few events each; the ids of all of them."""
    chosen = posts[: JOBS * EVENTS_A_JOB]
    for start in range(0, len(chosen), EVENTS_A_JOB):
        batch = [Received("default", time.time(), post.body) for post in chosen[start : start + EVENTS_A_JOB]]
        enqueue_events(rig.queue(), batch)
    return [post.id for post in chosen]
