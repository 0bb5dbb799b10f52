"""`billingwatch up` with servers of its own: however it ends, nothing acknowledged is lost."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from billingwatch import embedded
from tests.faults.audit import CLEAN
from tests.faults.rig import Program, Rig, alive, kill
from tests.faults.sender import Post
from tests.waiting import until

RATE = 150  # events a second
CHILDREN = 6  # receiver, three workers, clock, console


@pytest.fixture
def own() -> Iterator[Rig]:
    """A rig whose servers are started and stopped by `up`."""
    folder = Path(tempfile.mkdtemp(prefix="billingwatch-up-"))
    folder.chmod(0o755)  # root's Postgres runs as another user, who must be able to enter
    rig = Rig(folder, embedded.start_postgres(folder), embedded.start_valkey(folder))
    del rig.environment["DATABASE_URL"], rig.environment["REDIS_URL"]
    rig.environment["BILLINGWATCH_DATA_DIR"] = str(folder)
    stop_servers(folder)
    yield rig
    rig.close()
    stop_servers(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_stops_everything_it_started_and_the_next_one_goes_on(
    own: Rig, posts: list[Post], number: signal.Signals
) -> None:
    up = own.up()
    with own.load(posts, RATE) as stripe:
        stripe.wait_for(RATE)
        started = [*until_all_run(up), *servers(own.folder)]
        os.killpg(up.pid, number)  # as a terminal does
        assert up.wait() == 0
        assert [pid for pid in started if alive(pid)] == []
        up = own.up()
    own.settle()
    assert own.audit(stripe.acked) == CLEAN


def test_killed_up_leaves_its_servers_to_the_next_one_and_no_worker_behind(own: Rig, posts: list[Post]) -> None:
    up = own.up()
    with own.load(posts, RATE) as stripe:
        stripe.wait_for(RATE)
        children, before = until_all_run(up), servers(own.folder)
        kill(up.pid)
        up.wait()
        until(lambda: not any(map(alive, children)), 60)
        assert all(map(alive, before))
        up = own.up()
        assert servers(own.folder) == before
    own.settle()
    assert own.audit(stripe.acked) == CLEAN


def until_all_run(up: Program) -> list[int]:
    return until(lambda: children if len(children := up.children("-m billingwatch ")) == CHILDREN else [], 30)


def servers(folder: Path) -> list[int]:
    pids = [embedded.postgres_pid(folder), embedded.valkey_pid(folder)]
    return [pid for pid in pids if pid is not None]


def stop_servers(folder: Path) -> None:
    embedded.stop_valkey(folder)
    embedded.stop_postgres(folder)
