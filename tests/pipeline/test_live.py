"""Live and backtest are one: the same stream through the store, minute by minute, tells the same incidents."""

import random
from collections.abc import Iterator
from functools import cache

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from billingwatch.model import Incident
from billingwatch.simulator.incidents import parse
from billingwatch.simulator.stream import Scenario, simulate
from detectors.backtest import Arrival, backtest, incidents
from detectors.event import read_event
from detectors.registry import configure
from tests.pipeline.play import play
from worker.evaluate import EXPLAINED

START = 1_788_220_800  # a midnight
DAY, HOUR = 86_400, 3600
JUDGED = START + 9 * DAY + 10 * HOUR
PLANS, _ = configure({})

Arrivals = list[tuple[int, bytes]]


def stream(*planted: str, days: float, volume: float = 150, seed: int = 3) -> Arrivals:
    scenario = Scenario(seed=seed, start=START, days=days, volume=volume, incidents=tuple(map(parse, planted)))
    return [(event["created"] + 2, msgspec.json.encode(event)) for event in simulate(scenario)]


def replayed(arrivals: Arrivals, source: str = "default") -> list[Incident]:
    read = (Arrival(read_event(body), received) for received, body in arrivals)
    return incidents(backtest(read, PLANS, source))


def told(found: list[Incident]) -> Iterator[dict[str, object]]:
    for each in found:
        fields = msgspec.structs.asdict(each)
        # What events explain is the store's alone.
        evidence = {name: value for name, value in each.evidence.items() if name not in EXPLAINED}
        for name in ("id", "customers"):
            fields.pop(name)
        yield fields | {"evidence": evidence}


@cache
def habit() -> Arrivals:
    """Nine days of habit, and half a day in which two things go wrong."""
    planted = ("cancel_spike@+9d11h,size=90,for=40m", "failed_payments@+9d14h,size=0.9,for=2h")
    return stream(*planted, days=9.75, volume=300)


def test_the_same_incidents_are_told_live_and_by_a_backtest(conn: Connection) -> None:
    arrivals = habit()
    live = play(conn, arrivals, PLANS, judge_from=JUDGED)
    assert {each.detector for each in live} >= {"churn_spike", "failure_rate"}
    assert list(told(live)) == list(told(replayed(arrivals)))


@pytest.mark.timeout(300)
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), late=st.sampled_from([30, 600, 7200]))
def test_however_the_stream_is_shuffled_doubled_and_late(conn: Connection, seed: int, late: int) -> None:
    """The last hours' arrivals come late and twice, in another order than they were created."""
    rng, source = random.Random(seed), f"source-{seed}-{late}"
    disturbed = []
    for received, body in habit():
        moved = received if received < JUDGED else received + rng.randrange(late)
        disturbed.append((moved, body))
        if rng.random() < 0.05:
            disturbed.append((moved + rng.randrange(3600), body))
    disturbed.sort(key=lambda each: each[0])
    live = play(conn, disturbed, PLANS, judge_from=JUDGED, source=source)
    assert list(told(live)) == list(told(replayed(disturbed, source)))
